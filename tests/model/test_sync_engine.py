"""One to three agents with real folders and journals, and a server in memory, while people edit, requests and replies
are lost and processes die: in the end all are equal, nothing is lost, and one more cycle writes nothing.

A seed that fails is named; `simulate(seed, directory, is_late=…)` replays it, as far as inode numbers and file times
allow.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from helenite.core.errors import UnavailableError
from tests.support.sync_server import MemoryServer
from tests.support.sync_world import Agent, Crash, World, disturbing

SEEDS = 200
SEEDS_SLOW = 3000


class Disturbance:
    """What happens in between: called before and after each request and each rename on a disk."""

    def __init__(self, random: Random, world: World) -> None:
        self._random = random
        self._world = world
        self._busy = False
        self.share = 0.0

    def __call__(self, phase: str, name: str) -> None:
        if self._busy or not self.share:
            return
        chance = self._random.random() / self.share
        if chance < 1 and name not in {"exchange", "move_to_free_name"}:
            raise UnavailableError(f"lost {phase} {name}")
        if chance < 2:
            raise Crash(f"{phase} {name}")
        if chance < 4:
            self._busy = True
            self._world.act(self._random.choice(self._world.agents))
            self._busy = False


def simulate(seed: int, base: Path, *, is_late: bool = False) -> None:
    """One run. `is_late`: transfers end some time later, while cycles and people go on."""
    random = Random(seed)
    server = MemoryServer(
        tells_changes=random.random() < 0.6,
        has_tags=random.random() < 0.7,
        has_digests=random.random() < 0.7,
        answer_max=random.choice((1, 3, 1000)),
        group_max=random.choice((1, 2, 100)),
    )
    world = World(base, random, server, random.choice((1, 2, 2, 3)))
    server.computes_digests = random.random() < 0.5
    server.names_all = random.random() < 0.5
    for agent in world.agents if is_late else ():
        agent.be_late(random)
    disturbance = server.hook = Disturbance(random, world)
    with disturbing(pytest.MonkeyPatch(), disturbance):
        for _ in range(random.randrange(1, 6)):
            for agent in world.agents:
                for _ in range(random.randrange(6)):
                    world.act(agent)
            disturbance.share = random.choice((0.0, 0.02, 0.1))
            for _ in range(random.randrange(1, 6)):
                cycle_with_trouble(random, random.choice(world.agents))
                world.clock.now += random.choice((0, 1, 400))
            disturbance.share = 0.0
            if random.random() < 0.1:
                server.forget_changes()
            world.settle()
            world.check()
    for agent in world.agents:
        agent.restart()


def cycle_with_trouble(random: Random, agent: Agent) -> None:
    try:
        agent.engine.cycle(everywhere=random.random() < 0.8, asks=random.random() < 0.8)
        if agent.late is not None:
            agent.late.run_some(random.randrange(4))
    except UnavailableError:
        pass  # the server could not be looked at
    except Crash:
        agent.restart(lose_journal=random.random() < 0.03)


@pytest.mark.parametrize("is_late", [False, True])
def test_simulated_agents(tmp_path: Path, request: pytest.FixtureRequest, *, is_late: bool) -> None:
    for seed in range(SEEDS_SLOW if request.config.getoption("--slow") else SEEDS):
        base = tmp_path / str(seed)
        base.mkdir()
        try:
            simulate(seed, base, is_late=is_late)
        except (Exception, Crash) as error:
            raise AssertionError(f"simulate({seed}, …, is_late={is_late}): {error!r}") from error


@pytest.mark.parametrize("seed", [35, 120])  # what another moved or deleted before the reply to an upload was read
def test_what_went_wrong_once_with_late_transfers(seed: int, tmp_path: Path) -> None:
    simulate(seed, tmp_path, is_late=True)


@pytest.mark.parametrize(
    "seed",
    [
        13,  # a directory could not be made, and what was to go into it was sent all the same
        1005,  # a person saved between the swap of a download and the look at its new stamp
        1018,  # a download that could not be put in place was left in the staging directory
        4478,  # a directory's child was named under its new path before the directory's own move, an answer later
        1182,  # a step onto a place whose holder had not left it, because its own step had failed
    ],
)
def test_what_went_wrong_once(seed: int, tmp_path: Path) -> None:
    simulate(seed, tmp_path)
