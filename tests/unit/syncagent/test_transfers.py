"""Transfers that take their time: what people and other devices do meanwhile, and what is made of it afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import pytest

from syncagent.model import NodeId
from syncagent.overlaps import REMOVED_MAX, Overlaps
from tests.support.sync_server import MemoryServer
from tests.support.sync_world import Agent, LateExecutor, World, write


@pytest.fixture
def late(agent: Agent) -> LateExecutor:
    """When the agent's transfers are carried out."""
    agent.be_late(Random(0))
    assert agent.late is not None
    return agent.late


def settle(world: World) -> None:
    world.settle()
    world.check()


def begin(world: World, agent: Agent) -> None:
    """Cycles until a transfer waits to be carried out."""
    agent.cycle()
    world.clock.now += 400
    agent.cycle()


@contextmanager
def unread(agent: Agent) -> Iterator[None]:
    """Replies have come, but nobody has read them."""
    transfers = agent.engine._transfers
    collect = transfers.collect
    transfers.collect = lambda: iter(())  # type: ignore[method-assign]
    yield
    transfers.collect = collect  # type: ignore[method-assign]


def contents(agent: Agent) -> list[bytes]:
    return sorted(content for content in agent.listing().values() if content is not None)


@pytest.mark.parametrize("edit", [b"edited here, longer", b"2"])
def test_a_file_is_edited_while_its_new_revision_comes(
    world: World, agent: Agent, server: MemoryServer, late: LateExecutor, edit: bytes
) -> None:
    write(agent, "f", b"0")
    settle(world)
    server.put(("f",), b"1")
    begin(world, agent)
    write(agent, "f", edit)
    agent.cycle()  # sees the edit, before the download is over
    assert late.run_some(9) == 1
    settle(world)
    assert contents(agent) == sorted([b"1", edit])
    assert agent.listing()["f"] == b"1"


@pytest.mark.parametrize("is_new", [True, False])
def test_a_file_is_renamed_there_while_it_comes(
    world: World, agent: Agent, server: MemoryServer, late: LateExecutor, *, is_new: bool
) -> None:
    """It is put where it was when it was asked for; that is not a rename of ours."""
    if not is_new:
        write(agent, "f", b"0")
        settle(world)
    server.put(("f",), b"1")
    begin(world, agent)
    assert late.run_some(9) == 1
    with unread(agent):
        server.rename(("f",), ("g",))
        agent.cycle()
    settle(world)
    assert agent.listing() == {"g": b"1"}


@pytest.mark.parametrize("is_replaced", [True, False])
@pytest.mark.parametrize("is_noticed", [True, False])
def test_of_a_download_that_came_to_nothing_nothing_is_left(
    world: World, agent: Agent, server: MemoryServer, late: LateExecutor, *, is_replaced: bool, is_noticed: bool
) -> None:
    write(agent, "g", b"0")
    settle(world)
    server.put(("f",), b"1")
    begin(world, agent)
    assert late.run_some(9) == 1
    assert len(agent.staged()) == 1
    if is_replaced:
        server.put(("f",), b"2")
    else:
        server.remove(("f",))
    if is_noticed:
        with unread(agent):
            agent.cycle()
    settle(world)
    assert agent.listing() == {"g": b"0"} | ({"f": b"2"} if is_replaced else {})
    assert agent.staged() == []


def test_a_file_is_deleted_while_it_is_sent(
    world: World, agent: Agent, server: MemoryServer, late: LateExecutor
) -> None:
    write(agent, "f", b"1")
    begin(world, agent)
    with unread(agent):
        assert late.run_some(9) == 1
        (agent.root / "f").unlink()
        agent.cycle()
    assert server.listing() == {"f": b"1"}
    settle(world)
    assert server.listing() == {}


@pytest.mark.parametrize("is_new", [True, False])
def test_another_deletes_what_is_sent_before_its_reply_is_read(
    world: World, agent: Agent, server: MemoryServer, late: LateExecutor, *, is_new: bool
) -> None:
    if not is_new:
        write(agent, "f", b"0")
        settle(world)
    write(agent, "f", b"1")
    begin(world, agent)
    with unread(agent):
        late.run_some(9)
        server.remove(("f",))
        agent.cycle()  # hears of a deletion, and not yet of the upload
    settle(world)
    assert agent.listing() == {}
    assert agent.trashed() == {b"1"}


def test_another_moves_what_is_sent_before_its_reply_is_read(
    world: World, agent: Agent, server: MemoryServer, late: LateExecutor
) -> None:
    write(agent, "f", b"0")
    settle(world)
    write(agent, "f", b"1")
    begin(world, agent)
    with unread(agent):
        late.run_some(9)
        entry = next(entry for entry in server.list(()) if entry.path == ("f",))
        server.move(("f",), ("g",), entry.stamp)
        agent.cycle()
    settle(world)
    assert agent.listing() == {"g": b"1"}


# What is asked again


def test_only_what_may_have_been_missed_is_asked_again() -> None:
    overlaps = Overlaps()
    overlaps.begin(NodeId(1), "t0")
    assert overlaps.end(NodeId(1), ("d", "a")) is None  # nobody looked
    overlaps.begin(NodeId(1), "t0")
    overlaps.begin(NodeId(2), "t0")
    overlaps.look([("d", "a"), ("x",)])
    overlaps.begin(NodeId(3), "t1")
    assert overlaps.end(NodeId(1), ("d", "a")) == "t0"
    assert overlaps.end(NodeId(2), ("d", "b")) is None
    assert overlaps.end(NodeId(3), ("x",)) is None  # it began afterwards
    overlaps.begin(NodeId(4), "t1")
    overlaps.look([("d",)])
    assert overlaps.end(NodeId(4), ("d", "e", "f")) == "t1"  # its directory
    overlaps.begin(NodeId(5), "t1")
    overlaps.look(None)
    assert overlaps.end(NodeId(5), ("z",)) == "t1"


def test_what_is_remembered_is_bounded() -> None:
    overlaps = Overlaps()
    overlaps.begin(NodeId(1), "t0")
    overlaps.look([(str(number),) for number in range(REMOVED_MAX + 1)])
    assert len(overlaps._removed) == 0
    assert overlaps.end(NodeId(1), ("never removed",)) == "t0"
    overlaps.look([("a",)])
    assert len(overlaps._removed) == 0
