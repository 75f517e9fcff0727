"""The entries of the FileSystem in memory, as a tree of nodes. Used by `memory_filesystem` under its lock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from helenite.core import errors
from helenite.core.model import ROOT_ID, Condition, Entry, EntryId, Expect, Kind, Sequence
from helenite.core.paths import Path, format_path, is_within


@dataclass
class Node:
    """A file or directory."""

    entry: Entry
    children: dict[str, Node] = field(default_factory=dict)
    properties: dict[str, bytes] = field(default_factory=dict)

    @property
    def is_directory(self) -> bool:
        return self.entry.kind is Kind.DIRECTORY

    def walk(self) -> Iterator[Node]:
        """Itself and all beneath."""
        yield self
        for child in self.children.values():
            yield from child.walk()


class Tree:
    """All entries, and the ids that they get."""

    def __init__(self, now_ms: int) -> None:
        self.root = Node(Entry("", Kind.DIRECTORY, ROOT_ID, Sequence(0), 0, now_ms, now_ms))
        self._next_id = ROOT_ID + 1

    def fresh_id(self) -> EntryId:
        self._next_id += 1
        return EntryId(self._next_id - 1)

    def find(self, path: Path) -> Node:
        node = self.root
        for name in path:
            child = node.children.get(name)
            if child is None:
                raise errors.EntryNotFoundError(f"there is no {format_path(path)}")
            node = child
        return node

    def parent(self, path: Path) -> Node:
        if not path:
            raise errors.InvalidRequestError("the root has no parent")
        try:
            parent = self.find(path[:-1])
        except errors.EntryNotFoundError as error:
            raise errors.ParentNotFoundError(f"{format_path(path)} has no parent") from error
        if not parent.is_directory:
            raise errors.ParentNotFoundError(f"{format_path(path[:-1])} is a file")
        return parent

    def target(self, path: Path) -> tuple[Node, Node | None]:
        """The parent of a place, and what is there."""
        parent = self.parent(path)
        return parent, parent.children.get(path[-1])

    def source_and_target(
        self, source: Path, target: Path, overwrite: bool, condition: Condition, target_condition: Condition
    ) -> tuple[Node, Node, Node | None]:
        """What is to be moved or copied, the target's parent, and what is there."""
        node = self.find(source)
        if is_within(target, source) or is_within(source, target):
            raise errors.CycleError("the source and the target contain each other")
        parent, old = self.target(target)
        check(node, condition)
        check(old, target_condition)
        if old is not None and not overwrite:
            raise errors.PreconditionFailedError(f"{format_path(target)} exists")
        return node, parent, old

    def touch(self, path: Path, sequence: Sequence) -> None:
        """A directory and all above it have changed."""
        for depth in range(len(path) + 1):
            try:
                node = self.find(path[:depth])
            except errors.EntryNotFoundError:
                return
            node.entry = replace(node.entry, revision=sequence)


def check(node: Node | None, condition: Condition) -> None:
    """PreconditionFailedError unless what is at a place is as demanded."""
    match condition.expect:
        case Expect.ANY:
            holds = True
        case Expect.ABSENT:
            holds = node is None
        case Expect.PRESENT:
            holds = node is not None
        case Expect.EXACT:
            holds = node is not None and (node.entry.id, node.entry.revision) == (condition.id, condition.revision)
    if not holds:
        raise errors.PreconditionFailedError("the entry is not in the state that was demanded")
