"""The agent's durable record: the three trees as they were last seen, in SQLite. The one door to sqlite3.

It is a View for the planner, the memory of `scan` and `observe` between two looks, and what `executor` writes to after
each step. It holds observations and agreements, never work to do: whatever happened to a step that was under way when
the process died, the next look at both sides shows it, and the planner finds two sides that agree already. So there is
no log of intentions, and losing the last commits in a power cut (WAL, synchronous=NORMAL) costs a comparison, not data:
what a commit speaks of on the local disk was flushed before it.

A journal that cannot be read is set aside under another name and a new one begins; then nothing is known to have been
agreed, nothing counts as deleted, and the first sync unites both sides. One of an older program is upgraded, in one
transaction; one of a newer program is left alone and not worked with.

One thread at a time. Nodes are cached, up to CACHE_MAX, and the names in directories that were asked about lately.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path as FilePath
from typing import Any

from helenite.core.errors import ConfigurationError
from syncagent.directories import ENTRIES_MAX, Directories
from syncagent.model import SIDES, Kind, Node, NodeId, Place, State, Tree
from syncagent.rows import (
    COLUMNS,
    GROUPS,
    NAMES,
    agreed_row,
    from_row,
    local_state_row,
    remote_state_row,
    signed,
    to_row,
    update,
)

SCHEMA = 2
CACHE_MAX = 10_000
"""Nodes in memory: about 10 MB; more than are planned at a time, with the directories above them."""
TWIN_BYTES_MIN = 256 << 10
"""Smaller content is sent as fast as it is found to be there already."""
TWINS_MAX = 16
"""Files of one size that are compared with a new one."""

CONFLICT_COPY = "l_name IS NOT NULL AND (instr(l_name, ' (conflicted copy ') OR instr(l_name, ' (case conflict '))"
"""Narrows the search for conflict copies to names that may be some; an index holds them."""

_INDEX_SIZES = f"CREATE INDEX IF NOT EXISTS agreed_size ON node (a_size) WHERE a_size >= {TWIN_BYTES_MIN}"
_CREATE = f"""
CREATE TABLE node ({COLUMNS.replace("id,", "id INTEGER PRIMARY KEY,", 1)});
CREATE UNIQUE INDEX local_place ON node (l_parent, l_name) WHERE l_parent IS NOT NULL;
CREATE UNIQUE INDEX remote_place ON node (r_parent, r_name) WHERE r_parent IS NOT NULL;
CREATE UNIQUE INDEX remote_resource ON node (r_resource) WHERE r_resource IS NOT NULL;
CREATE INDEX local_inode ON node (l_inode) WHERE l_inode IS NOT NULL;
CREATE INDEX missing_inode ON node (a_inode) WHERE l_parent IS NULL AND a_inode IS NOT NULL;
CREATE INDEX missing_place ON node (a_parent, a_name) WHERE l_parent IS NULL OR r_parent IS NULL;
CREATE INDEX unsettled ON node (id) WHERE settled = 0;
CREATE INDEX conflict_copy ON node (id) WHERE {CONFLICT_COPY};
{_INDEX_SIZES};
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
PRAGMA user_version = {SCHEMA};
"""
_UPGRADES = {1: _INDEX_SIZES}
"""What makes of each older schema the next one."""
_PUT = f"INSERT INTO node ({COLUMNS}) VALUES ({', '.join('?' * len(NAMES))})"
_PREFIX = {Tree.LOCAL: "l", Tree.REMOTE: "r"}


class Journal:
    """The three trees of one pair of folders."""

    def __init__(self, connection: sqlite3.Connection, *, is_new: bool) -> None:
        self._connection = connection
        self._cache: dict[NodeId, Node] = {}
        self._directories = Directories()
        self._absent: set[str] = set()  # resources that were looked for together, and no node has
        self._unborn: set[NodeId] = set()  # given out, and not put yet
        self._depth = 0
        self.is_new = is_new
        """Nothing is known of earlier syncs."""
        self._last = self._scalar("SELECT coalesce(max(id), 0) FROM node")

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, also of transactions inside."""
        self._depth += 1
        try:
            if self._depth == 1:
                self._connection.execute("BEGIN IMMEDIATE")
            yield
            if self._depth == 1:
                self._connection.execute("COMMIT")
        except BaseException:
            self._forget_cached()
            self._unborn.clear()
            if self._depth == 1 and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        finally:
            self._depth -= 1

    # View

    def node(self, node: NodeId) -> Node:
        found = self._cache.get(node)
        if found is None and node not in self._unborn:
            found = self._one(f"SELECT {COLUMNS} FROM node WHERE id = ?", node)
        if found is None:
            raise KeyError(node)
        return found

    def child(self, side: Tree, parent: NodeId, name: str) -> NodeId | None:
        names = self._directories.names(side, parent, self._read_names)
        if names is not None:
            return names.get(name)
        at = _PREFIX[side]
        query = f"SELECT id FROM node WHERE {at}_parent = ? AND {at}_name = ?"
        try:
            return _first(self._connection.execute(query, (parent, name)))
        except UnicodeEncodeError:
            return None  # a hint of what is not synced: names are UTF-8

    def _read_names(self, side: Tree, parent: NodeId) -> dict[str, NodeId]:
        at = _PREFIX[side]
        query = f"SELECT {at}_name, id FROM node WHERE {at}_parent = ? LIMIT {ENTRIES_MAX + 1}"
        return dict(self._connection.execute(query, (parent,)))

    def children(self, side: Tree, parent: NodeId) -> list[NodeId]:
        rows = self._connection.execute(f"SELECT id FROM node WHERE {_PREFIX[side]}_parent = ?", (parent,))
        return [NodeId(row[0]) for row in rows]

    # Looking

    def children_nodes(self, side: Tree, parent: NodeId) -> list[Node]:
        """As `children`, in one query."""
        rows = self._connection.execute(f"SELECT {COLUMNS} FROM node WHERE {_PREFIX[side]}_parent = ?", (parent,))
        return [self._remember(row) for row in rows]

    def read_ahead(self, side: Tree, parent: NodeId) -> None:
        """Somebody will ask for each node in this directory: one query for all, as far as they are kept."""
        query = f"SELECT {COLUMNS} FROM node WHERE {_PREFIX[side]}_parent = ? LIMIT {ENTRIES_MAX}"
        for row in self._connection.execute(query, (parent,)):
            self._remember(row)

    def subtree(self, side: Tree, top: NodeId) -> Iterator[Node]:
        """A node and everything beneath it on one side, parents first."""
        stack = [self.node(top)]
        while stack:
            node = stack.pop()
            yield node
            if node.kind is Kind.DIRECTORY:
                stack.extend(self.children_nodes(side, node.id))

    def unsettled(self, new_max: int, without: frozenset[NodeId] = frozenset()) -> list[NodeId]:
        """The nodes that are not settled; of those without an ancestor the oldest, at most so many, without some."""
        agreed, fresh = self._unsettled("id", new_max if new_max < 0 else new_max + len(without))
        return [*(NodeId(row[0]) for row in agreed), *(NodeId(row[0]) for row in fresh if row[0] not in without)]

    def unsettled_nodes(self, new_max: int) -> Iterator[Node]:
        """As `unsettled`, the nodes themselves, without a query for each."""
        for rows in self._unsettled(COLUMNS, new_max):
            yield from map(self._remember, rows)

    def _unsettled(self, columns: str, new_max: int) -> tuple[sqlite3.Cursor, sqlite3.Cursor]:
        query = f"SELECT {columns} FROM node WHERE settled = 0 AND a_parent IS"
        agreed = self._connection.execute(f"{query} NOT NULL")
        return agreed, self._connection.execute(f"{query} NULL ORDER BY id LIMIT ?", (new_max,))

    def look_for(self, resources: Iterable[str]) -> None:
        """Find out in one query which of these ids of the server no node has, before `find_resource` asks for each."""
        wanted = set(resources)
        query = "SELECT r_resource FROM node WHERE r_resource IN (SELECT value FROM json_each(?))"
        self._absent = wanted.difference(row[0] for row in self._connection.execute(query, (json.dumps([*wanted]),)))

    def find_resource(self, resource: str) -> Node | None:
        """The node that has this id on the server."""
        if resource in self._absent:
            return None
        return self._one(f"SELECT {COLUMNS} FROM node WHERE r_resource = ?", resource)

    def find_inode(self, inode: int) -> list[Node]:
        """The nodes that have this inode, or had it when they were last seen."""
        present = f"SELECT {COLUMNS} FROM node WHERE l_inode = ?"
        missing = f"SELECT {COLUMNS} FROM node WHERE a_inode = ? AND l_parent IS NULL"
        known = (signed(inode),)
        rows = [*self._connection.execute(present, known), *self._connection.execute(missing, known)]
        return [self._remember(row) for row in rows]

    def find_missing(self, side: Tree, place: Place, kind: Kind) -> Node | None:
        """A node of this kind that was agreed to be at this place and is not on this side now."""
        return self._one(
            f"SELECT {COLUMNS} FROM node WHERE a_parent = ? AND a_name = ? AND kind = ?"
            f" AND (l_parent IS NULL OR r_parent IS NULL) AND {_PREFIX[side]}_parent IS NULL LIMIT 1",
            place.parent,
            place.name,
            kind,
        )

    def conflict_copies(self) -> list[Node]:
        """The local nodes whose names may be those of conflict copies."""
        rows = self._connection.execute(f"SELECT {COLUMNS} FROM node WHERE {CONFLICT_COPY}")
        return [self._remember(row) for row in rows]

    def find_twins(self, size: int) -> list[Node]:
        """Some settled files of this size, at least TWIN_BYTES_MIN: perhaps with content that need not travel again."""
        rows = self._connection.execute(
            f"SELECT {COLUMNS} FROM node WHERE a_size = ? AND a_size >= {TWIN_BYTES_MIN} AND settled = 1 AND kind = ?"
            f" LIMIT {TWINS_MAX}",
            (size, Kind.FILE),
        )
        return [self._remember(row) for row in rows]

    def count_unsettled(self) -> int:
        """How many nodes are not settled."""
        return self._scalar("SELECT count(*) FROM node WHERE settled = 0")

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known of either side."""
        return not self._scalar("SELECT EXISTS (SELECT 1 FROM node)")

    @property
    def has_agreements(self) -> bool:
        """Whether both sides ever agreed on anything."""
        return bool(self._scalar("SELECT EXISTS (SELECT 1 FROM node WHERE a_parent IS NOT NULL)"))

    def side_ids(self, side: Tree) -> list[NodeId]:
        """All nodes that are on one side."""
        rows = self._connection.execute(f"SELECT id FROM node WHERE {_PREFIX[side]}_parent IS NOT NULL")
        return [NodeId(row[0]) for row in rows]

    def count_agreed(self) -> int:
        """How many nodes both sides agreed on."""
        return self._scalar("SELECT count(*) FROM node WHERE a_parent IS NOT NULL")

    # Changing

    def new_id(self) -> NodeId:
        """An id that no node has had."""
        self._last += 1
        self._unborn.add(NodeId(self._last))
        return NodeId(self._last)

    def put(self, node: Node) -> None:
        """Write down a node; one without states is forgotten."""
        try:
            old = self.node(node.id)
        except KeyError:
            old = None
        if self._depth:
            self._write(old, node)
        else:
            with self.transaction():
                self._write(old, node)

    def _write(self, old: Node | None, node: Node) -> None:
        if node.ancestor is None and node.local is None and node.remote is None:
            self._connection.execute("DELETE FROM node WHERE id = ?", (node.id,))
            self._directories.changed(old, node)
            self._cache.pop(node.id, None)
            return
        if old is None:
            self._connection.execute(_PUT, to_row(node))
            self._unborn.discard(node.id)
        else:
            agrees = _is_other(old.ancestor, node.ancestor)
            is_here, is_there = _is_other(old.local, node.local), _is_other(old.remote, node.remote)
            values: list[object] = [node.is_settled]
            values += agreed_row(node.ancestor) if agrees else ()
            values += local_state_row(node.local) if is_here else ()
            values += remote_state_row(node.remote) if is_there else ()
            self._connection.execute(update(agrees=agrees, local=is_here, remote=is_there), (*values, node.id))
        self._directories.changed(old, node)
        if node.remote is not None:
            self._absent.discard(node.remote.stamp.resource)
        self._remember_node(node)

    def forget_tree(self, top: NodeId) -> None:
        """Forget a node and everything beneath it on either side, as if it had never been seen."""
        with self.transaction():
            stack, found = [top], {top}
            while stack:
                current = stack.pop()
                fresh = {child for side in SIDES for child in self.children(side, current)} - found
                found |= fresh
                stack += fresh
            for node in found:
                self.put(Node(node))

    def forget_agreements(self) -> None:
        """Begin again as if nothing had been agreed: then nothing counts as deleted, and both sides are united."""
        nothing = ", ".join(f"{name} = NULL" for name in NAMES[GROUPS[Tree.ANCESTOR]])
        with self.transaction():
            self._connection.execute(f"UPDATE node SET settled = 0, {nothing}")
            self._connection.execute("DELETE FROM node WHERE l_parent IS NULL AND r_parent IS NULL")
            self._forget_cached()

    # Facts about the pair

    def fact(self, name: str) -> Any:
        """A value that was noted, or None."""
        row = self._connection.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def note(self, name: str, value: object) -> None:
        """Note a value that JSON can carry."""
        with self.transaction():
            self._connection.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (name, json.dumps(value)))

    def _one(self, query: str, *values: object) -> Node | None:
        row = self._connection.execute(query, values).fetchone()
        return None if row is None else self._remember(row)

    def _remember(self, row: tuple[Any, ...]) -> Node:
        return self._cache.get(row[0]) or self._remember_node(from_row(row))

    def _remember_node(self, node: Node) -> Node:
        if len(self._cache) >= CACHE_MAX:
            self._cache.clear()
        self._cache[node.id] = node
        return node

    def _forget_cached(self) -> None:
        self._cache.clear()
        self._directories.clear()
        self._absent.clear()

    def _scalar(self, query: str) -> int:
        return int(self._connection.execute(query).fetchone()[0])


def open_journal(path: FilePath, set_aside_as: str) -> Journal:
    """Open the journal, or begin a new one; one that is damaged is kept beside it under the name `set_aside_as`.

    ConfigurationError when a newer program has written it.
    """
    if path.exists():
        try:
            return Journal(_connect(path), is_new=False)
        except sqlite3.DatabaseError:
            for suffix in ("", "-wal", "-shm"):
                damaged = path.with_name(path.name + suffix)
                if damaged.exists():
                    damaged.rename(path.with_name(set_aside_as + suffix))
    path.parent.mkdir(parents=True, exist_ok=True)
    return Journal(_connect(path), is_new=True)


def _connect(path: FilePath) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA:
            raise ConfigurationError(
                f"the journal {path} is of a newer version of Helenite (schema {version}; this one reads {SCHEMA}): "
                "run that version, or remove the folder from the agent and add it again"
            )
        if version == 0:
            connection.executescript(f"BEGIN; {_CREATE} COMMIT;")
        for old in range(version or SCHEMA, SCHEMA):
            connection.executescript(f"BEGIN; {_UPGRADES[old]}; PRAGMA user_version = {old + 1}; COMMIT;")
        problems = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problems != "ok":
            raise sqlite3.DatabaseError(problems)
    except BaseException:
        connection.close()
        raise
    return connection


def _is_other(old: State | None, new: State | None) -> bool:
    return old is not new and old != new  # most are the very same


def _first(rows: Iterable[tuple[Any, ...]]) -> NodeId | None:
    return next((NodeId(row[0]) for row in rows), None)
