"""A FileSystem in memory: the public surface and semantics of `helenite.client.filesystem`, without a cluster.

For tests of what stands on the client (the gateway, the agent). `tests/contract` runs the same suites over this and
over the real one, so that the two cannot drift apart. Thread-safe: one lock guards everything.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Many
from dataclasses import replace

from helenite.client.chunking import Fresh, Part, Planned, plan_splice
from helenite.client.coherence import Coherence
from helenite.client.smallfiles import SmallFile, Stored
from helenite.core import errors
from helenite.core.clock import Clock
from helenite.core.model import (
    DEFAULT_CHUNK_BYTES,
    Change,
    Condition,
    Entry,
    EntryView,
    Expect,
    Kind,
    Lock,
    LockScope,
    Sequence,
    Trashed,
    Usage,
)
from helenite.core.paths import Path, format_path, parse_path
from tests.support.memory_content import Contents, MemoryReader, MemorySplicer, MemoryWriter
from tests.support.memory_feed import Feed
from tests.support.memory_locks import LockTable
from tests.support.memory_master import MemoryRpc
from tests.support.memory_trash import Trash
from tests.support.memory_tree import Node, Tree, check

ANY = Condition()
CAPACITY_BYTES = 1 << 40


class MemoryFileSystem:
    """The whole cluster in a dict. `calls` counts round trips by verb; `faults` maps a verb to what it raises next."""

    def __init__(self, clock: Clock | None = None, *, trash: bool = True) -> None:
        self._clock = clock or Clock()
        self._guard = threading.RLock()
        self._locks = LockTable(self._clock)
        self._feed = Feed()
        self._tree = Tree(self._clock.now_ms())
        self._trash = Trash(keeps=trash)
        self.contents = Contents()
        self.rpc = MemoryRpc()
        self.coherence = Coherence()
        self.coherence.keep_fresh(math.inf)
        self.calls: dict[str, int] = {}
        self.faults: dict[str, Exception] = {}
        self.free_bytes = CAPACITY_BYTES

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> MemoryFileSystem:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Reading the namespace

    def stat(self, path: Path) -> Entry:
        return self.lookup(path).entry

    def exists(self, path: Path) -> bool:
        try:
            self.stat(path)
        except errors.EntryNotFoundError:
            return False
        return True

    def lookup(
        self, path: Path, *, with_locations: bool = False, with_properties: bool = False, with_locks: bool = False
    ) -> EntryView:
        with self._call("lookup"):
            node = self._tree.find(path)
            return self._view(path, node, with_properties=with_properties, with_locks=with_locks)

    def list(
        self, path: Path, *, with_properties: bool = False, with_locks: bool = False, with_locations: bool = False
    ) -> tuple[EntryView, Iterator[EntryView]]:
        with self._call("list"):
            node = self._tree.find(path)
            if not node.is_directory:
                raise errors.WrongKindError(f"{format_path(path)} is a file")
            asked = {"with_properties": with_properties, "with_locks": with_locks, "with_extents": with_locations}
            views = [self._view((*path, name), child, **asked) for name, child in node.children.items()]
            return self._view(path, node, **asked), iter(views)

    def usage(self) -> Usage:
        with self._call("usage"):
            nodes = list(self._tree.root.walk())
            files = [node for node in nodes if not node.is_directory]
            size = sum(node.entry.size_bytes for node in files)
            return Usage(len(files), len(nodes) - len(files), size, CAPACITY_BYTES, self.free_bytes)

    def read_feed(
        self, after: Sequence, *, limit: int = 1000, wait_s: float = 0.0
    ) -> tuple[tuple[Change, ...], Sequence]:
        with self._call("read_feed"):
            return self._feed.after(after, limit), self._feed.last

    # Content

    def open(self, path: Path) -> MemoryReader:
        view = self.lookup(path, with_locations=True)
        if view.entry.is_directory:
            raise errors.WrongKindError(f"{format_path(path)} is a directory")
        return self.open_view(view)

    def open_view(self, view: EntryView) -> MemoryReader:
        return MemoryReader(view.entry, self.contents.of(view.entry))

    def create(
        self, path: Path, *, condition: Condition = ANY, size_bytes: int | None = None, modified_at_ms: int = 0
    ) -> MemoryWriter:
        return MemoryWriter(self, path, condition, size_bytes, modified_at_ms)

    def splice(
        self,
        path: Path,
        view: EntryView,
        parts: Iterable[Part],
        *,
        condition: Condition,
        modified_at_ms: int = 0,
        source: tuple[Path, EntryView] | None = None,
    ) -> MemorySplicer:
        assert condition.expect is Expect.EXACT, condition
        views = [view] if source is None else [view, source[1]]
        contents = [self.contents.of(each.entry) for each in views]
        planned = plan_splice([each.entry.extents for each in views], parts, DEFAULT_CHUNK_BYTES)
        writer = MemoryWriter(self, path, condition, None, modified_at_ms, planned)
        return MemorySplicer(writer, view.entry, contents, tuple(parts), source)

    def publish(
        self,
        path: Path,
        content: bytes,
        condition: Condition,
        modified_at_ms: int,
        planned: tuple[Planned, ...],
        sha256: bytes = b"",
    ) -> tuple[Entry, bool]:
        with self._call("commit"):
            parent, old = self._tree.target(path)
            if old is not None and old.is_directory:
                raise errors.WrongKindError(f"{format_path(path)} is a directory")
            check(old, condition)
            self._locks.check(path, condition, is_new=old is None)
            if old is None:
                node = self._add(parent, path[-1], Kind.FILE, modified_at_ms=modified_at_ms)
            else:
                node, now = old, self._clock.now_ms()
                node.entry = replace(old.entry, revision=self._feed.tick(), modified_at_ms=modified_at_ms or now)
            node.entry = replace(node.entry, size_bytes=len(content), sha256=sha256)
            self.contents.keep(node.entry, content)
            self.contents.lay_out(node.entry, planned)
            self._changed("commit", path, node)
            return node.entry, old is None

    def create_small(self, files: Many[SmallFile]) -> Many[Stored]:
        """One after the other, for what the real one does at once."""
        self._call("create_small")
        return [self._create_small(file) for file in files]

    def _create_small(self, file: SmallFile) -> Stored:
        planned = (Fresh(len(file.content)),)
        try:
            return self.publish(file.path, file.content, file.condition, file.modified_at_ms, planned, file.sha256)
        except errors.HeleniteError as error:
            return error

    # Mutations

    def make_directory(self, path: Path, *, condition: Condition = ANY, modified_at_ms: int = 0) -> Entry:
        with self._call("make_directory"):
            parent, old = self._tree.target(path)
            if old is not None:
                raise errors.EntryExistsError(f"{format_path(path)} exists")
            check(old, condition)
            self._locks.check(path, condition, is_new=True)
            node = self._add(parent, path[-1], Kind.DIRECTORY, modified_at_ms=modified_at_ms)
            self._changed("make_directory", path, node)
            return node.entry

    def remove(self, path: Path, *, condition: Condition = ANY) -> None:
        with self._call("remove"):
            if not path:
                raise errors.InvalidRequestError("the root cannot be removed")
            node = self._tree.find(path)
            check(node, condition)
            self._locks.check(path, condition, is_new=False, is_tree=True, is_member=True)
            self._feed.tick()
            self._discard(path, node, condition.principal)
            self._changed("remove", path, node)

    def move(
        self,
        source: Path,
        target: Path,
        *,
        overwrite: bool,
        condition: Condition = ANY,
        target_condition: Condition = ANY,
    ) -> tuple[Entry, bool]:
        with self._call("move"):
            node, parent, old = self._tree.source_and_target(source, target, overwrite, condition, target_condition)
            self._locks.check(source, condition, is_new=False, is_tree=True, is_member=True)
            self._locks.check(target, condition, is_new=old is None, is_tree=True)
            sequence = self._feed.tick()
            if old is not None:
                self._discard(target, old, condition.principal)
            self._locks.drop(source)
            del self._tree.parent(source).children[source[-1]]
            revision = sequence if node.is_directory else node.entry.revision
            node.entry = replace(node.entry, name=target[-1], revision=revision)
            parent.children[target[-1]] = node
            self._tree.touch(source[:-1], sequence)
            self._changed("move", target, node, source, replaced=old)
            return node.entry, old is None

    def copy(
        self,
        source: Path,
        target: Path,
        *,
        overwrite: bool,
        is_shallow: bool = False,
        condition: Condition = ANY,
        target_condition: Condition = ANY,
    ) -> tuple[Entry, bool]:
        with self._call("copy"):
            node, parent, old = self._tree.source_and_target(source, target, overwrite, condition, target_condition)
            self._locks.check(target, condition, is_new=old is None, is_tree=True)
            sequence = self._feed.tick()
            if old is not None:
                self._discard(target, old, condition.principal)
            made = parent.children[target[-1]] = self._duplicate(node, target[-1], sequence, is_shallow=is_shallow)
            self._changed("copy", target, made, source, replaced=old)
            return made.entry, old is None

    def set_properties(
        self,
        path: Path,
        *,
        set_values: dict[str, bytes] | None = None,
        remove: tuple[str, ...] = (),
        modified_at_ms: int = 0,
        created_at_ms: int = 0,
        condition: Condition = ANY,
    ) -> Entry:
        with self._call("set_properties"):
            node = self._tree.find(path)
            check(node, condition)
            self._locks.check(path, condition, is_new=False)
            sequence = self._feed.tick()
            node.properties.update(set_values or {})
            for name in remove:
                node.properties.pop(name, None)
            entry = node.entry
            node.entry = replace(
                entry,
                modified_at_ms=modified_at_ms or entry.modified_at_ms,
                created_at_ms=created_at_ms or entry.created_at_ms,
                revision=sequence if node.is_directory else entry.revision,
            )
            self._changed("set_properties", path, node)
            return node.entry

    def set_digest(self, path: Path, *, sha256: bytes, condition: Condition) -> Entry:
        with self._call("set_digest"):
            node = self._tree.find(path)
            check(node, condition)
            node.entry = replace(node.entry, sha256=node.entry.sha256 or sha256)
            self.coherence.touch(path)
            return node.entry

    # Locks

    def lock(
        self,
        path: Path,
        *,
        token: str,
        scope: LockScope,
        is_infinite: bool,
        owner: bytes,
        timeout_s: int,
        condition: Condition = ANY,
    ) -> tuple[Lock, Entry, bool]:
        with self._call("lock"):
            parent, node = self._tree.target(path) if path else (self._tree.root, self._tree.root)
            check(node, condition)
            self._locks.check_conflicts(path, scope, is_infinite=is_infinite)
            is_new = node is None
            if node is None:
                self._locks.check(path, condition, is_new=True)
                node = self._add(parent, path[-1], Kind.FILE)
                self.contents.keep(node.entry, b"")
                self._changed("commit", path, node)
            expires_at_ms = self._locks.expiry_ms(timeout_s)
            made = Lock(
                token, format_path(path), scope, is_infinite, owner, condition.principal, timeout_s, expires_at_ms
            )
            self._locks.add(made)
            return made, node.entry, is_new

    def refresh_lock(self, path: Path, *, token: str, timeout_s: int, principal: str) -> Lock:
        with self._call("refresh_lock"):
            self._tree.find(path)
            return self._locks.refresh(path, token, timeout_s, principal)

    def unlock(self, path: Path, *, token: str, principal: str) -> None:
        with self._call("unlock"):
            self._tree.find(path)
            self._locks.remove(path, token, principal)

    # Trash

    def list_trash(self, *, principal: str = "", limit: int = 1000) -> tuple[Trashed, ...]:
        with self._call("list_trash"):
            return self._trash.newest(principal, limit)

    def restore(self, trash_id: int, target: Path | None = None) -> Entry:
        with self._call("restore"):
            item, node = self._trash.find(trash_id)
            path = parse_path(item.path) if target is None else target
            parent, old = self._tree.target(path)
            if old is not None:
                raise errors.EntryExistsError(f"{format_path(path)} exists")
            self._trash.drop((trash_id,))
            self._feed.tick()
            node.entry = replace(node.entry, name=path[-1])
            parent.children[path[-1]] = node
            self._changed("restore_trashed", path, node)
            return node.entry

    def empty_trash(self, ids: tuple[int, ...] = ()) -> None:
        with self._call("empty_trash"):
            self._trash.drop(ids)

    # Inside

    def check(self, path: Path, condition: Condition) -> None:
        """PreconditionFailedError unless the entry is as demanded; for splices only."""
        check(self._tree.find(path), condition)

    def _call(self, verb: str) -> threading.RLock:
        self.calls[verb] = self.calls.get(verb, 0) + 1
        if (fault := self.faults.pop(verb, None)) is not None:
            raise fault
        return self._guard

    def _view(
        self, path: Path, node: Node, *, with_properties: bool, with_locks: bool, with_extents: bool = True
    ) -> EntryView:
        properties = dict(node.properties) if with_properties else {}
        locks = tuple(self._locks.covering(path)) if with_locks else ()
        extents = self.contents.extents(node.entry) if with_extents else ()
        return EntryView(replace(node.entry, extents=extents), (), properties, locks)

    def _add(self, parent: Node, name: str, kind: Kind, *, modified_at_ms: int = 0) -> Node:
        """A new entry, by a change of its own."""
        sequence, now = self._feed.tick(), self._clock.now_ms()
        entry = Entry(name, kind, self._tree.fresh_id(), sequence, 0, modified_at_ms or now, now)
        node = parent.children[name] = Node(entry)
        return node

    def _changed(
        self, verb: str, path: Path, node: Node, source: Path | None = None, *, replaced: Node | None = None
    ) -> None:
        self._tree.touch(path[:-1], self._feed.last)
        for changed in (path, source):
            if changed is not None:
                self.coherence.touch(changed)
        parent = self._tree.find(path[:-1]).entry.id
        gone = None if replaced is None else replaced.entry.kind
        self._feed.tell(verb, path, node.entry, parent, source=source, replaced=gone)

    def _duplicate(self, node: Node, name: str, sequence: Sequence, *, is_shallow: bool) -> Node:
        now = self._clock.now_ms()
        entry = replace(node.entry, name=name, id=self._tree.fresh_id(), revision=sequence, created_at_ms=now)
        made = Node(entry, properties=dict(node.properties))
        if not node.is_directory:
            self.contents.keep(entry, self.contents.of(node.entry))
        elif not is_shallow:
            made.children = {
                n: self._duplicate(child, n, sequence, is_shallow=False) for n, child in node.children.items()
            }
        return made

    def _discard(self, path: Path, node: Node, principal: str) -> None:
        """To the trash, with the locks on it gone."""
        del self._tree.parent(path).children[path[-1]]
        self._locks.drop(path)
        self._trash.add(self._feed.last, path, node, principal, self._clock.now_ms())
