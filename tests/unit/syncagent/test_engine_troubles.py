"""Whole cycles on a real folder and a real journal, against a server in memory: what goes wrong loses nothing."""

from __future__ import annotations

import os

import pytest

from helenite.core.errors import HeleniteError, InsufficientStorageError, UnavailableError
from syncagent.model import Kind, RemoteStamp
from syncagent.names import STATE_DIRECTORY
from syncagent.plan import Move, Upload
from syncagent.ports import Upload as SentContent
from tests.support.sync_server import MemoryServer
from tests.support.sync_world import Agent, Make, World, requests_of, write


@pytest.mark.parametrize("damage", ["truncated", "garbage", "gone"])
def test_a_damaged_journal_begins_anew_and_loses_nothing(
    damage: str, world: World, agent: Agent, server: MemoryServer
) -> None:
    for number in range(20):
        write(agent, f"d/{number}", str(number).encode())
    world.settle()
    agent.restart()
    journal = agent._journal_file
    if damage == "gone":
        journal.unlink()
    else:
        content = journal.read_bytes()
        journal.write_bytes(content[: len(content) // 3] if damage == "truncated" else b"\0" * len(content))
    write(agent, "d/0", b"changed meanwhile")
    (agent.root / "d" / "1").unlink()
    world.settle()
    world.check()
    assert {b"changed meanwhile", b"0", b"1"} <= set(server.listing().values())
    assert len(server.listing()) == 22
    assert (journal.parent / "damaged").exists() is (damage != "gone")


def test_first_sync_of_equal_trees_moves_no_content(make: Make) -> None:
    world = make(1, has_digests=True)
    agent, server = world.agents[0], world.server
    for number in range(20):
        write(agent, f"d/{number}", str(number).encode())
    server.make(("d",))
    for number in range(20):
        os.utime(
            agent.root / "d" / str(number),
            ns=(0, server.put(("d", str(number)), str(number).encode()).mtime_ms * 10**6),
        )
    assert requests_of(server, world.settle) == {}
    world.check()


def test_a_second_cycle_asks_little(world: World, agent: Agent, server: MemoryServer) -> None:
    for number in range(20):
        write(agent, f"d/{number}")
    world.settle()
    before = dict(server.requests)
    agent.cycle("")
    after = {name: count - before.get(name, 0) for name, count in server.requests.items()}
    assert {name: count for name, count in after.items() if count} == {"changes": 1}


def test_a_lost_reply_to_an_upload(world: World, agent: Agent, server: MemoryServer) -> None:
    write(agent, "a", b"1")

    def lose(phase: str, name: str) -> None:
        if (phase, name) == ("after", "store"):
            server.hook = lambda _phase, _name: None
            raise UnavailableError("lost")

    server.hook = lose
    report = agent.cycle()
    assert [type(step) for step, _ in report.failed] == [Upload]
    assert requests_of(server, world.settle) == {}
    world.check()


def test_failures_wait_longer_and_longer(world: World, agent: Agent, server: MemoryServer) -> None:
    write(agent, "bad")
    write(agent, "good")
    honest = server.store

    def refuse(path: tuple[str, ...], *arguments: object) -> object:
        if path == ("bad",):
            raise HeleniteError("no")
        return honest(path, *arguments)  # type: ignore[arg-type]

    server.store = refuse  # type: ignore[method-assign, assignment]
    waits = []
    for _ in range(4):
        report = agent.cycle("")
        assert report.wake_at is not None
        waits.append(report.wake_at - world.clock.now)
        world.clock.now = report.wake_at
    assert waits == [1, 2, 4, 8]
    assert set(server.listing()) == {"good"}


def test_a_server_without_room_takes_what_still_fits(world: World, agent: Agent, server: MemoryServer) -> None:
    honest = server.store

    def store_small(path: tuple[str, ...], upload: SentContent, replaces: RemoteStamp | None) -> RemoteStamp:
        if upload.size > 100:
            raise InsufficientStorageError("there is no room for this")
        return honest(path, upload, replaces)

    server.store = store_small  # type: ignore[method-assign]
    for number in range(5):
        write(agent, f"small {number}")
        write(agent, f"large {number}", b"x" * 1000)
    report = agent.cycle("")
    assert set(server.listing()) == {f"small {number}" for number in range(5)}
    assert {trouble.path[-1]: trouble.reason for trouble in report.troubles} == {
        f"large {number}": "there is no room for this" for number in range(5)
    }
    server.store = honest  # type: ignore[method-assign]
    world.settle()
    world.check()
    assert len(server.listing()) == 10


def test_a_preview_changes_nothing(world: World, agent: Agent, server: MemoryServer) -> None:
    write(agent, "a")
    server.put(("b",), b"2")
    plan = agent.engine.preview()
    assert len(list(plan.steps)) == 2
    assert agent.listing() == {"a": b"1"}
    assert server.listing() == {"b": b"2"}
    world.settle()
    world.check()


def test_deletions_go_to_the_local_trash(world: World, agent: Agent, server: MemoryServer) -> None:
    write(agent, "d/a", b"precious")
    world.settle()
    server.remove(("d",))
    report = agent.settle()
    assert report.is_quiet
    assert agent.listing() == {}
    assert agent.trashed() == {b"precious"}
    assert (agent.root / STATE_DIRECTORY).exists()


def test_names_are_exchanged_on_the_server(world: World, agent: Agent, server: MemoryServer) -> None:
    write(agent, "a/x", b"1")
    write(agent, "b/y", b"2")
    world.settle()
    for source, target in ((("a",), ("t",)), (("b",), ("a",)), (("t",), ("b",))):
        server.rename(source, target)
    report = agent.cycle("")
    assert [type(step) for step in report.steps] == [Move] * 3
    world.check()


def test_a_deletion_inside_a_directory_that_is_then_renamed(make: Make) -> None:
    world = make(2)
    first, second = world.agents
    write(first, "a/x")
    write(first, "a/y")
    world.settle()
    world.server.remove(("a", "x"))
    world.server.rename(("a",), ("b",))
    world.settle()
    world.check()
    assert second.listing() == {"b": None, "b/y": b"1"}


def test_a_file_made_again_on_the_server_is_the_same_file(world: World, agent: Agent, server: MemoryServer) -> None:
    write(agent, "a", b"1")
    world.settle()
    server.remove(("a",))
    server.put(("a",), b"2")
    report = agent.cycle("")
    assert len(report.steps) == 1
    assert agent.listing() == {"a": b"2"}
    world.check()


def test_kinds_change(world: World, agent: Agent, server: MemoryServer) -> None:
    write(agent, "a", b"1")
    write(agent, "d/x", b"2")
    world.settle()
    (agent.root / "a").unlink()
    write(agent, "a/y", b"3")
    server.remove(("d",))
    server.put(("d",), b"4", Kind.FILE)
    world.settle()
    world.check()
    assert server.listing() == {"a": None, "a/y": b"3", "d": b"4"}


@pytest.mark.parametrize("tells_changes", [True, False])
def test_the_same_resource_becomes_another_kind(make: Make, tells_changes: bool) -> None:
    """A link is uploaded as a file, marked and then given its name; another agent may look at any moment."""
    world = make(tells_changes=tells_changes)
    agent, server = world.agents[0], world.server
    write(agent, "link", b"mine")
    item = server.put(("upload",), b"target")

    def look_before_it_is_fetched(phase: str, request: str) -> None:
        if (phase, request) == ("before", "fetch"):
            raise UnavailableError("not now")

    server.hook = look_before_it_is_fetched
    agent.cycle()
    server.hook = lambda _phase, _request: None
    item.kind = Kind.LINK
    server.rename(("upload",), ("made",))
    agent.settle()
    assert (agent.root / "made").readlink().name == "target"
    assert not (agent.root / "upload").exists()
    assert (agent.root / "link").read_bytes() == b"mine"
