"""A process dies between a step and the journal, and then somebody renames or saves: no conflict with oneself.

Whole cycles on a real folder and a real journal, against a server in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from helenite.core.errors import UnavailableError
from syncagent import records
from syncagent.names import STATE_DIRECTORY
from tests.support.sync_deaths import die_at, dying
from tests.support.sync_server import MemoryServer
from tests.support.sync_world import Agent, Crash, Listing, World, write


def die_after(world: World, agent: Agent, request: str) -> None:
    """Sync until the server has answered such a request, and no further."""

    def die(phase: str, name: str) -> None:
        if (phase, name) == ("after", request):
            raise Crash

    agent.server.hook = die
    with pytest.raises(Crash):
        agent.settle()
    agent.server.hook = lambda _phase, _name: None
    agent.restart()
    world.clock.now += 1


def die_after_arrival(world: World, agent: Agent, patch: pytest.MonkeyPatch) -> None:
    """Sync until something was put in place or made in the folder, and no further."""
    die_at(world, agent, patch, "install", "make_directory")


def safe_save(path: Path, content: bytes) -> None:
    fresh = path.with_name("fresh~")
    fresh.write_bytes(content)
    fresh.replace(path)


@pytest.mark.parametrize("is_new", [True, False])
def test_uploaded_then_renamed_and_saved_here(
    world: World, agent: Agent, server: MemoryServer, *, is_new: bool
) -> None:
    if not is_new:
        write(agent, "a", b"0")
        world.settle()
    write(agent, "a", b"1")
    die_after(world, agent, "store")
    resource = server._find(("a",))
    (agent.root / "a").rename(agent.root / "b")
    write(agent, "b", b"saved under the other name")
    world.settle()
    world.check()
    assert server.listing() == {"b": b"saved under the other name"}
    assert server._find(("b",)) is resource  # renamed, not made again
    assert not (agent.root / STATE_DIRECTORY / "underway").exists()


@pytest.mark.parametrize("is_reused", [True, False])
@pytest.mark.parametrize("is_new", [True, False])
def test_uploaded_then_deleted_here(
    world: World, agent: Agent, server: MemoryServer, *, is_new: bool, is_reused: bool
) -> None:
    """File systems give the inode of what is gone to the next that comes (here it is the same file, renamed)."""
    write(agent, "d/other", b"stays")
    if not is_new:
        write(agent, "d/a", b"0")
    world.settle()
    write(agent, "d/a", b"1")
    die_after(world, agent, "store")
    assert server.listing()["d/a"] == b"1"
    if is_reused:
        (agent.root / "d" / "a").rename(agent.root / "d" / "b")
        write(agent, "d/b", b"another that came since")
    else:
        (agent.root / "d" / "a").unlink()
        report = agent.cycle()
        assert not report.steps  # it may be back in a moment
    world.settle()
    world.check()
    others: Listing = {"d/b": b"another that came since"} if is_reused else {}
    assert server.listing() == {"d": None, "d/other": b"stays"} | others


def test_a_lost_upload_and_an_equal_file_of_another_directory(world: World, agent: Agent, server: MemoryServer) -> None:
    """Many directories have an empty file of the same name; whoever makes one has nothing to do with ours."""
    for name in ("d", "e"):
        (agent.root / name).mkdir()
    world.settle()

    def refuse(phase: str, name: str) -> None:
        if (phase, name) == ("before", "store"):
            raise Crash

    write(agent, "d/__init__.py", b"")
    server.hook = refuse
    with pytest.raises(Crash):
        agent.settle()
    server.hook = lambda _phase, _name: None
    agent.restart()
    server.put(("e", "__init__.py"), b"")
    (agent.root / "d" / "__init__.py").rename(agent.root / "d" / "renamed.py")
    world.settle()
    world.check()
    assert server.listing() == {"d": None, "e": None, "d/renamed.py": b"", "e/__init__.py": b""}


@pytest.mark.parametrize("save", [Path.write_bytes, safe_save])
def test_uploaded_then_renamed_there_and_saved_here(
    world: World, agent: Agent, server: MemoryServer, save: Callable[[Path, bytes], object]
) -> None:
    write(agent, "a", b"0")
    world.settle()
    write(agent, "a", b"1")
    die_after(world, agent, "store")
    server.rename(("a",), ("there",))
    save(agent.root / "a", b"saved here")
    world.settle()
    world.check()
    assert server.listing() == {"there": b"saved here"}


@pytest.mark.parametrize("is_new", [True, False])
def test_downloaded_then_renamed_and_saved_there(
    world: World, agent: Agent, server: MemoryServer, monkeypatch: pytest.MonkeyPatch, *, is_new: bool
) -> None:
    if not is_new:
        server.put(("a",), b"0")
        world.settle()
    server.put(("a",), b"1")
    die_after_arrival(world, agent, monkeypatch)
    assert agent.listing() == {"a": b"1"}
    server.rename(("a",), ("b",))
    server.put(("b",), b"saved under the other name")
    world.settle()
    world.check()
    assert agent.listing() == {"b": b"saved under the other name"}


@pytest.mark.parametrize("is_new", [True, False])
def test_downloaded_then_renamed_and_saved_here(
    world: World, agent: Agent, server: MemoryServer, monkeypatch: pytest.MonkeyPatch, *, is_new: bool
) -> None:
    if not is_new:
        server.put(("a",), b"0")
        world.settle()
    server.put(("a",), b"1")
    die_after_arrival(world, agent, monkeypatch)
    (agent.root / "a").rename(agent.root / "b")
    write(agent, "b", b"saved here")
    world.settle()
    world.check()
    assert agent.listing() == {"b": b"saved here"}


def test_downloaded_then_saved_here_as_editors_do(
    world: World, agent: Agent, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put(("a",), b"0")
    world.settle()
    server.put(("a",), b"1")
    with monkeypatch.context() as inner:
        inner.setattr(agent.engine._folder, "flush", dying(lambda *_given: None))
        with pytest.raises(Crash):
            agent.settle()
    agent.restart()
    safe_save(agent.root / "a", b"saved here")
    world.settle()
    world.check()
    assert agent.listing() == {"a": b"saved here"}


def test_moved_then_renamed_and_saved_here(world: World, agent: Agent, server: MemoryServer) -> None:
    write(agent, "a", b"1")
    world.settle()
    (agent.root / "a").rename(agent.root / "b")
    die_after(world, agent, "move")
    (agent.root / "b").rename(agent.root / "c")
    write(agent, "c", b"saved under the last name")
    world.settle()
    world.check()
    assert server.listing() == {"c": b"saved under the last name"}


def test_a_directory_made_there_then_renamed_here(world: World, agent: Agent, server: MemoryServer) -> None:
    write(agent, "d/x", b"1")
    die_after(world, agent, "make_directory")
    (agent.root / "d").rename(agent.root / "e")
    world.settle()
    world.check()
    assert server.listing() == {"e": None, "e/x": b"1"}


def test_a_directory_made_here_then_renamed_there(
    world: World, agent: Agent, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.make(("d",))
    server.put(("d", "x"), b"1")
    with monkeypatch.context() as inner:
        inner.setattr(agent.engine._folder, "flush", dying(lambda *_given: None))
        with pytest.raises(Crash):
            agent.settle()
    agent.restart()
    assert agent.listing() == {"d": None}
    server.rename(("d",), ("e",))
    world.settle()
    world.check()
    assert agent.listing() == {"e": None, "e/x": b"1"}


def test_a_download_that_never_came_and_an_edit_here_are_a_conflict(
    world: World, agent: Agent, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The content was noted, and is what the server has; but nobody here has seen it."""
    server.put(("a",), b"0")
    world.settle()
    server.put(("a",), b"theirs")
    with monkeypatch.context() as inner:
        inner.setattr(agent.engine._folder, "install", dying(lambda *_given: None))
        with pytest.raises(Crash):
            agent.settle()
    agent.restart()
    write(agent, "a", b"mine")
    world.settle()
    world.check()
    assert sorted(content or b"" for content in agent.listing().values()) == [b"mine", b"theirs"]


def test_an_upload_that_was_refused_and_another_revision_there_are_a_conflict(
    world: World, agent: Agent, server: MemoryServer
) -> None:
    write(agent, "a", b"0")
    world.settle()
    write(agent, "a", b"mine")

    def die(phase: str, name: str) -> None:
        if (phase, name) == ("before", "store"):
            raise Crash

    server.hook = die
    with pytest.raises(Crash):
        agent.settle()
    server.hook = lambda _phase, _name: None
    agent.restart()
    server.put(("a",), b"theirs")
    server.rename(("a",), ("b",))
    world.settle()
    world.check()
    assert sorted(content or b"" for content in agent.listing().values()) == [b"mine", b"theirs"]


def test_an_equal_file_of_somebody_else_is_left_alone(world: World, agent: Agent, server: MemoryServer) -> None:
    write(agent, "a", b"")
    die_after(world, agent, "store")
    server.put(("b",), b"")
    world.settle()
    world.check()
    assert server.listing() == {"a": b"", "b": b""}


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
    world: World, agent: Agent, server: MemoryServer
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
    agent.engine.preview()
    journal = agent.engine.journal
    local, remote = (journal.node(node) for node in journal.unsettled(-1))
    assert (local.remote, remote.local) == (None, None)
    records.pair(journal, local.id, remote.id)
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
