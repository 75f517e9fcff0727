"""The feed of the FileSystem in memory. Used by `memory_filesystem` under its lock."""

from __future__ import annotations

from helenite.core.model import Change, Entry, EntryId, Kind, Sequence
from helenite.core.paths import Path, format_path


class Feed:
    """Changes in the order of their commits, and the sequence that counts them."""

    def __init__(self) -> None:
        self.last = Sequence(0)
        self._changes: list[Change] = []

    def tick(self) -> Sequence:
        """The sequence of the change that is being made."""
        self.last = Sequence(self.last + 1)
        return self.last

    def tell(
        self, verb: str, path: Path, entry: Entry, parent: EntryId, *, source: Path | None, replaced: Kind | None
    ) -> None:
        """Of the change that has just been made."""
        came_from = "" if source is None else format_path(source)
        change = Change(self.last, verb, format_path(path), came_from, entry.id, entry.kind, (parent,), replaced)
        self._changes.append(change)

    def after(self, sequence: Sequence, limit: int) -> tuple[Change, ...]:
        return tuple(change for change in self._changes if change.sequence > sequence)[:limit]
