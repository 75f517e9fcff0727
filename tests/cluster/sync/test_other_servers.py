"""The server is another one, or went back in time: the agent asks a person, and deletes nothing until it is told."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from syncagent.control import ask
from tests.support.cluster import Cluster
from tests.support.ports import free_port
from tests.support.sync_agents import Agent, ServerView, settle
from tests.support.waiting import wait_until


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    found = Agent(tmp_path, "anna")
    yield found
    found.stop()


@contextlib.contextmanager
def looking(cluster: Cluster, tmp_path: Path) -> Iterator[ServerView]:
    found = ServerView(f"{cluster.url}home", tmp_path / "scratch")
    yield found
    found.remote.close()


def asks(agent: Agent, why: str) -> None:
    def is_asked() -> bool:
        status = agent.status()
        return status["decisions"] == ["start-over"] and why in status["problem"]

    wait_until(is_asked)


def look_twice(agent: Agent) -> None:
    """At least one look began after this: the end of another, which was under way, counts as one."""
    for _ in range(2):
        cycles = agent.status()["cycles"]
        ask(agent.home, "sync")
        wait_until(lambda cycles=cycles: agent.status()["cycles"] > cycles)


def test_a_server_that_was_restored_from_a_copy(agent: Agent, tmp_path: Path) -> None:
    port = str(free_port())
    data, copy = tmp_path / "data", tmp_path / "copy"
    with Cluster(data, "--port", port) as cluster, looking(cluster, tmp_path) as server:
        agent.add(f"{cluster.url}home")
        agent.start()
        (agent.folder / "old").write_bytes(b"in the copy")
        settle(server, agent)
    shutil.copytree(data, copy, symlinks=True)
    with Cluster(data, "--port", port) as cluster, looking(cluster, tmp_path) as server:
        (agent.folder / "new").write_bytes(b"not in the copy")
        (agent.folder / "old").write_bytes(b"newer than the copy")
        expected = settle(server, agent)
    shutil.rmtree(data)
    copy.rename(data)
    with Cluster(data, "--port", port) as cluster, looking(cluster, tmp_path) as server:
        asks(agent, "restored from an older copy")
        (agent.folder / "meanwhile").write_bytes(b"saved meanwhile")
        look_twice(agent)
        asks(agent, "restored from an older copy")
        assert agent.tree() == expected | {"meanwhile": b"saved meanwhile"}
        assert server.tree() == {"old": b"in the copy"}
        assert agent.command("decide", "start-over").returncode == 0
        tree = settle(server, agent)
        assert set(tree.values()) == {*expected.values(), b"saved meanwhile", b"in the copy"}
        assert agent.trashed() == []


def test_an_empty_server_in_the_place_of_the_known_one(agent: Agent, tmp_path: Path) -> None:
    port = str(free_port())
    with Cluster(tmp_path / "data", "--port", port) as cluster, looking(cluster, tmp_path) as server:
        agent.add(f"{cluster.url}home")
        agent.start()
        (agent.folder / "d").mkdir()
        (agent.folder / "d" / "a").write_bytes(b"precious")
        expected = settle(server, agent)
    with Cluster(tmp_path / "other", "--port", port) as cluster, looking(cluster, tmp_path) as server:
        ask(agent.home, "sync")
        wait_until(lambda: agent.status()["mood"] == "attention", 60)  # there is no such folder at all
        assert agent.tree() == expected
        httpx.request("MKCOL", f"{cluster.url}home/", timeout=60).raise_for_status()
        asks(agent, "not the one that was synced before")
        assert agent.tree() == expected
        assert agent.command("decide", "start-over").returncode == 0
        assert settle(server, agent) == expected
