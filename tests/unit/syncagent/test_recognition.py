"""A process dies between a step and the journal, and then somebody renames or saves: no conflict with oneself.

Whole cycles on a real folder and a real journal, against a server in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from syncagent.names import STATE_DIRECTORY
from tests.support.sync_server import MemoryServer
from tests.support.sync_world import Agent, Crash, World, write


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
    with patch.context() as inner:
        for name in ("install", "make_directory"):
            inner.setattr(agent.engine._folder, name, _dying(getattr(agent.engine._folder, name)))
        with pytest.raises(Crash):
            agent.settle()
    agent.restart()
    world.clock.now += 1


def _dying(act: Callable[..., object]) -> Callable[..., object]:
    def do_and_die(*given: object) -> None:
        act(*given)
        raise Crash

    return do_and_die


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
        inner.setattr(agent.engine._folder, "flush", _dying(lambda *_given: None))
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
        inner.setattr(agent.engine._folder, "flush", _dying(lambda *_given: None))
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
        inner.setattr(agent.engine._folder, "install", _dying(lambda *_given: None))
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
