"""Agents, gateways and chunkservers that die in the middle, and connections that are cut: everybody ends up equal.

Whatever a person saved last is there in the end, under the name that the person gave it, and nothing else is: no
conflict copies, for nobody changes a file of somebody else, and nothing that comes back under a name of the past. After
the last death the invariants of `settle` hold.
"""

from __future__ import annotations

import contextlib
import random
from urllib.parse import urlsplit

import pytest

from tests.cluster.sync.conftest import Scene
from tests.support.cluster import Cluster
from tests.support.proxy import Proxy
from tests.support.sync_agents import Agent, ServerView, Tree, settle
from tests.support.waiting import wait_until

ROUND = 8
"""Deaths between two looks at whether all is well."""
MANY = [pytest.mark.slow, pytest.mark.timeout(1500)]


class Person:
    """Works in one folder: each file belongs to one person, so whatever it was saved as last must be there."""

    def __init__(self, agent: Agent, top: str, chance: random.Random) -> None:
        self.agent = agent
        self._top = agent.folder / top / agent.folder.name
        self._top.mkdir(parents=True)
        self._chance = chance
        self._files: dict[str, bytes] = {}
        self._count = 0

    @property
    def tree(self) -> Tree:
        """What the person has, by paths that begin in the directory of the scenario."""
        files: Tree = {f"{self._top.name}/{name}": content for name, content in self._files.items()}
        return files | {self._top.name: None}

    def work(self) -> None:
        """Some things at once, so that there is something to die in."""
        for _ in range(self._chance.randrange(1, 12)):
            self._chance.choice((self._write, self._write, self._edit, self._move, self._delete, self._rename_all))()

    def _content(self) -> bytes:
        self._count += 1
        size = self._chance.choice((10, 3_000, 20_000, 20_000, 600_000))
        return b"%d of %s " % (self._count, self.agent.folder.name.encode()) + self._chance.randbytes(size)

    def _write(self) -> None:
        name = f"f{len(self._files)}-{self._count}"
        self._files[name] = self._content()
        (self._top / name).write_bytes(self._files[name])

    def _edit(self) -> None:
        if self._files:
            name = self._chance.choice(sorted(self._files))
            self._files[name] = self._content()
            (self._top / name).write_bytes(self._files[name])

    def _move(self) -> None:
        if self._files:
            old = self._chance.choice(sorted(self._files))
            fresh = f"{old}m"
            (self._top / old).rename(self._top / fresh)
            self._files[fresh] = self._files.pop(old)

    def _delete(self) -> None:
        if len(self._files) > 10 and self._chance.random() < 0.2:  # more, and the agents would ask
            name = self._chance.choice(sorted(self._files))
            del self._files[name]
            (self._top / name).unlink()

    def _rename_all(self) -> None:
        fresh = self._top.with_name(f"{self.agent.folder.name} {self._count}")
        if not fresh.exists():
            self._top.rename(fresh)
            self._top = fresh


def lines_of(agent: Agent) -> int:
    """How much an agent has done so far, as far as its history says."""
    return sum(len(file.read_bytes().splitlines()) for file in agent.home.path.glob("pair-*/history.jsonl"))


def await_a_moment(agent: Agent, chance: random.Random) -> None:
    """Until it has done some more steps, or some more bytes have come; or not at all, if it has nothing to do."""
    steps, size = lines_of(agent) + chance.randrange(12), chance.choice((1, 50_000, 1 << 60))
    with contextlib.suppress(AssertionError):
        wait_until(lambda: lines_of(agent) >= steps or agent.staged_bytes() >= size, 0.5)


def check_all_is_well(scene: Scene, people: list[Person]) -> None:
    found, expected = scene.settle(), people[0].tree | people[1].tree
    assert sorted(found) == sorted(expected)
    assert not [path for path, content in expected.items() if found[path] != content]


@pytest.mark.parametrize(
    ("seed", "deaths"),
    [
        pytest.param(11, 24, marks=pytest.mark.timeout(900)),
        pytest.param(12, 200, marks=MANY),
        pytest.param(13, 200, marks=MANY),
    ],
)
def test_agents_are_killed_at_any_moment(scene: Scene, seed: int, deaths: int) -> None:
    chance = random.Random(seed)
    people = [Person(agent, scene.name, chance) for agent in (scene.anna, scene.bert)]
    for death in range(1, 1 + deaths):
        for person in people:
            person.work()
        victim = chance.choice((scene.anna, scene.bert))
        await_a_moment(victim, chance)
        victim.kill()
        if chance.random() < 0.5:
            people[0].work()
        victim.start()
        if death % ROUND == 0:
            check_all_is_well(scene, people)


def kill(cluster: Cluster, name: str) -> None:
    victim = cluster.child(name)
    for process in [*victim.children(recursive=True), victim]:
        process.kill()


@pytest.mark.parametrize("name", ["webdav", "helenite.chunkserver", "helenite.master"])
def test_servers_are_killed_at_any_moment(scene: Scene, cluster: Cluster, name: str) -> None:
    chance = random.Random(name)
    people = [Person(agent, scene.name, chance) for agent in (scene.anna, scene.bert)]
    for _ in range(2):
        for person in people:
            person.work()
        await_a_moment(scene.anna, chance)
        kill(cluster, name)
        people[1].work()
        check_all_is_well(scene, people)


def test_everybody_dies_at_once(scene: Scene, cluster: Cluster) -> None:
    chance = random.Random(5)
    people = [Person(agent, scene.name, chance) for agent in (scene.anna, scene.bert)]
    for person in people:
        person.work()
        person.work()
    await_a_moment(scene.anna, chance)
    kill(cluster, "webdav")
    kill(cluster, "helenite.chunkserver")
    scene.anna.kill()
    scene.bert.kill()
    people[0].work()
    scene.anna.start()
    scene.bert.start()
    check_all_is_well(scene, people)


def test_connections_are_cut(cluster: Cluster, anna: Agent) -> None:
    """Both agents reach the server through something that cuts all connections, again and again."""
    base = anna.folder.parent
    url = urlsplit(cluster.url)
    proxy = Proxy(url.netloc)
    server = ServerView(f"{cluster.url}cut", base / "scratch cut")
    agents = [Agent(base, "cut one"), Agent(base, "cut two")]
    for agent in agents:
        agent.add(f"http://{proxy.address}/cut")
        agent.start()
    chance = random.Random(3)
    contents = {f"f{number}": chance.randbytes(chance.choice((100, 40_000, 5_000_000))) for number in range(20)}
    for name, content in contents.items():
        (agents[chance.randrange(2)].folder / name).write_bytes(content)
        if chance.random() < 0.5:
            passed = proxy.passed_bytes + chance.randrange(3_000_000)
            with contextlib.suppress(AssertionError):
                wait_until(lambda passed=passed: proxy.passed_bytes >= passed, 0.5)
            proxy.cut()
    assert settle(server, *agents, within_s=120) == contents
    for agent in agents:
        agent.stop()
    proxy.close()
    server.remote.close()
