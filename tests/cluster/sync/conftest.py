"""Two real agents on a real cluster, shared by the scenarios of a file; each works in a directory of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.sync_agents import Agent, ServerView, Tree, settle
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster") / "data", "--workers", "2") as found:
        yield found
        found.check_fsck()


@pytest.fixture(scope="module")
def server(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerView]:
    found = ServerView(f"{cluster.url}shared", tmp_path_factory.mktemp("view") / "scratch")
    yield found
    found.remote.close()


@pytest.fixture(scope="module")
def devices(
    cluster: Cluster, server: ServerView, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Agent, Agent]]:
    base = tmp_path_factory.mktemp("agents")
    found = Agent(base, "anna"), Agent(base, "bert")
    for agent in found:
        agent.add(f"{cluster.url}shared")
        agent.start()
    yield found
    for agent in found:
        agent.stop()


@pytest.fixture
def anna(devices: tuple[Agent, Agent]) -> Iterator[Agent]:
    yield from _running(devices[0])


@pytest.fixture
def bert(devices: tuple[Agent, Agent]) -> Iterator[Agent]:
    yield from _running(devices[1])


def _running(agent: Agent) -> Iterator[Agent]:
    yield agent
    if agent.process is None:
        agent.start()
    agent.lift_limits()  # of a test that has failed


@dataclass(frozen=True)
class Scene:
    """One scenario: the directory that it works in, as both people see it."""

    name: str
    anna: Agent
    bert: Agent
    server: ServerView

    @property
    def here(self) -> Path:
        """Anna's."""
        return self.anna.folder / self.name

    @property
    def there(self) -> Path:
        """Bert's."""
        return self.bert.folder / self.name

    def settle(self) -> Tree:
        """Both are equal, the invariants hold; what is in the directory, by paths that begin there."""
        return self._inside(settle(self.server, self.anna, self.bert))

    def settle_alone(self, agent: Agent) -> Tree:
        """The same for one of them."""
        return self._inside(settle(self.server, agent))

    def _inside(self, tree: Tree) -> Tree:
        start = f"{self.name}/"
        return {path.removeprefix(start): content for path, content in tree.items() if path.startswith(start)}

    def write(self, **files: bytes) -> None:
        """Anna's files."""
        for name, content in files.items():
            (self.here / name).write_bytes(content)


@pytest.fixture
def scene(request: pytest.FixtureRequest, anna: Agent, bert: Agent, server: ServerView) -> Scene:
    found = Scene(request.node.name.removeprefix("test_")[:100], anna, bert, server)
    found.here.mkdir()
    wait_until(found.there.exists, 30)
    return found
