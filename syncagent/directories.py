"""Who is in the directories that the journal was asked about lately, by name.

Used by `journal`: one query answers for a whole directory, and what is put into it later is noted here and not asked
for again. Bounded: no further directory beyond NAMES_MAX names, and none with more than ENTRIES_MAX entries. Pure.
"""

from __future__ import annotations

from collections.abc import Callable

from syncagent.model import Node, NodeId, State, Tree

ENTRIES_MAX = 1_000
"""Entries of one directory that are kept; a larger one is asked for each name."""
NAMES_MAX = 20_000
"""About 4 MB."""

Names = dict[str, NodeId]


class Directories:
    """What is kept; None for a directory that is too large."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Tree, NodeId], Names | None] = {}
        self._count = 0

    def names(self, side: Tree, parent: NodeId, read: Callable[[Tree, NodeId], Names]) -> Names | None:
        """The names of a directory; None: there are too many. `read` tells all that there are, or ENTRIES_MAX + 1."""
        if (side, parent) not in self._kept:
            if self._count > NAMES_MAX:
                self.clear()
            names = read(side, parent)
            self._count += 1 + len(names)
            self._kept[side, parent] = names if len(names) <= ENTRIES_MAX else None
        return self._kept[side, parent]

    def changed(self, old: Node | None, new: Node) -> None:
        """A node was written down: it may be in other places than before."""
        if old is None or old.local is not new.local:
            self._changed(Tree.LOCAL, new.id, None if old is None else old.local, new.local)
        if old is None or old.remote is not new.remote:
            self._changed(Tree.REMOTE, new.id, None if old is None else old.remote, new.remote)

    def _changed(self, side: Tree, node: NodeId, old: State | None, new: State | None) -> None:
        before, after = (None if state is None else state.place for state in (old, new))
        if before == after:
            return
        if before is not None and (names := self._kept.get((side, before.parent))) and names.get(before.name) == node:
            del names[before.name]
        if after is not None and (names := self._kept.get((side, after.parent))) is not None:
            names[after.name] = node
            self._count += 1
            if len(names) > ENTRIES_MAX:
                self._kept[side, after.parent] = None

    def clear(self) -> None:
        self._kept.clear()
        self._count = 0
