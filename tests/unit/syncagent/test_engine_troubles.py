"""Whole cycles on a real folder and a real journal, against a server in memory: what goes wrong loses nothing."""

from __future__ import annotations

import os
import shutil

import pytest

from helenite.core.errors import HeleniteError, InsufficientStorageError, ProtocolError, UnavailableError
from syncagent.executor import Outcome
from syncagent.model import Kind, RemoteStamp
from syncagent.names import STATE_DIRECTORY
from syncagent.plan import Delete, Move, Pair, Plan, Upload
from syncagent.ports import Upload as SentContent
from syncagent.safety import Danger, Limits
from tests.support.sync_server import MemoryServer
from tests.support.sync_world import Agent, Make, World, requests_of, write


def test_deleting_much_stops_and_asks(world: World, agent: Agent, server: MemoryServer) -> None:
    agent.limits = Limits(count=10, share=0.5)
    for number in range(30):
        write(agent, f"d/{number}")
    world.settle()
    shutil.rmtree(agent.root / "d")
    agent.cycle("")
    world.clock.now += 10
    report = agent.cycle("")
    assert report.stop is not None
    assert (report.stop.danger, report.stop.count) == (Danger.MANY_DELETIONS, 31)
    assert len(server.listing()) == 31
    agent.engine.allow_deletions()
    assert requests_of(server, agent.settle) == {"delete": 1}
    assert not server.listing()


def test_deletions_that_were_not_wanted_come_back(world: World, agent: Agent, server: MemoryServer) -> None:
    agent.limits = Limits(count=10, share=0.5)
    for number in range(30):
        write(agent, f"d/{number}")
    world.settle()
    server.remove(("d",))
    report = agent.cycle("")
    assert report.stop is not None
    agent.engine.undo_deletions()
    agent.settle()
    world.check()
    assert len(server.listing()) == 31


def test_renaming_much_is_no_deletion(world: World, agent: Agent) -> None:
    agent.limits = Limits(count=3, share=0.1)
    for number in range(30):
        write(agent, f"d/{number}")
    world.settle()
    (agent.root / "d").rename(agent.root / "e")
    for number in range(30):
        (agent.root / "e" / str(number)).rename(agent.root / "e" / f"x{number}")
    world.settle()
    world.check()


def test_an_unmounted_folder_deletes_nothing(world: World, agent: Agent, server: MemoryServer) -> None:
    write(agent, "a")
    world.settle()
    agent.root.rename(agent.root.with_name("unmounted"))
    with pytest.raises(UnavailableError):
        agent.cycle("")
    agent.root.mkdir()  # the empty directory under a mount point
    report = agent.cycle("")
    assert report.stop is not None
    assert report.stop.danger is Danger.FOLDER_REPLACED
    assert server.listing() == {"a": b"1"}
    agent.root.rmdir()
    agent.root.with_name("unmounted").rename(agent.root)
    world.settle()
    world.check()


def test_a_folder_that_goes_away_during_the_scan(
    world: World, agent: Agent, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(agent, "a")
    world.settle()
    engine = agent.engine
    list_ = engine._folder.list

    def list_after_unmount(path: tuple[str, ...]) -> object:
        agent.root.rename(agent.root.with_name("unmounted"))
        agent.root.mkdir()
        return list_(path)

    monkeypatch.setattr(engine._folder, "list", list_after_unmount)
    with pytest.raises(UnavailableError):
        agent.cycle("")
    assert engine.journal.count_agreed() == 1
    assert not engine.journal.unsettled(10)


@pytest.mark.parametrize("what", ["instance", "fingerprint"])
def test_another_server_deletes_nothing(what: str, world: World, agent: Agent, server: MemoryServer) -> None:
    write(agent, "a")
    server.put(("b",), b"2")
    world.settle()
    server.remove(("a",))
    server.forget_changes()
    setattr(server, what, "another")
    report = agent.cycle("")
    assert report.stop is not None
    assert report.stop.danger is (Danger.SERVER_REPLACED if what == "instance" else Danger.SERVER_RESTORED)
    assert agent.listing() == {"a": b"1", "b": b"2"}
    agent.engine.start_over()
    world.settle()
    world.check()
    assert server.listing() == {"a": b"1", "b": b"2"}


def test_a_server_that_went_back_in_time_deletes_nothing(world: World, agent: Agent, server: MemoryServer) -> None:
    write(agent, "kept")
    write(agent, "newer than the copy")
    world.settle()
    server.remove(("newer than the copy",))
    server.lose_history()
    write(agent, "saved since")
    for _ in range(3):
        report = agent.cycle("")
        assert report.stop is not None
        assert report.stop.danger is Danger.SERVER_RESTORED
    assert server.listing() == {"kept": b"1"}
    agent.engine.start_over()
    world.settle()
    world.check()
    assert set(server.listing()) == {"kept", "newer than the copy", "saved since"}
    assert agent.trashed() == set()


@pytest.mark.parametrize("error", [UnavailableError, ProtocolError, HeleniteError])
@pytest.mark.parametrize("tells_changes", [True, False])
def test_a_listing_that_fails_deletes_nothing(make: Make, error: type[HeleniteError], tells_changes: bool) -> None:
    world = make(1, tells_changes=tells_changes)
    agent, server = world.agents[0], world.server
    server.names_all = False  # it is looked at by listings
    for name in ("d", "e"):
        write(agent, f"{name}/a")
    world.settle()
    server.put(("e", "b"), b"2")
    server.put(("d", "b"), b"2")
    server.forget_changes()
    honest = server.list

    def list_badly(directory: tuple[str, ...]) -> object:
        if directory == ("d",):
            raise error("a page that is no multistatus")
        return honest(directory)

    server.list = list_badly  # type: ignore[method-assign, assignment]
    report = agent.cycle("")
    assert not [step for step in report.steps if isinstance(step, Delete)]
    assert [trouble.path for trouble in report.troubles] == [("d",)]
    assert (agent.root / "e" / "b").exists(), "the rest goes on"
    server.list = honest  # type: ignore[method-assign]
    world.settle()
    world.check()


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


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("restarts", [True, False])
@pytest.mark.parametrize("second", [b"second, longer", b"2"])
def test_a_lost_reply_and_then_an_edit_is_no_conflict(
    world: World, agent: Agent, server: MemoryServer, *, is_new: bool, restarts: bool, second: bytes
) -> None:
    if not is_new:
        write(agent, "d/a", b"0")
        world.settle()

    def lose(phase: str, name: str) -> None:
        if (phase, name) == ("after", "store"):
            server.hook = lambda _phase, _name: None
            raise UnavailableError("lost")

    write(agent, "d/a", b"1")
    server.hook = lose
    while server.listing().get("d/a") != b"1":
        agent.cycle()
        world.clock.now += 1
    if restarts:
        agent.restart()
    write(agent, "d/a", second)
    world.settle()
    world.check()
    assert agent.listing() == {"d": None, "d/a": second}
    assert not (agent.root / STATE_DIRECTORY / "underway").exists()


@pytest.mark.parametrize("is_new", [True, False])
def test_a_crash_after_a_download_and_then_an_edit_there_is_no_conflict(
    world: World, agent: Agent, server: MemoryServer, monkeypatch: pytest.MonkeyPatch, *, is_new: bool
) -> None:
    if not is_new:
        server.put(("a",), b"0")
        world.settle()
    server.put(("a",), b"1")
    install = agent.engine._folder.install

    def install_and_die(*given: object) -> None:
        install(*given)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(agent.engine._folder, "install", install_and_die)
    with pytest.raises(KeyboardInterrupt):
        world.settle()
    agent.restart()
    assert agent.listing() == {"a": b"1"}
    server.put(("a",), b"there")
    world.settle()
    world.check()
    assert agent.listing() == {"a": b"there"}


def test_what_another_has_sent_is_a_conflict_all_the_same(world: World, agent: Agent, server: MemoryServer) -> None:
    def refuse(phase: str, name: str) -> None:
        if (phase, name) == ("before", "store"):
            raise UnavailableError("no")

    write(agent, "a", b"mine")
    server.hook = refuse
    agent.cycle()
    server.hook = lambda _phase, _name: None
    server.put(("a",), b"theirs")
    agent.restart()
    write(agent, "a", b"mine again")
    world.settle()
    world.check()
    assert sorted(content or b"" for content in agent.listing().values()) == [b"mine again", b"theirs"]


@pytest.mark.parametrize("restarts", [True, False])
@pytest.mark.parametrize("moved", ["file", "directory"])
def test_a_lost_reply_to_a_move_and_then_another_rename_is_no_contest(
    world: World, agent: Agent, server: MemoryServer, *, moved: str, restarts: bool
) -> None:
    """The server's move was ours, so the later name stands, and not the server's."""
    write(agent, "file", b"1")
    write(agent, "directory/b", b"2")
    world.settle()

    def lose(phase: str, name: str) -> None:
        if (phase, name) == ("after", "move"):
            server.hook = lambda _phase, _name: None
            raise UnavailableError("lost")

    (agent.root / moved).rename(agent.root / "once")
    server.hook = lose
    while "once" not in server.listing():
        agent.cycle()
        world.clock.now += 1
    if restarts:
        agent.restart()
    (agent.root / "once").rename(agent.root / "twice")
    world.settle()
    world.check()
    assert "twice" in server.listing()
    assert not {"once", moved} & server.listing().keys()
    assert not (agent.root / STATE_DIRECTORY / "underway").exists()


def test_a_crash_right_after_an_upload_was_recognised_and_then_a_rename(
    world: World, agent: Agent, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is known that the two are one, and not yet that they were agreed upon: the name here is the later one."""

    def lose(phase: str, name: str) -> None:
        if (phase, name) == ("after", "store"):
            server.hook = lambda _phase, _name: None
            raise UnavailableError("lost")

    write(agent, "a", b"1")
    server.hook = lose
    agent.cycle()
    assert server.listing() == {"a": b"1"}
    world.clock.now += 1
    execute = agent.engine._executor.execute
    plans: list[Plan] = []

    def execute_once(plan: Plan) -> Outcome:
        if plans:
            raise KeyboardInterrupt
        plans.append(plan)
        return execute(plan)

    monkeypatch.setattr(agent.engine._executor, "execute", execute_once)
    with pytest.raises(KeyboardInterrupt):
        agent.cycle()
    assert [type(step) for step in plans[0].steps] == [Pair]
    agent.restart()
    (agent.root / "a").rename(agent.root / "b")
    world.settle()
    world.check()
    assert server.listing() == {"b": b"1"}


def test_of_two_moves_that_are_not_both_ours_the_servers_stands(
    world: World, agent: Agent, server: MemoryServer
) -> None:
    write(agent, "a", b"1")
    world.settle()
    server.rename(("a",), ("theirs",))
    (agent.root / "a").rename(agent.root / "mine")
    world.settle()
    world.check()
    assert agent.listing() == {"theirs": b"1"}
