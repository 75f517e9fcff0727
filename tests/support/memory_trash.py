"""What was removed from the FileSystem in memory and may come back. Used by `memory_filesystem` under its lock."""

from __future__ import annotations

from helenite.core import errors
from helenite.core.model import Sequence, Trashed
from helenite.core.paths import Path, format_path
from tests.support.memory_tree import Node


class Trash:
    """Removed branches of the tree by the sequence of their removal; none are kept when there is to be no trash."""

    def __init__(self, *, keeps: bool) -> None:
        self._keeps = keeps
        self._items: dict[int, tuple[Trashed, Node]] = {}

    def add(self, sequence: Sequence, path: Path, node: Node, principal: str, now_ms: int) -> None:
        if self._keeps:
            size = sum(each.entry.size_bytes for each in node.walk())
            item = Trashed(sequence, format_path(path), node.entry.kind, size, principal, now_ms)
            self._items[sequence] = (item, node)

    def newest(self, principal: str, limit: int) -> tuple[Trashed, ...]:
        """Of one user, or of all when it is empty."""
        items = [item for item, _ in self._items.values() if principal in {"", item.principal}]
        return tuple(sorted(items, key=lambda item: -item.id)[:limit])

    def find(self, trash_id: int) -> tuple[Trashed, Node]:
        if trash_id not in self._items:
            raise errors.EntryNotFoundError(f"the trash has no item {trash_id}")
        return self._items[trash_id]

    def drop(self, ids: tuple[int, ...]) -> None:
        """These, or all when none are named."""
        for trash_id in ids or tuple(self._items):
            self._items.pop(trash_id, None)
