"""The small decisions: when to stop, whom to leave alone, what is synced."""

from __future__ import annotations

from dataclasses import replace

import pytest

from syncagent.model import AgreedState, Kind, LocalStamp, LocalState, Node, NodeId, Place, RemoteStamp, Tree
from syncagent.patience import FAILED_MAX_S, QUIET_MAX_S, QUIET_S, UNREACHABLE_MAX_S, VANISHED_S, Patience
from syncagent.plan import Delete, Move, Plan
from syncagent.ports import ServerIdentity
from syncagent.safety import Danger, Limits, check_deletions, check_folder, check_server, count_deletions
from syncagent.selection import Selection
from tests.support.sync_story import Story

PLACE = Place(NodeId(0), "a")
FRESH_MS = 0
"""Wall time at which no file is old."""


def file(size: int) -> Node:
    return Node(NodeId(1), local=LocalState(PLACE, Kind.FILE, LocalStamp(1, size)))


def test_the_folder_must_be_the_marked_one() -> None:
    assert check_folder("pair", "pair") is None
    for found in (None, "another"):
        stop = check_folder("pair", found)
        assert stop is not None
        assert stop.danger is Danger.FOLDER_REPLACED


def test_the_server_must_be_the_known_one() -> None:
    known = ServerIdentity("i", "r", "f")
    assert check_server(None, known) is None
    assert check_server(known, known) is None
    dangers = []
    for found in (ServerIdentity("x", "r", "f"), ServerIdentity("i", "x", "f"), ServerIdentity("i", "r", "x")):
        stop = check_server(known, found)
        assert stop is not None
        dangers.append(stop.danger)
    assert dangers == [Danger.SERVER_REPLACED, Danger.SERVER_REPLACED, Danger.SERVER_RESTORED]


@pytest.mark.parametrize(
    ("limits", "stops"),
    [(Limits(4, 0.5), True), (Limits(5, 0.5), False), (Limits(4, 0.9), False), (Limits(0, 0.0), True)],
)
def test_many_deletions_are_counted_with_what_is_beneath(limits: Limits, stops: bool) -> None:
    story = Story().agreed("d/", "d/a", "d/b", "d/e/", "d/e/c", "x").remove(Tree.REMOTE, "d")
    plan = story.plan()
    stop = check_deletions(count_deletions(story.forest, plan), 6, limits)
    assert (stop is not None) is stops
    if stop is not None:
        assert (stop.side, stop.count) == (Tree.LOCAL, 5)


def test_moves_are_no_deletions() -> None:
    story = Story().agreed("a", "b")
    plan = Plan(((Move(Tree.LOCAL, NodeId(1), PLACE), Move(Tree.LOCAL, NodeId(2), PLACE)),))
    assert count_deletions(story.forest, plan) == {}
    deletion = Delete(Tree.LOCAL, NodeId(1))
    counts = count_deletions(story.forest, Plan(((deletion,),)))
    assert counts == {deletion: 1}
    assert check_deletions(counts, 2, Limits(0, 0.0)) is not None


def test_a_file_has_to_be_quiet() -> None:
    patience = Patience()
    assert patience.held([file(1)], 100.0, FRESH_MS) == {1}
    assert patience.wake_at(100.0) == 100.0 + QUIET_S
    assert patience.held([file(1)], 100.0 + QUIET_S, FRESH_MS) == set()


def test_a_file_that_changes_each_time_it_was_let_go_has_to_be_quiet_for_longer() -> None:
    patience, now, waits = Patience(), 100.0, []
    for size in range(10):
        assert patience.held([file(size)], now, FRESH_MS)
        wake = patience.wake_at(now)
        assert wake is not None
        waits.append(wake - now)
        now = wake + 0.01
        assert patience.held([file(size)], now, FRESH_MS) == set()
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(QUIET_MAX_S)


def test_however_long_a_file_is_written_it_is_quiet_soon_after() -> None:
    patience, now = Patience(), 100.0
    for size in range(1000):
        assert patience.held([file(size)], now, FRESH_MS)
        now += QUIET_S / 3
    wake = patience.wake_at(now)
    assert wake is not None
    assert wake <= now + QUIET_S


def test_a_file_that_was_gone_for_a_moment_waits_no_longer_than_others() -> None:
    patience = Patience()
    gone = Node(NodeId(1), ancestor=AgreedState(PLACE, Kind.FILE, b"", LocalStamp(1), RemoteStamp("r")))
    assert patience.held([gone], 100.0, FRESH_MS) == {1}
    back = replace(gone, local=LocalState(PLACE, Kind.FILE, LocalStamp(2, 5)))
    assert patience.held([back], 100.1, FRESH_MS) == {1}
    assert patience.held([back], 100.1 + QUIET_S, FRESH_MS) == set()


def test_a_file_that_nobody_touched_for_long_is_quiet_at_once() -> None:
    assert Patience().held([file(1)], 100.0, 3_600_000) == set()


def test_an_old_file_that_was_just_renamed_may_be_about_to_be_replaced() -> None:
    """Its inode was touched: it has another name, and a program that saves so writes the new content now."""
    renamed = Node(NodeId(1), local=LocalState(PLACE, Kind.FILE, LocalStamp(1, 1, ctime_ns=3_599 * 10**9)))
    patience = Patience()
    assert patience.held([renamed], 100.0, 3_600_000) == {1}
    assert patience.held([renamed], 100.0 + QUIET_S, 3_600_000) == set()


@pytest.mark.parametrize("path", ["a", "d/"])
def test_what_vanished_may_come_back(path: str) -> None:
    story = Story().agreed(path).remove(Tree.LOCAL, path)
    node = story.forest.nodes[story.find(Tree.REMOTE, path)]
    patience = Patience()
    assert patience.held([node], 100.0, FRESH_MS) == {node.id}
    assert patience.held([node], 100.0 + VANISHED_S, FRESH_MS) == set()


def test_failures_double_the_wait_up_to_a_limit() -> None:
    patience, now, waits = Patience(), 0.0, []
    for _ in range(14):
        patience.failed(NodeId(1), now, "why", is_stale=False)
        wake = patience.wake_at(now)
        assert wake is not None
        waits.append(wake - now)
        now = wake
    assert waits[:4] == [1, 2, 4, 8]
    assert waits[-1] == FAILED_MAX_S
    patience.failed(NodeId(1), now, "the network", is_stale=False, longest_s=UNREACHABLE_MAX_S)
    assert patience.reasons() == {NodeId(1): "the network"}
    assert patience.wake_at(now) == now + UNREACHABLE_MAX_S


def test_a_server_that_asks_for_more_is_left_alone_for_longer() -> None:
    patience = Patience()
    patience.failed(NodeId(1), 0.0, "why", is_stale=False, least_s=30.0, longest_s=10.0)
    assert patience.wake_at(0.0) == 30.0


def test_a_failure_because_of_a_change_is_tried_again_at_once_but_not_for_ever() -> None:
    patience = Patience()
    held = []
    for _ in range(3):
        patience.failed(NodeId(1), 0.0, "why", is_stale=True)
        held.append(bool(patience.held([file(1)], 0.0, 3_600_000)))
    assert held == [False, False, True]


def test_who_is_settled_is_forgotten() -> None:
    patience = Patience()
    patience.failed(NodeId(1), 0.0, "why", is_stale=False)
    patience.held([], 0.0, FRESH_MS)
    assert patience.wake_at(0.0) is None


def test_selection() -> None:
    selection = Selection("# comment\n*.o\n/only-here\nbuild/\n!important.o\n", [("big", "folder")])
    assert not selection.includes(("a", "x.o"), is_directory=False)
    assert selection.includes(("a", "important.o"), is_directory=False)
    assert not selection.includes(("only-here",), is_directory=False)
    assert selection.includes(("a", "only-here"), is_directory=False)
    assert not selection.includes(("a", "build"), is_directory=True)
    assert selection.includes(("a", "build"), is_directory=False)
    assert selection.includes(("big",), is_directory=True)
    assert not selection.includes(("big", "folder"), is_directory=True)
    assert not selection.includes((".helenite-sync",), is_directory=True)
    assert not selection.includes((".~lock.letter.odt#",), is_directory=False)
    assert Selection().key != selection.key
