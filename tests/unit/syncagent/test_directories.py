"""What the journal keeps in memory of nodes, directories and resources says what the table says, whatever happens."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from syncagent import directories
from syncagent.journal import Journal, open_journal
from syncagent.model import (
    ROOT_ID,
    SIDES,
    AgreedState,
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
from syncagent.rows import COLUMNS, from_row

NAMES = [f"n{number}" for number in range(6)]
PARENTS = [ROOT_ID, NodeId(1), NodeId(2)]
RESOURCES = [f"urn:{number}" for number in range(12)]
STEPS = 80


class BreaksOffError(Exception):
    """In the middle of a transaction."""


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    found = open_journal(tmp_path / "journal", "damaged")
    yield found
    found.close()


class Game:
    """Writes whatever an agent may write, in any order, and knows what must come of it from the table alone."""

    def __init__(self, journal: Journal, seed: int) -> None:
        self.journal = journal
        self.random = Random(seed)
        self.ids = [journal.new_id() for _ in range(8)]
        """Given out; some of them put, some forgotten again."""
        self.done: set[str] = set()

    def table(self) -> dict[NodeId, Node]:
        """What is written down. The connection is asked, as only that sees a transaction from inside."""
        rows = self.journal._connection.execute(f"SELECT {COLUMNS} FROM node")
        return {node.id: node for node in map(from_row, rows)}

    def check(self) -> None:
        """In any order, since each question may bring something into memory or throw something out."""
        table = self.table()
        checks = [self._check_nodes, self._check_names, self._check_resources]
        self.random.shuffle(checks)
        for check in checks:
            check(table)

    def _check_nodes(self, table: dict[NodeId, Node]) -> None:
        assert self.journal.count_unsettled() == sum(not node.is_settled for node in table.values())
        for node in self.ids:
            if node in table:
                assert self.journal.node(node) == table[node]
            else:
                with pytest.raises(KeyError):
                    self.journal.node(node)

    def _check_names(self, table: dict[NodeId, Node]) -> None:
        for side in SIDES:
            places = {state.place: node.id for node in table.values() if (state := node.state(side)) is not None}
            for parent in PARENTS:
                for name in NAMES:
                    assert self.journal.child(side, parent, name) == places.get(Place(parent, name))

    def _check_resources(self, table: dict[NodeId, Node]) -> None:
        known = {node.remote.stamp.resource: node for node in table.values() if node.remote is not None}
        for resource in RESOURCES:
            assert self.journal.find_resource(resource) == known.get(resource)

    def put(self) -> None:
        """Put a node somewhere, or forget it, on each side; where somebody is already, the table refuses."""
        node, table = self._any_node(), self.table()
        others = [other for other in table.values() if other.id != node.id]
        is_refused = any(
            (node.local is not None and other.local is not None and node.local.place == other.local.place)
            or (
                node.remote is not None
                and other.remote is not None
                and (
                    node.remote.place == other.remote.place or node.remote.stamp.resource == other.remote.stamp.resource
                )
            )
            for other in others
        )
        if is_refused:
            with pytest.raises(sqlite3.IntegrityError):  # and a transaction around it goes on
                self.journal.put(node)
            assert self.table() == table
        else:
            self.journal.put(node)
            is_kept = (node.ancestor, node.local, node.remote) != (None, None, None)
            assert self.table() == {other.id: other for other in others} | ({node.id: node} if is_kept else {})
        self.done.add("refused" if is_refused else "put")

    def _any_node(self) -> Node:
        random = self.random
        if random.random() < 0.1:
            self.ids.append(self.journal.new_id())
        node = random.choice(self.ids)
        old = self.table().get(node, Node(node))
        local, remote, ancestor = old.local, old.remote, old.ancestor
        if random.random() < 0.6:
            local = LocalState(self._any_place(), Kind.FILE, LocalStamp(int(node))) if random.random() < 0.7 else None
        if random.random() < 0.6:
            stamp = RemoteStamp(random.choice(RESOURCES))
            place = self._any_place() if local is None or random.random() < 0.5 else local.place
            remote = RemoteState(place, Kind.FILE, stamp) if random.random() < 0.7 else None
        if random.random() < 0.5 and local is not None and remote is not None:
            ancestor = AgreedState(remote.place, Kind.FILE, None, local.stamp, remote.stamp)
        elif random.random() < 0.1:
            ancestor = None
        return Node(node, ancestor, local, remote)

    def _any_place(self) -> Place:
        return Place(self.random.choice(PARENTS), self.random.choice(NAMES))

    def look_for(self) -> None:
        self.journal.look_for(self.random.sample(RESOURCES, 6))

    def forget_tree(self) -> None:
        top = self.random.choice(self.ids)
        gone, before = {top}, self.table()
        while more := {node.id for node in before.values() if self._parents(node) & gone} - gone:
            gone |= more
        self.journal.forget_tree(top)
        assert self.table() == {node: before[node] for node in before.keys() - gone}
        self.done.add("a tree" if len(gone & before.keys()) > 1 else "a leaf")

    def _parents(self, node: Node) -> set[NodeId]:
        return {state.place.parent for state in (node.local, node.remote) if state is not None}

    def forget_agreements(self) -> None:
        before = self.table().values()
        self.journal.forget_agreements()
        present = [node for node in before if node.local is not None or node.remote is not None]
        assert self.table() == {node.id: replace(node, ancestor=None) for node in present}
        self.done.add("agreements" if len(present) == len(before) else "agreements with missing nodes")

    def transaction(self, depth: int = 1) -> None:
        """Several steps; it may break off, and the one around it goes on all the same."""
        before = self.table()
        try:
            with self.journal.transaction():
                for _ in range(self.random.randrange(1, 4)):
                    self.step(depth)
                if self.random.random() < 0.4:
                    raise BreaksOffError
        except BreaksOffError:
            if depth == 1:  # what is inside another is undone with that
                assert self.table() == before
                self.check()
            self.done.add(f"broken off at {depth}")

    def step(self, depth: int = 0) -> None:
        chance = self.random.random()
        if chance < 0.55:
            self.put()
        elif chance < 0.7:
            self.look_for()
        elif chance < 0.75:
            self.forget_tree()
        elif chance < 0.79:
            self.forget_agreements()
        elif depth < 3:
            self.transaction(depth + 1)
        if self.random.random() < 0.3:
            self.check()


@pytest.mark.parametrize(("cache_max", "names_max"), [(1, 20), (3, 2), (10_000, 20_000)])
@pytest.mark.parametrize("entries_max", [1, 2, 1_000])
def test_what_is_in_memory_is_what_the_table_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries_max: int, names_max: int, cache_max: int
) -> None:
    monkeypatch.setattr(directories, "ENTRIES_MAX", entries_max)
    monkeypatch.setattr("syncagent.journal.ENTRIES_MAX", entries_max)
    monkeypatch.setattr(directories, "NAMES_MAX", names_max)
    monkeypatch.setattr("syncagent.journal.CACHE_MAX", cache_max)
    done: set[str] = set()
    for seed in range(8):
        journal = open_journal(tmp_path / f"journal {seed}", "damaged")
        game = Game(journal, seed)
        for _ in range(STEPS):
            game.step()
        game.check()
        journal.close()
        done |= game.done
    assert done == {
        "put",
        "refused",
        "a tree",
        "a leaf",
        "agreements",
        "agreements with missing nodes",
        "broken off at 1",
        "broken off at 2",
        "broken off at 3",
    }


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
