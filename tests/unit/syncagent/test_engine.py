"""Whole cycles on a real folder and a real journal, against a server in memory: what people do, and what goes wrong."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest

from helenite.core.errors import HeleniteError, ProtocolError, UnavailableError
from syncagent.model import Kind
from syncagent.names import STATE_DIRECTORY
from syncagent.plan import Delete, Move, Upload
from syncagent.safety import Danger, Limits
from syncagent.selection import Selection
from syncagent.transfers import LARGE_BYTES, SMALL_MAX, Lanes
from tests.support.sync_server import MemoryServer
from tests.support.sync_world import Agent, World
from tests.support.waiting import wait_until

Make = Callable[..., World]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make_world(count: int = 1, **abilities: bool) -> World:
        return World(tmp_path, Random(0), MemoryServer(**abilities), count)  # type: ignore[arg-type]

    return make_world


@pytest.fixture
def world(make: Make) -> World:
    return make()


@pytest.fixture
def agent(world: World) -> Agent:
    return world.agents[0]


@pytest.fixture
def server(world: World) -> MemoryServer:
    return world.server


def write(agent: Agent, path: str, content: bytes = b"1") -> Path:
    file = agent.root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def requests_of(server: MemoryServer, act: Callable[[], object]) -> dict[str, int]:
    """The writing and fetching requests that something took."""
    before = dict(server.requests)
    act()
    names = ("store", "make_directory", "move", "delete", "set_attributes", "fetch")
    counts = {name: server.requests.get(name, 0) - before.get(name, 0) for name in names}
    return {name: count for name, count in counts.items() if count}


# What people do


def test_files_go_both_ways(world: World, agent: Agent, server: MemoryServer) -> None:
    write(agent, "d/a", b"local")
    server.make(("e",))
    server.put(("e", "b"), b"remote")
    world.settle()
    world.check()
    assert server.listing() == {"d": None, "d/a": b"local", "e": None, "e/b": b"remote"}


def test_a_renamed_directory_is_one_move_and_no_content(make: Make) -> None:
    world = make(2)
    first, second = world.agents
    for number in range(50):
        write(first, f"d/e/{number}", str(number).encode())
    world.settle()
    inode = (second.root / "d" / "e" / "7").stat().st_ino
    (first.root / "d").rename(first.root / "x")
    assert requests_of(world.server, world.settle) == {"move": 1}
    assert (second.root / "x" / "e" / "7").stat().st_ino == inode
    world.check()


def test_a_renamed_directory_and_a_new_one_of_the_old_name(world: World, agent: Agent, server: MemoryServer) -> None:
    write(agent, "a/x")
    world.settle()
    (agent.root / "a").rename(agent.root / "b")
    (agent.root / "a").mkdir()
    assert requests_of(server, world.settle) == {"move": 1, "make_directory": 1}
    world.check()


def test_a_safe_save_is_one_new_revision(world: World, agent: Agent, server: MemoryServer) -> None:
    file = write(agent, "a", b"old")
    world.settle()
    resource = server.root.children["a"].id
    write(agent, "a~", b"new").rename(file)
    assert requests_of(server, world.settle) == {"store": 1}
    assert server.root.children["a"].id == resource
    # As vim does: the old file becomes a backup, then a new one is written.
    file.rename(agent.root / "a.bak")
    write(agent, "a", b"newer")
    (agent.root / "a.bak").unlink()
    assert requests_of(server, world.settle) == {"store": 1}
    assert server.root.children["a"].id == resource


def test_a_file_that_vanishes_for_a_moment_is_not_deleted(world: World, agent: Agent, server: MemoryServer) -> None:
    file = write(agent, "a", b"old")
    world.settle()
    file.rename(agent.root.parent / "elsewhere")
    report = agent.cycle("")
    assert not report.steps
    assert report.wake_at is not None
    write(agent, "a", b"new")
    assert requests_of(server, world.settle) == {"store": 1}


def test_a_file_that_is_moved_and_changed(world: World, agent: Agent, server: MemoryServer) -> None:
    file = write(agent, "a", b"old")
    world.settle()
    file.rename(agent.root / "b")
    write(agent, "b", b"longer than before")
    world.settle()
    world.check()
    assert server.listing() == {"b": b"longer than before"}


def test_an_edit_that_keeps_size_and_time_is_seen(world: World, agent: Agent, server: MemoryServer) -> None:
    file = write(agent, "a", b"old")
    world.settle()
    times = file.stat()
    file.write_bytes(b"new")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    world.settle()
    assert server.listing() == {"a": b"new"}


def test_a_touched_file_sends_no_content(world: World, agent: Agent, server: MemoryServer) -> None:
    file = write(agent, "a")
    world.settle()
    os.utime(file, ns=(0, 1_234_567_890_123_456_789))
    assert requests_of(server, world.settle) == {"set_attributes": 1}
    assert server.root.children["a"].mtime_ms == 1_234_567_890_123
    file.chmod(0o755)
    assert requests_of(server, world.settle) == {"set_attributes": 1}
    assert server.root.children["a"].executable
    world.check()


def test_time_and_executable_bit_come_from_the_server(world: World, agent: Agent, server: MemoryServer) -> None:
    item = server.put(("a",), b"#!")
    item.executable, item.mtime_ms = True, 1_000_000_000_123
    world.settle()
    status = (agent.root / "a").stat()
    assert status.st_mode & 0o100
    assert status.st_mtime_ns == 1_000_000_000_123_000_000


def test_times_before_1970_and_far_ahead(world: World, agent: Agent, server: MemoryServer) -> None:
    for number, seconds in enumerate((-1_800_000_000, 0, 4_300_000_000)):
        os.utime(write(agent, f"f{number}"), (seconds, seconds))
    world.settle()
    world.check()
    assert sorted(item.mtime_ms for item in server.root.children.values()) == [-1_800_000_000_000, 0, 4_300_000_000_000]


def test_links_stay_links(make: Make) -> None:
    world = make(2)
    first, second = world.agents
    (first.root / "link").symlink_to("nowhere/at all")
    world.settle()
    assert str((second.root / "link").readlink()) == "nowhere/at all"
    (second.root / "link").unlink()
    (second.root / "link").symlink_to("else")
    world.settle()
    assert str((first.root / "link").readlink()) == "else"
    world.check()


def test_a_conflict_keeps_both(make: Make) -> None:
    world = make(2)
    first, second = world.agents
    write(first, "a.txt", b"old")
    world.settle()
    write(first, "a.txt", b"first")
    write(second, "a.txt", b"second")
    world.settle()
    world.check()
    assert world.server.listing() == {"a.txt": b"first", "a (conflicted copy 2026-11-24 agent1).txt": b"second"}


def test_awkward_names(make: Make) -> None:
    world = make(2)
    names = [
        " a",
        "a ",
        ".x",
        "-rf",
        "a\\b",
        "100%",
        "#?&;+",
        "tab\t",
        "new\nline",
        "\x7f",
        "é",
        "e\u0301",
        "ü" * 127,
        "📁‍",
    ]
    for name in names:
        write(world.agents[0], name, name.encode())
    world.settle()
    world.check()
    assert len(world.agents[1].listing()) == len(names)


def test_what_has_no_utf8_name_is_reported_and_stays(world: World, agent: Agent) -> None:
    name = os.fsencode(agent.root) + b"/bad\xff"
    Path(os.fsdecode(name)).write_bytes(b"1")
    write(agent, "good")
    report = agent.settle()
    assert [trouble.path[-1] for trouble in report.troubles] == [os.fsdecode(b"bad\xff")]
    assert world.server.listing() == {"good": b"1"}


# What is left out


def test_ignored_files_are_on_neither_side(world: World, agent: Agent, server: MemoryServer) -> None:
    agent.selection = Selection("*.log\nbuild/\n!keep.log\n")
    write(agent, "a.log")
    write(agent, "keep.log")
    write(agent, "build/x")
    server.put(("b.log",), b"1")
    world.settle()
    assert set(server.listing()) == {"b.log", "keep.log"}
    assert not (agent.root / "b.log").exists()


@pytest.mark.parametrize("tells_changes", [True, False])
def test_a_rule_for_files_that_are_synced_deletes_them_nowhere(make: Make, tells_changes: bool) -> None:
    world = make(1, tells_changes=tells_changes)
    agent, server = world.agents[0], world.server
    write(agent, "d/a.log", b"1")
    write(agent, "b")
    world.settle()
    agent.restart()
    agent.selection = Selection("*.log\n")
    world.settle()
    assert set(server.listing()) == {"d", "d/a.log", "b"}
    assert (agent.root / "d" / "a.log").exists()
    write(agent, "d/a.log", b"2")
    agent.restart()
    agent.selection = Selection()
    world.settle()
    world.check()
    assert {b"1", b"2"} <= set(server.listing().values())


def test_a_folder_that_a_person_left_out(world: World, agent: Agent, server: MemoryServer) -> None:
    agent.selection = Selection(excluded=[("photos",)])
    server.make(("photos",))
    server.put(("photos", "a"), b"1")
    server.put(("b",), b"2")
    world.settle()
    assert agent.listing() == {"b": b"2"}


# What goes wrong


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


@pytest.mark.parametrize("error", [UnavailableError, ProtocolError, HeleniteError])
@pytest.mark.parametrize("tells_changes", [True, False])
def test_a_listing_that_fails_deletes_nothing(make: Make, error: type[HeleniteError], tells_changes: bool) -> None:
    world = make(1, tells_changes=tells_changes)
    agent, server = world.agents[0], world.server
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


# Threads for transfers


def test_a_large_file_holds_up_nothing(world: World, agent: Agent, server: MemoryServer) -> None:
    arrived, under_way, go_on = threading.Event(), threading.Event(), threading.Event()

    def hold_the_first(phase: str, name: str) -> None:
        if (phase, name) == ("before", "store") and not under_way.is_set():
            under_way.set()
            assert go_on.wait(10)

    server.hook = hold_the_first
    with ThreadPoolExecutor(1) as small, ThreadPoolExecutor(1) as large:
        agent.lanes = Lanes(small, large, arrived.set)
        write(agent, "large", bytes(LARGE_BYTES + 1))
        agent.cycle("")
        assert under_way.wait(10)
        write(agent, "small", b"1")
        agent.cycle("")
        assert arrived.wait(10)
        arrived.clear()
        agent.cycle("")
        assert set(server.listing()) == {"small"}
        # Meanwhile the large one is renamed; its content arrives under the old name and follows.
        (agent.root / "large").rename(agent.root / "renamed")
        agent.cycle("")
        go_on.set()
        assert arrived.wait(10)
        report = agent.settle()
        assert report.is_quiet
        assert set(server.listing()) == {"small", "renamed"}
        assert server.requests["store"] == 2
        world.check()
        agent.restart()


def test_more_files_than_may_be_under_way(world: World, agent: Agent, server: MemoryServer) -> None:
    arrived = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        agent.lanes = Lanes(pool, pool, arrived.set)
        for number in range(SMALL_MAX + 50):
            server.put((f"f{number}",), str(number).encode())
        wait_until(lambda: agent.cycle("").is_quiet)
        world.check()
        agent.restart()


def test_a_file_that_is_edited_while_it_is_sent(world: World, agent: Agent, server: MemoryServer) -> None:
    file = write(agent, "a", b"first")

    def edit(phase: str, name: str) -> None:
        if (phase, name) == ("after", "store"):
            server.hook = lambda _phase, _name: None
            file.write_bytes(b"second")

    server.hook = edit
    world.settle()
    world.check()
    assert server.listing() == {"a": b"second"}


def test_other_rules_from_now_on(world: World, agent: Agent, server: MemoryServer) -> None:
    write(agent, "a.log")
    world.settle()
    agent.engine.select(Selection("*.log"))
    write(agent, "b.log")
    server.remove(("a.log",))
    world.settle()
    assert set(agent.listing()) == {"a.log", "b.log"}
    assert not server.listing()
