"""Two people whose agents work while requests get lost, come to something later, are overtaken by others, or die.

Stricter than `test_sync_engine`: each file has one person, so at the end it has the name and the content that this
person gave it last, whatever became of the requests in between, and nothing else is there.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from helenite.core.errors import UnavailableError
from tests.support.sync_people import Person, UnsureServer
from tests.support.sync_server import MemoryServer
from tests.support.sync_world import Agent, Crash, World, disturbing

SEEDS = 60
SEEDS_DYING = 40
SEEDS_SLOW = 3000


ON_DISK = {"exchange", "move_to_free_name"}


class Meanwhile:
    """What happens before and after each request: a person goes on, something overdue is done, another thread works.

    Before and after a rename on a disk, or a request, an agent may also die.
    """

    def __init__(self, random: Random, world: World, people: list[Person], servers: list[UnsureServer]) -> None:
        self._random = random
        self._world = world
        self._people = people
        self.servers = servers
        self._busy = False
        self.share = 0.0
        self.deaths = 0.0
        self.mortal: list[Agent] = []
        """Whose processes are at work."""
        self.working: list[Agent] = []
        """Whose engines are in the middle of a cycle."""

    def __call__(self, phase: str, name: str) -> None:
        if self._busy:
            return
        if self.deaths and self.mortal and self._random.random() < self.deaths:
            raise Crash(f"{phase} {name}")
        if name in ON_DISK or self._random.random() >= self.share:
            return
        self._busy = True
        number = self._random.randrange(len(self._people))
        agent, person = self._world.agents[number], self._people[number]
        match self._random.randrange(4):
            case 0:
                person.work(self._random.randrange(1, 3))
            case 1:
                self.servers[number].do_some(1)
            case 2 if agent.late is not None:
                agent.late.run_some(1)
            case 3 if agent not in self.working:
                cycle(self._random, agent, person, self)
        self._busy = False


def simulate(seed: int, base: Path, *, dies: bool = False) -> None:
    """One run. `dies`: agents do, in the middle of their work."""
    random = Random(seed)
    server = MemoryServer(
        tells_changes=random.random() < 0.8,
        has_tags=random.random() < 0.7,
        answer_max=random.choice((3, 1000)),
        group_max=random.choice((1, 2, 100)),
    )
    server.names_all = random.random() < 0.7
    world = World(base, random, server, 2)
    servers = [doubt(agent, random, base) for agent in world.agents]
    people = [Person(agent.root, f"p{number}", random) for number, agent in enumerate(world.agents)]
    meanwhile = server.hook = Meanwhile(random, world, people, servers)
    with disturbing(pytest.MonkeyPatch(), meanwhile):
        for _ in range(random.randrange(1, 5)):
            for person in people:
                person.work(random.randrange(8))
            live(random, world, people, meanwhile, dies=dies)
            world.settle()
            check(world, people)
    for agent in world.agents:
        agent.restart()


def live(random: Random, world: World, people: list[Person], meanwhile: Meanwhile, *, dies: bool) -> None:
    """Agents and people work for a while, and things go wrong."""
    meanwhile.share = random.choice((0.0, 0.05, 0.2))
    meanwhile.deaths = random.choice((0.0, 0.02, 0.1)) if dies else 0.0
    for one in meanwhile.servers:
        one.share = random.choice((0.0, 0.1, 0.5))
    for _ in range(random.randrange(1, 10)):
        go_on(random, world, people, meanwhile)
        pass_time(random, world, meanwhile.servers)
    meanwhile.share = meanwhile.deaths = 0.0
    for one in meanwhile.servers:
        one.share = 0.0
        one.do_some(1_000)


def doubt(agent: Agent, random: Random, base: Path) -> UnsureServer:
    """What stands between the agent and the server from now on."""
    scratch = base / f"{agent.name}.sent"
    scratch.mkdir()
    unsure = UnsureServer(agent.server, random, scratch)
    agent.server = unsure  # type: ignore[assignment]
    if random.random() < 0.7:
        agent.be_late(random)
    return unsure


def go_on(random: Random, world: World, people: list[Person], meanwhile: Meanwhile) -> None:
    """One agent works, perhaps a person does, and perhaps something overdue is done."""
    number = random.randrange(2)
    cycle(random, world.agents[number], people[number], meanwhile)
    random.choice(people).work(random.choice((0, 0, 1, 3)))
    random.choice(meanwhile.servers).do_some(random.choice((0, 0, 1, 3)))


def pass_time(random: Random, world: World, servers: list[UnsureServer]) -> None:
    """What was begun long ago is over."""
    seconds = random.choice((0, 0, 0.3, 2, 400))
    if seconds == 400:
        for one in servers:
            one.do_some(1_000)
    world.clock.now += seconds


def cycle(random: Random, agent: Agent, person: Person, meanwhile: Meanwhile) -> None:
    hints, person.hints = person.hints, set()
    meanwhile.mortal.append(agent)
    meanwhile.working.append(agent)
    try:
        with suppress(UnavailableError):  # the server could not be looked at
            agent.engine.cycle(hints, everywhere=random.random() < 0.4, asks=random.random() < 0.8)
        meanwhile.working.remove(agent)
        if agent.late is not None:
            agent.late.run_some(random.randrange(4))
    except Crash:
        meanwhile.working = [other for other in meanwhile.working if other is not agent]
        agent.restart()
    meanwhile.mortal.remove(agent)


def check(world: World, people: list[Person]) -> None:
    expected = people[0].tree | people[1].tree
    for side in (world.server, *world.agents):
        found = side.listing()
        assert found == expected, found.items() ^ expected.items()
    before = world.server.write_count()
    for agent in world.agents:
        assert not agent.cycle().steps
    assert world.server.write_count() == before


@pytest.mark.parametrize("dies", [False, True])
def test_simulated_people(tmp_path: Path, request: pytest.FixtureRequest, *, dies: bool) -> None:
    count = SEEDS_DYING if dies else SEEDS
    for seed in range(SEEDS_SLOW if request.config.getoption("--slow") else count):
        base = tmp_path / str(seed)
        base.mkdir()
        try:
            simulate(seed, base, dies=dies)
        except (Exception, Crash) as error:
            raise AssertionError(f"simulate({seed}, …, dies={dies}): {error!r}") from error
