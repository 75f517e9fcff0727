"""Whole cycles on a real folder and a real journal, against a server in memory: what people do."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from syncagent.engine import Settings
from syncagent.fates import Customs
from syncagent.ports import LARGE_BYTES
from syncagent.selection import Selection
from syncagent.transfers import SMALL_MAX, Lanes
from tests.support.sync_server import MemoryServer
from tests.support.sync_world import Agent, Make, World, requests_of, write
from tests.support.waiting import wait_until

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


def test_a_directory_that_vanishes_for_a_moment_is_not_made_again(
    world: World, agent: Agent, server: MemoryServer
) -> None:
    """As one does that is renamed between the looks at its parent and at itself; what is new in it there waits."""
    write(agent, "d/a")
    world.settle()
    server.put(("d", "new"), b"2")
    directory = server._find(("d",))
    (agent.root / "d").rename(agent.root.parent / "elsewhere")
    report = agent.cycle("")
    assert not report.steps
    assert report.wake_at is not None
    (agent.root.parent / "elsewhere").rename(agent.root / "e")
    world.settle()
    world.check()
    assert server.listing() == {"e": None, "e/a": b"1", "e/new": b"2"}
    assert server._find(("e",)) is directory


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
        wait_until(lambda: agent.cycle("").is_quiet, 60)
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
    agent.engine.adjust(Settings(Customs(agent.name), Selection("*.log"), agent.limits))
    write(agent, "b.log")
    server.remove(("a.log",))
    world.settle()
    assert set(agent.listing()) == {"a.log", "b.log"}
    assert not server.listing()
