"""A process dies after it has changed the local folder and before the journal knows: that was not the person's doing.

Whole cycles on a real folder and a real journal, against a server in memory.
"""

from __future__ import annotations

import pytest

from syncagent.names import STATE_DIRECTORY
from tests.support.sync_deaths import die_at
from tests.support.sync_server import MemoryServer
from tests.support.sync_world import Agent, Listing, World, write


@pytest.mark.parametrize("path", ["f", "d"])
@pytest.mark.parametrize("since", ["back", "on", "removed", "nothing", "moved here"])
def test_moved_here_then_more_there_or_here(
    world: World, agent: Agent, server: MemoryServer, monkeypatch: pytest.MonkeyPatch, *, path: str, since: str
) -> None:
    """The move here was the server's, carried out: the next one is the later one, wherever it is made."""
    write(agent, "f", b"1")
    write(agent, "d/g", b"2")
    world.settle()
    server.rename((path,), ("moved",))
    die_at(world, agent, monkeypatch, "move")
    assert "moved" in agent.listing()
    last = "moved"
    match since:
        case "back" | "on":
            last = path if since == "back" else "on"
            server.rename(("moved",), (last,))
        case "removed":
            server.remove(("moved",))
        case "moved here":
            last = "mine"
            (agent.root / "moved").rename(agent.root / "mine")
    world.settle()
    world.check()
    expected: Listing = {"f": b"1"} if path == "d" else {"d": None, "d/g": b"2"}
    if since != "removed":
        expected |= {last: b"1"} if path == "f" else {last: None, f"{last}/g": b"2"}
    assert agent.listing() == expected
    assert not (agent.root / STATE_DIRECTORY / "underway").exists()


def test_a_move_here_that_could_not_be_made_is_forgotten(
    world: World, agent: Agent, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next move of this entry by a person would count for more than the server's."""
    write(agent, "f", b"1")
    world.settle()
    server.rename(("f",), ("theirs",))
    move = agent.engine._folder.move

    def overtake(*given: object) -> object:
        if (agent.root / "f").exists():
            (agent.root / "f").rename(agent.root / "mine")
        return move(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as inner:
        inner.setattr(agent.engine._folder, "move", overtake)
        agent.cycle()
    world.settle()
    world.check()
    assert agent.listing() == {"theirs": b"1"}


@pytest.mark.parametrize("since", ["nothing", "edited here", "renamed here"])
@pytest.mark.parametrize("path", ["f", "d"])
def test_fetched_then_removed_there(
    world: World, agent: Agent, server: MemoryServer, monkeypatch: pytest.MonkeyPatch, *, path: str, since: str
) -> None:
    """It was not made here, and goes, unless somebody here wants it."""
    write(agent, "other", b"0")
    world.settle()
    if path == "f":
        server.put(("f",), b"1")
    else:
        server.make(("d",))
    die_at(world, agent, monkeypatch, "flush")
    assert path in agent.listing()
    server.remove((path,))
    expected: Listing = {"other": b"0"}
    match since:
        case "edited here":
            write(agent, path if path == "f" else "d/g", b"mine")
            expected |= {"f": b"mine"} if path == "f" else {"d": None, "d/g": b"mine"}
        case "renamed here":
            (agent.root / path).rename(agent.root / "mine")
            expected |= {"mine": b"1" if path == "f" else None}
    world.settle()
    world.check()
    assert agent.listing() == expected


def test_a_directory_that_got_the_inode_of_one_fetched_is_not_that(
    world: World, agent: Agent, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many file systems give an inode out again at once; where this one does not, the test shows nothing."""
    write(agent, "other", b"0")
    world.settle()
    server.make(("d",))
    die_at(world, agent, monkeypatch, "flush")
    server.remove(("d",))
    (agent.root / "d").rmdir()
    (agent.root / "d").mkdir()
    world.settle()
    world.check()
    assert agent.listing() == {"other": b"0", "d": None}


def test_who_has_lost_the_journal_deletes_nothing(
    world: World, agent: Agent, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put(("f",), b"1")
    die_at(world, agent, monkeypatch, "flush")
    agent.restart(lose_journal=True)
    server.remove(("f",))
    world.settle()
    world.check()
    assert agent.listing() == {"f": b"1"}
