"""Requests of which nobody can say what they came to, while people go on: what each gave last is what there is.

Whole cycles on a real folder and a real journal, against a server in memory.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from random import Random

import pytest

from helenite.core.errors import UnavailableError
from helenite.core.paths import Path
from syncagent.engine import LATE_S
from syncagent.model import RemoteStamp
from syncagent.ports import Upload
from tests.support.sync_server import MemoryServer
from tests.support.sync_world import Agent, Crash, Make, World, write


def lose(server: MemoryServer, request: str, phase: str = "after", count: int = 1) -> None:
    """The next such requests get no answer; they are carried out if the phase is "after"."""
    left = count

    def hook(now: str, name: str) -> None:
        nonlocal left
        if left and (now, name) == (phase, request):
            left -= 1
            raise UnavailableError("lost")

    server.hook = hook


def settle(world: World) -> None:
    world.settle()
    world.check()


def late(server: MemoryServer, name: str) -> list[Callable[[], object]]:
    """The next such call fails, and can be carried out afterwards."""
    kept: list[Callable[[], object]] = []
    act = getattr(server, name)

    def fail(*given: object) -> object:
        setattr(server, name, act)
        kept.append(lambda: act(*given))
        raise UnavailableError("lost")

    setattr(server, name, fail)
    return kept


@pytest.mark.parametrize("path", ["f", "d"])
def test_a_move_that_was_not_answered_is_taken_back_here(
    world: World, agent: Agent, server: MemoryServer, path: str
) -> None:
    write(agent, "f", b"1")
    write(agent, "d/g", b"2")
    settle(world)
    (agent.root / path).rename(agent.root / "moved")
    lose(server, "move")
    agent.cycle()
    assert "moved" in server.listing()
    (agent.root / "moved").rename(agent.root / path)
    settle(world)
    assert server.listing() == {"f": b"1", "d": None, "d/g": b"2"}


def test_a_move_that_comes_late_is_taken_back_too(world: World, agent: Agent, server: MemoryServer) -> None:
    """The two sides agree meanwhile, but what was asked for is not forgotten so soon."""
    write(agent, "f", b"1")
    settle(world)
    (agent.root / "f").rename(agent.root / "g")
    kept = late(server, "move")
    agent.cycle()
    (agent.root / "g").rename(agent.root / "f")
    world.clock.now += LATE_S / 2
    assert agent.cycle().is_quiet
    kept[0]()
    assert server.listing() == {"g": b"1"}
    settle(world)
    assert server.listing() == {"f": b"1"}


def test_the_same_move_by_somebody_else_stands(world: World, agent: Agent, server: MemoryServer) -> None:
    """While something else is on its way, so that what was moved from here is not forgotten as a whole."""
    agent.be_late(Random(0))
    assert agent.late is not None
    write(agent, "f", b"1")
    settle(world)
    write(agent, "other", b"2")
    for old, new in (("f", "g"), ("g", "f")):
        (agent.root / old).rename(agent.root / new)
        world.clock.now += 400
        assert not agent.cycle().is_quiet
        assert new in server.listing()
    server.rename(("f",), ("g",))
    settle(world)
    assert agent.listing() == {"g": b"1", "other": b"2"}


def test_a_directory_whose_making_was_not_answered_is_replaced_by_another_of_its_name(
    world: World, agent: Agent, server: MemoryServer
) -> None:
    write(agent, "a/d/f", b"1")
    lose(server, "make_directory", count=2)
    agent.cycle()
    (agent.root / "a" / "d").rename(agent.root / "a" / "moved")
    write(agent, "a/d/g", b"2")
    settle(world)
    assert server.listing() == {"a": None, "a/moved": None, "a/moved/f": b"1", "a/d": None, "a/d/g": b"2"}


def test_an_edit_that_was_not_answered_and_then_a_deletion(world: World, agent: Agent, server: MemoryServer) -> None:
    write(agent, "f", b"1")
    settle(world)
    write(agent, "f", b"22")
    lose(server, "store")
    agent.cycle()
    world.clock.now += 400
    agent.cycle()
    assert server.listing() == {"f": b"22"}
    (agent.root / "f").unlink()
    settle(world)
    assert server.listing() == {}


def test_an_edit_that_was_not_answered_is_taken_back_here(world: World, agent: Agent, server: MemoryServer) -> None:
    """As from a copy with its time: here nothing seems to have happened, and there somebody seems to have edited."""
    file = write(agent, "f", b"1")
    settle(world)
    kept = file.with_name("kept~")
    shutil.copy2(file, kept)
    write(agent, "f", b"2")
    lose(server, "store")
    agent.cycle()
    world.clock.now += 400
    assert server.listing()["f"] == b"2"
    kept.replace(file)
    settle(world)
    assert server.listing()["f"] == b"1"


def test_the_first_of_two_attempts_comes_late(world: World, agent: Agent, server: MemoryServer) -> None:
    """The second was answered and is written down; by now its file has another name, and the old one is free."""
    write(agent, "f", b"1")
    lose(server, "store", "before")
    agent.cycle()
    world.clock.now += LATE_S / 4
    agent.cycle()
    assert server.listing() == {"f": b"1"}
    (agent.root / "f").rename(agent.root / "g")
    agent.cycle()
    server.put(("f",), b"1")
    assert server.listing() == {"f": b"1", "g": b"1"}
    settle(world)
    assert server.listing() == {"g": b"1"}


def test_a_directory_whose_making_was_not_answered_is_removed(world: World, agent: Agent, server: MemoryServer) -> None:
    (agent.root / "d").mkdir()
    lose(server, "make_directory")
    agent.cycle()
    (agent.root / "d").rmdir()
    settle(world)
    assert server.listing() == {}


def test_a_directory_whose_making_comes_late_into_another_of_the_name_of_its_own(
    world: World, agent: Agent, server: MemoryServer
) -> None:
    write(agent, "d/f", b"1")
    settle(world)
    (agent.root / "d" / "e").mkdir()
    kept = late(server, "make_directory")
    agent.cycle()
    (agent.root / "d").rename(agent.root / "x")
    (agent.root / "d").mkdir()
    for _ in range(20):
        world.clock.now += 1
        agent.cycle()
    assert server.listing() == {"d": None, "x": None, "x/e": None, "x/f": b"1"}
    (request,) = kept
    request()
    assert "d/e" in server.listing()
    settle(world)
    assert server.listing() == {"d": None, "x": None, "x/e": None, "x/f": b"1"}


def never_quiet(world: World, agent: Agent) -> set[str]:
    """From now on a file waits that cannot be sent, so that nothing is forgotten for being all; names are refused."""
    server, refused = world.server, {"busy"}
    store = server.store

    def choose(path: Path, upload: Upload, replaces: RemoteStamp | None) -> RemoteStamp:
        if path[-1] in refused:
            raise UnavailableError("lost")
        return store(path, upload, replaces)

    server.store = choose  # type: ignore[method-assign]
    write(agent, "busy")
    return refused


def test_a_file_that_was_renamed_is_not_taken_for_what_its_old_name_has_become(make: Make) -> None:
    """The inode was sent to an entry of which another file is known to have become the content since."""
    world = make(group_max=1)
    agent, server = world.agents[0], world.server
    refused = never_quiet(world, agent)
    for content in (b"first", b"second"):
        write(agent, "d", content)
        begin(world, agent)
    refused.add("f")
    (agent.root / "d").rename(agent.root / "f")
    write(agent, "d", b"third")
    begin(world, agent)
    assert server.listing() == {"d": b"third"}
    (agent.root / "d").unlink()
    begin(world, agent)
    refused.clear()
    settle(world)
    assert server.listing() == {"busy": b"1", "f": b"second"}


def begin(world: World, agent: Agent) -> None:
    agent.cycle()
    world.clock.now += 400
    agent.cycle()


@pytest.mark.parametrize("is_answered", [True, False])
def test_what_is_sent_comes_into_another_directory_of_the_name(
    world: World, agent: Agent, server: MemoryServer, *, is_answered: bool
) -> None:
    agent.be_late(Random(0))
    assert agent.late is not None
    write(agent, "d/old", b"0")
    settle(world)
    write(agent, "d/f", b"1")
    begin(world, agent)

    def overtake(phase: str, name: str) -> None:
        if (phase, name) == ("before", "store"):
            server.hook = lambda _phase, _name: None
            (agent.root / "d").rename(agent.root / "e")
            write(agent, "d/new", b"2")
            world.clock.now += 400
            agent.cycle()
            assert {"d", "e"} <= server.listing().keys()
            if not is_answered:
                lose(server, "bundle")

    server.hook = overtake
    agent.late.run_some(1)
    assert "d/f" in server.listing()
    settle(world)
    assert server.listing() == {"d": None, "d/new": b"2", "e": None, "e/f": b"1", "e/old": b"0"}


@pytest.mark.parametrize("names_all", [True, False])
@pytest.mark.parametrize("is_moved", [True, False])
def test_what_another_deletes_in_a_directory_that_has_just_come_there(
    world: World, agent: Agent, server: MemoryServer, *, is_moved: bool, names_all: bool
) -> None:
    """As our server tells it: what is in the directory by now, and not what was."""
    server.names_all = names_all
    if is_moved:
        write(agent, "old/f", b"1")
        write(agent, "old/deep/g", b"2")
        write(agent, "old/h", b"3")
        settle(world)
        (agent.root / "old").rename(agent.root / "d")
    else:
        write(agent, "d/f", b"1")
        write(agent, "d/deep/g", b"2")
        write(agent, "d/h", b"3")
    agent.cycle()
    assert len(server.listing()) == 5
    server.remove(("d", "f"))
    server.remove(("d", "deep", "g"))
    settle(world)
    assert agent.listing() == {"d": None, "d/deep": None, "d/h": b"3"}
    assert agent.trashed() == {b"1", b"2"}


def test_before_a_request_is_made_again_it_is_asked_what_became_of_it(
    world: World, agent: Agent, server: MemoryServer
) -> None:
    (agent.root / "d").mkdir()
    lose(server, "make_directory")
    agent.cycle()
    (agent.root / "d").rename(agent.root / "e")
    world.clock.now += 400
    agent.engine.cycle([()], asks=False)
    settle(world)
    assert server.listing() == {"e": None}


def test_a_directory_that_another_makes_where_ours_was_is_not_ours(make: Make) -> None:
    """As file managers do: `New Folder` is made and renamed, and then somebody else makes a `New Folder`."""
    world = make(group_max=1)
    agent, server = world.agents[0], world.server
    refused = never_quiet(world, agent)
    (agent.root / "new").mkdir()
    begin(world, agent)
    (agent.root / "new").rename(agent.root / "named")
    begin(world, agent)
    assert server.listing() == {"named": None}
    server.make(("new",))
    begin(world, agent)
    refused.clear()
    settle(world)
    assert agent.listing() == {"busy": b"1", "named": None, "new": None}


@pytest.mark.parametrize("edits", [True, False])
def test_what_another_takes_back_is_taken_back(make: Make, *, edits: bool) -> None:
    """That it was here before, and came from there, does not make it this device's own doing."""
    world = make(group_max=1)
    agent, server = world.agents[0], world.server
    refused = never_quiet(world, agent)
    for content in (b"1", b"22", b"1"):
        server.put(("f",), content)
        if edits and content == b"1" and "f" in agent.listing():
            write(agent, "f", b"mine")
        begin(world, agent)
    refused.clear()
    settle(world)
    contents = sorted(content or b"" for content in server.listing().values())
    assert contents == ([b"1", b"1", b"mine"] if edits else [b"1", b"1"])
    assert server.listing()["f"] == b"1"


def test_a_directory_is_touched_while_the_tree_is_walked_over(world: World, agent: Agent, server: MemoryServer) -> None:
    """That the server says nothing of what is in it does not say that there is nothing."""
    write(agent, "other", b"0")
    settle(world)
    server.make(("d",))
    server.put(("d", "f"), b"1")
    settle(world)
    server.put(("d", "g"), b"2")
    server.forget_changes()

    def touch(phase: str, name: str) -> None:
        if (phase, name) == ("before", "walk"):
            server.hook = lambda _phase, _name: None
            server.touch(("d",))

    server.hook = touch
    agent.cycle()
    assert server.requests["walk"]
    settle(world)
    assert agent.listing() == {"other": b"0", "d": None, "d/f": b"1", "d/g": b"2"}
    assert not agent.trashed()


def test_a_directory_of_ours_is_touched(world: World, agent: Agent, server: MemoryServer) -> None:
    write(agent, "d/f", b"1")
    agent.cycle()
    server.touch(("d",))
    settle(world)
    server.touch(("d",))
    settle(world)
    assert agent.listing() == {"d": None, "d/f": b"1"}


def test_what_a_process_asked_for_comes_when_the_next_one_has_begun(
    world: World, agent: Agent, server: MemoryServer
) -> None:
    write(agent, "f", b"1")
    settle(world)
    (agent.root / "f").rename(agent.root / "g")
    kept: list[Callable[[], object]] = []
    move = server.move

    def die(*given: object) -> None:
        kept.append(lambda: move(*given))  # type: ignore[arg-type]
        raise Crash

    server.move = die  # type: ignore[method-assign]
    with pytest.raises(Crash):
        agent.cycle()
    server.move = move  # type: ignore[method-assign]
    agent.restart()
    (agent.root / "g").rename(agent.root / "f")
    world.clock.now += 1
    assert agent.cycle().is_quiet
    kept[0]()
    assert server.listing() == {"g": b"1"}
    settle(world)
    assert server.listing() == {"f": b"1"}
