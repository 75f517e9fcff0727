"""What the journal keeps in memory of directories and resources says what the table says, whatever is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from syncagent import directories
from syncagent.journal import Journal, open_journal
from syncagent.model import (
    ROOT_ID,
    SIDES,
    Kind,
    LocalStamp,
    LocalState,
    Node,
    NodeId,
    Place,
    RemoteStamp,
    RemoteState,
    Tree,
)

NAMES = [f"n{number}" for number in range(6)]
PARENTS = [ROOT_ID, NodeId(1), NodeId(2)]


class BreaksOffError(Exception):
    """In the middle of a transaction."""


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    found = open_journal(tmp_path / "journal", "damaged")
    yield found
    found.close()


def truth(journal: Journal, side: Tree, place: Place) -> NodeId | None:
    """Who is there, by looking at all nodes."""
    states = ((node, journal.node(node).state(side)) for node in journal.side_ids(side))
    return next((node for node, state in states if state is not None and state.place == place), None)


def check(journal: Journal) -> None:
    for side in SIDES:
        for parent in PARENTS:
            for name in NAMES:
                assert journal.child(side, parent, name) == truth(journal, side, Place(parent, name))


def change(journal: Journal, random: Random, node: NodeId) -> None:
    """Put a node to a place that is free, or forget it, on one side or both."""
    place = Place(random.choice(PARENTS), random.choice(NAMES))
    is_free = {side: truth(journal, side, place) in {None, node} for side in SIDES}
    local = (
        LocalState(place, Kind.FILE, LocalStamp(int(node))) if is_free[Tree.LOCAL] and random.random() < 0.7 else None
    )
    remote = None
    if is_free[Tree.REMOTE] and random.random() < 0.7:
        remote = RemoteState(place, Kind.FILE, RemoteStamp(f"urn:{node}"))
    journal.put(Node(node, None, local, remote))


@pytest.mark.parametrize("entries_max", [2, 1_000], ids=["some directories are too large to be kept", "all are kept"])
@pytest.mark.parametrize("seed", range(5))
def test_the_names_are_those_of_the_table(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, seed: int, entries_max: int
) -> None:
    monkeypatch.setattr(directories, "ENTRIES_MAX", entries_max)
    monkeypatch.setattr("syncagent.journal.ENTRIES_MAX", entries_max)
    monkeypatch.setattr(directories, "NAMES_MAX", 20)  # they are given up now and then
    random = Random(seed)
    for _ in range(60):
        change(journal, random, NodeId(random.randrange(1, 12)))
        if random.random() < 0.3:
            check(journal)
        if random.random() < 0.1:
            with suppress(BreaksOffError), journal.transaction():
                change(journal, random, NodeId(random.randrange(1, 12)))
                check(journal)
                raise BreaksOffError
            check(journal)
    journal.forget_agreements()
    check(journal)


def test_what_was_looked_for_in_vain_is_found_when_it_is_written_down(journal: Journal) -> None:
    known = RemoteState(Place(ROOT_ID, "a"), Kind.FILE, RemoteStamp("urn:a"))
    journal.put(Node(NodeId(1), remote=known))
    journal.look_for(["urn:a", "urn:b"])
    assert journal.find_resource("urn:a") == Node(NodeId(1), remote=known)
    assert journal.find_resource("urn:b") is None
    other = Node(NodeId(2), remote=RemoteState(Place(ROOT_ID, "b"), Kind.FILE, RemoteStamp("urn:b")))
    journal.put(other)
    assert journal.find_resource("urn:b") == other


def test_what_a_broken_transaction_wrote_is_not_remembered(journal: Journal) -> None:
    journal.look_for(["urn:a"])
    with suppress(BreaksOffError), journal.transaction():
        journal.put(Node(NodeId(1), remote=RemoteState(Place(ROOT_ID, "a"), Kind.FILE, RemoteStamp("urn:a"))))
        assert journal.child(Tree.REMOTE, ROOT_ID, "a") == 1
        raise BreaksOffError
    assert journal.find_resource("urn:a") is None
    assert journal.child(Tree.REMOTE, ROOT_ID, "a") is None
