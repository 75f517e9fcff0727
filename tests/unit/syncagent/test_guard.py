"""Deletions by and by, and folders that are left out later: what is asked about, and what goes where."""

from __future__ import annotations

import pytest

from helenite.core.paths import Path
from syncagent.engine import Report, Settings
from syncagent.fates import Customs
from syncagent.model import NodeId, Tree
from syncagent.plan import Delete
from syncagent.safety import WINDOW_MS, Deleted, Limits, check_deletions, within_window
from syncagent.selection import Selection
from tests.support.sync_server import MemoryServer
from tests.support.sync_world import Agent, World, requests_of, write

MINUTE_S = 60


def rest(agent: Agent) -> Report:
    """Cycles until nothing is left to do, in a few seconds."""
    for _ in range(20):
        report = agent.cycle()
        if report.stop is not None or (report.is_quiet and not report.steps):
            return report
        agent.clock.now += 2
    raise AssertionError(f"{agent.name} does not come to rest: {report}")


def fill(agent: Agent, count: int) -> None:
    for number in range(count):
        write(agent, f"f{number}", b"content %d" % number)


def test_what_went_a_moment_ago_counts() -> None:
    counts = {Delete(Tree.LOCAL, NodeId(1)): 20}
    earlier = [Deleted(0, Tree.LOCAL, 20), Deleted(0, Tree.REMOTE, 500)]
    limits = Limits(30, 0.2)
    assert check_deletions(counts, 80, limits) is None
    stop = check_deletions(counts, 80, limits, earlier)
    assert stop is not None
    assert (stop.side, stop.count) == (Tree.LOCAL, 20)
    assert "after 20 in the last 10 minutes" in stop.sentence
    assert check_deletions({}, 80, limits, earlier) is None
    assert check_deletions(counts, 1_000, limits, earlier) is None  # a small part


def test_only_the_last_minutes_count() -> None:
    log = [Deleted(at_ms, Tree.LOCAL, 1) for at_ms in (0, WINDOW_MS, 2 * WINDOW_MS, 9 * WINDOW_MS)]
    assert within_window(log, 2 * WINDOW_MS + 5) == (log[2],)


def test_many_small_deletions_are_one_large_one(world: World, agent: Agent, server: MemoryServer) -> None:
    agent.limits = Limits(count=20, share=0.25)
    fill(agent, 60)
    world.settle()
    for number in range(20):
        (agent.root / f"f{number}").unlink()
        assert rest(agent).stop is None
    agent.restart()  # it remembers
    (agent.root / "f20").unlink()
    world.clock.now += MINUTE_S
    assert rest(agent).stop is not None
    assert len(server.listing()) == 40
    agent.engine.allow_deletions()
    assert rest(agent).stop is None
    assert len(server.listing()) == 39
    (agent.root / "f21").unlink()  # a person has seen what is going on: counted anew
    assert rest(agent).stop is None


def test_slow_deletions_that_were_not_wanted_come_back(world: World, agent: Agent, server: MemoryServer) -> None:
    agent.limits = Limits(count=10, share=0.1)
    fill(agent, 40)
    world.settle()
    for number in range(10):
        server.remove((f"f{number}",))
        assert rest(agent).stop is None
    server.remove(("f10",))
    assert rest(agent).stop is not None
    assert (agent.root / "f10").exists()
    agent.engine.undo_deletions()
    agent.settle()
    assert len(server.listing()) == 30
    world.check()


def test_deletions_with_time_between_them_are_not_asked_about(world: World, agent: Agent) -> None:
    agent.limits = Limits(count=10, share=0.1)
    fill(agent, 60)
    world.settle()
    for number in range(30):
        (agent.root / f"f{number}").unlink()
        assert rest(agent).stop is None
        world.clock.now += 2 * MINUTE_S
    world.check()


def test_an_allowance_is_for_one_occasion(world: World, agent: Agent) -> None:
    agent.limits = Limits(count=5, share=0.1)
    fill(agent, 40)
    world.settle()
    for number in range(10):
        (agent.root / f"f{number}").rename(agent.root.with_name(f"away{number}"))
    assert agent.settle().stop is not None
    agent.engine.allow_deletions()
    for number in range(10):
        agent.root.with_name(f"away{number}").rename(agent.root / f"f{number}")
    assert agent.settle().stop is None  # they are back: nothing to delete
    for number in range(10):
        (agent.root / f"f{number}").unlink()
    assert agent.settle().stop is not None


# Folders that are left out


def leave_out(agent: Agent, *folders: Path, ignore_file: str = "") -> None:
    agent.selection = Selection(ignore_file, folders)
    agent.engine.adjust(Settings(Customs(agent.name, "2026-11-24 x"), agent.selection, agent.limits))


def test_a_folder_that_is_left_out_later_leaves_this_device_only(
    world: World, agent: Agent, server: MemoryServer
) -> None:
    write(agent, "photos/a", b"a")
    write(agent, "photos/deep/b", b"b")
    write(agent, "photos/junk.tmp", b"ignored")
    write(agent, "keep", b"k")
    agent.selection = Selection("*.tmp")
    world.settle()
    assert requests_of(server, lambda: leave_out(agent, ("photos",), ignore_file="*.tmp")) == {}
    assert requests_of(server, agent.settle) == {}
    assert agent.listing() == {"keep": b"k"}
    assert set(server.listing()) == {"photos", "photos/a", "photos/deep", "photos/deep/b", "keep"}
    assert {b"a", b"b", b"ignored"} <= agent.trashed()
    server.put(("photos", "new"), b"there")
    agent.restart()
    agent.settle()
    assert agent.listing() == {"keep": b"k"}
    leave_out(agent, ignore_file="*.tmp")
    agent.settle()
    assert set(agent.listing()) == set(server.listing())


def test_what_the_server_lacks_is_brought_there_before_it_leaves(
    world: World, agent: Agent, server: MemoryServer
) -> None:
    write(agent, "photos/a", b"a")
    world.settle()
    write(agent, "photos/a", b"edited")
    write(agent, "photos/new", b"new")
    leave_out(agent, ("photos",))
    agent.settle()
    assert agent.listing() == {}
    assert server.listing() == {"photos": None, "photos/a": b"edited", "photos/new": b"new"}


def test_what_was_never_synced_stays_where_it_is(world: World, agent: Agent, server: MemoryServer) -> None:
    agent.selection = Selection(excluded=[("photos",)])
    write(agent, "photos/mine", b"mine")
    server.make(("photos",))
    server.put(("photos", "theirs"), b"theirs")
    world.settle()
    agent.restart()
    agent.settle()
    assert agent.listing() == {"photos": None, "photos/mine": b"mine"}
    assert server.listing() == {"photos": None, "photos/theirs": b"theirs"}


def test_a_crash_while_a_folder_leaves_deletes_nothing(
    world: World, agent: Agent, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(agent, "photos/a", b"a")
    world.settle()
    leave_out(agent, ("photos",))

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    for when in ("before", "after"):
        engine = agent.engine
        trash = engine._folder.trash

        def crash_around(*given: object, trash: object = trash, when: str = when) -> None:
            if when == "after":
                trash(*given)  # type: ignore[operator]
            crash()

        monkeypatch.setattr(engine._folder, "trash", crash_around)
        with pytest.raises(KeyboardInterrupt):
            agent.settle()
        agent.restart()
        agent.settle()
        assert server.listing() == {"photos": None, "photos/a": b"a"}
        agent.selection = Selection()
        agent.restart()
        agent.settle()
        world.check()
        leave_out(agent, ("photos",))


def test_a_file_that_is_saved_while_its_folder_leaves(
    world: World, agent: Agent, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(agent, "photos/a", b"a")
    world.settle()
    leave_out(agent, ("photos",))
    engine = agent.engine
    trash = engine._folder.trash

    def save_first(*given: object) -> None:
        monkeypatch.undo()
        write(agent, "photos/a", b"just saved")
        trash(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(engine._folder, "trash", save_first)
    troubles = [trouble.reason for _ in range(4) for trouble in agent.cycle().troubles]
    assert any("stays on this device" in trouble for trouble in troubles)
    agent.settle()
    assert server.listing() == {"photos": None, "photos/a": b"just saved"}
    assert agent.listing() == {}
