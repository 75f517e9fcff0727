"""A FileSystem in memory: the public surface and semantics of `helenite.client.filesystem`, without a cluster.

For tests of what stands on the client (the gateway, the agent). `tests/contract` runs the same suites over this and
over the real one, so that the two cannot drift apart. Thread-safe: one lock guards everything.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Many
from dataclasses import dataclass, field, replace
from typing import Any

from helenite.client.chunking import (
    Fresh,
    Part,
    Planned,
    Repeated,
    Shared,
    find_run,
    plan_splice,
    resolve_splice,
)
from helenite.client.coherence import Coherence
from helenite.client.smallfiles import SmallFile, Stored
from helenite.core import errors
from helenite.core.clock import Clock
from helenite.core.model import (
    DEFAULT_CHUNK_BYTES,
    ROOT_ID,
    Change,
    ChunkHandle,
    Condition,
    Entry,
    EntryId,
    EntryView,
    Expect,
    Extent,
    Kind,
    Lock,
    LockScope,
    Sequence,
    Trashed,
    Usage,
)
from helenite.core.paths import Path, format_path, is_within, parse_path
from helenite.core.pb import master_pb2
from tests.support.memory_content import MemoryReader, MemorySplicer, MemoryWriter
from tests.support.memory_locks import LockTable

ANY = Condition()
CAPACITY_BYTES = 1 << 40


@dataclass
class Node:
    entry: Entry
    content: bytes = b""
    children: dict[str, Node] = field(default_factory=dict)
    properties: dict[str, bytes] = field(default_factory=dict)

    @property
    def is_directory(self) -> bool:
        return self.entry.kind is Kind.DIRECTORY


class MemoryRpc:
    """The verbs of the master's other services that a gateway calls."""

    def __init__(self) -> None:
        self.users: dict[str, str] = {}
        self.announced: list[Any] = []

    def admin(self, verb: str, request: Any, deadline_s: float | None = None) -> Any:
        match verb:
            case "GetUser":
                if request.name not in self.users:
                    raise errors.EntryNotFoundError(f"there is no user {request.name!r}")
                return master_pb2.User(name=request.name, password_hash=self.users[request.name])
            case "ListUsers":
                return master_pb2.UsersReply(users=[master_pb2.User(name=name) for name in self.users])
            case "GetStatus":
                return master_pb2.StatusReply(cluster_id="memory")
        raise AssertionError(verb)

    def cluster(self, verb: str, request: Any, deadline_s: float | None = None) -> Any:
        assert verb == "Announce", verb
        self.announced.append(request)
        return master_pb2.ServersReply()


class MemoryFileSystem:
    """The whole cluster in a dict. `calls` counts round trips by verb; `faults` maps a verb to what it raises next."""

    def __init__(self, clock: Clock | None = None, *, trash: bool = True) -> None:
        self._clock = clock or Clock()
        self._guard = threading.RLock()
        self._sequence = 0
        self._next_id = ROOT_ID + 1
        self._locks = LockTable(self._clock)
        self._feed: list[Change] = []
        self._trash: dict[int, tuple[Trashed, Node]] = {}
        self._keeps_trash = trash
        now = self._clock.now_ms()
        self._root = Node(Entry("", Kind.DIRECTORY, ROOT_ID, Sequence(0), 0, now, now))
        self.rpc = MemoryRpc()
        self.coherence = Coherence()
        self.coherence.keep_fresh(math.inf)
        self._extents: dict[tuple[EntryId, Sequence], tuple[Extent, ...]] = {}
        self._handles = itertools.count(1)
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
            node = self._node(path)
            return self._view(path, node, with_properties=with_properties, with_locks=with_locks)

    def list(
        self, path: Path, *, with_properties: bool = False, with_locks: bool = False, with_locations: bool = False
    ) -> tuple[EntryView, Iterator[EntryView]]:
        with self._call("list"):
            node = self._node(path)
            if not node.is_directory:
                raise errors.WrongKindError(f"{format_path(path)} is a file")
            asked = {"with_properties": with_properties, "with_locks": with_locks, "with_extents": with_locations}
            views = [self._view((*path, name), child, **asked) for name, child in node.children.items()]
            return self._view(path, node, **asked), iter(views)

    def usage(self) -> Usage:
        with self._call("usage"):
            nodes = list(_walk(self._root))
            files = [node for node in nodes if not node.is_directory]
            size = sum(len(node.content) for node in files)
            return Usage(len(files), len(nodes) - len(files), size, CAPACITY_BYTES, self.free_bytes)

    def read_feed(
        self, after: Sequence, *, limit: int = 1000, wait_s: float = 0.0
    ) -> tuple[tuple[Change, ...], Sequence]:
        with self._call("read_feed"):
            return tuple(c for c in self._feed if c.sequence > after)[:limit], Sequence(self._sequence)

    # Content

    def open(self, path: Path) -> MemoryReader:
        view = self.lookup(path, with_locations=True)
        if view.entry.is_directory:
            raise errors.WrongKindError(f"{format_path(path)} is a directory")
        return self.open_view(view)

    def open_view(self, view: EntryView) -> MemoryReader:
        # A view pins its revision; the fake keeps no old ones, so it remembers the content of each.
        return MemoryReader(view.entry, self._contents[view.entry.id, view.entry.revision])

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
        contents = [self._contents[each.entry.id, each.entry.revision] for each in views]
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
            parent, old = self._target(path)
            if old is not None and old.is_directory:
                raise errors.WrongKindError(f"{format_path(path)} is a directory")
            _check(old, condition)
            self._locks.check(path, condition, is_new=old is None)
            sequence, now = self._tick(), self._clock.now_ms()
            if old is None:
                entry = Entry(path[-1], Kind.FILE, self._fresh_id(), sequence, len(content), modified_at_ms or now, now)
                node = parent.children[path[-1]] = Node(replace(entry, sha256=sha256))
            else:
                node = old
                modified = modified_at_ms or now
                node.entry = replace(
                    old.entry, revision=sequence, size_bytes=len(content), modified_at_ms=modified, sha256=sha256
                )
            self._set_content(node, content)
            self._set_extents(node.entry, planned)
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
            parent, old = self._target(path)
            if old is not None:
                raise errors.EntryExistsError(f"{format_path(path)} exists")
            _check(old, condition)
            self._locks.check(path, condition, is_new=True)
            sequence, now = self._tick(), self._clock.now_ms()
            entry = Entry(path[-1], Kind.DIRECTORY, self._fresh_id(), sequence, 0, modified_at_ms or now, now)
            node = parent.children[path[-1]] = Node(entry)
            self._changed("make_directory", path, node)
            return node.entry

    def remove(self, path: Path, *, condition: Condition = ANY) -> None:
        with self._call("remove"):
            if not path:
                raise errors.InvalidRequestError("the root cannot be removed")
            node = self._node(path)
            _check(node, condition)
            self._locks.check(path, condition, is_new=False, is_tree=True, is_member=True)
            self._tick()
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
            node, parent, old = self._source_and_target(source, target, overwrite, condition, target_condition)
            self._locks.check(source, condition, is_new=False, is_tree=True, is_member=True)
            self._locks.check(target, condition, is_new=old is None, is_tree=True)
            sequence = self._tick()
            if old is not None:
                self._discard(target, old, condition.principal)
            self._locks.drop(source)
            del self._parent(source).children[source[-1]]
            revision = sequence if node.is_directory else node.entry.revision
            node.entry = replace(node.entry, name=target[-1], revision=revision)
            parent.children[target[-1]] = node
            self._touch(source[:-1], sequence)
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
            node, parent, old = self._source_and_target(source, target, overwrite, condition, target_condition)
            self._locks.check(target, condition, is_new=old is None, is_tree=True)
            sequence = self._tick()
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
            node = self._node(path)
            _check(node, condition)
            self._locks.check(path, condition, is_new=False)
            sequence = self._tick()
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
            node = self._node(path)
            _check(node, condition)
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
            parent, node = self._target(path) if path else (self._root, self._root)
            _check(node, condition)
            self._locks.check_conflicts(path, scope, is_infinite=is_infinite)
            is_new = node is None
            if node is None:
                self._locks.check(path, condition, is_new=True)
                sequence, now = self._tick(), self._clock.now_ms()
                node = parent.children[path[-1]] = Node(
                    Entry(path[-1], Kind.FILE, self._fresh_id(), sequence, 0, now, now)
                )
                self._set_content(node, b"")
                self._changed("commit", path, node)
            expires_at_ms = self._locks.expiry_ms(timeout_s)
            made = Lock(
                token, format_path(path), scope, is_infinite, owner, condition.principal, timeout_s, expires_at_ms
            )
            self._locks.add(made)
            return made, node.entry, is_new

    def refresh_lock(self, path: Path, *, token: str, timeout_s: int, principal: str) -> Lock:
        with self._call("refresh_lock"):
            self._node(path)
            return self._locks.refresh(path, token, timeout_s, principal)

    def unlock(self, path: Path, *, token: str, principal: str) -> None:
        with self._call("unlock"):
            self._node(path)
            self._locks.remove(path, token, principal)

    # Trash

    def list_trash(self, *, principal: str = "", limit: int = 1000) -> tuple[Trashed, ...]:
        with self._call("list_trash"):
            items = [item for item, _ in self._trash.values() if principal in {"", item.principal}]
            return tuple(sorted(items, key=lambda item: -item.id)[:limit])

    def restore(self, trash_id: int, target: Path | None = None) -> Entry:
        with self._call("restore"):
            if trash_id not in self._trash:
                raise errors.EntryNotFoundError(f"the trash has no item {trash_id}")
            item, node = self._trash[trash_id]
            path = parse_path(item.path) if target is None else target
            parent, old = self._target(path)
            if old is not None:
                raise errors.EntryExistsError(f"{format_path(path)} exists")
            del self._trash[trash_id]
            self._tick()
            node.entry = replace(node.entry, name=path[-1])
            parent.children[path[-1]] = node
            self._changed("restore_trashed", path, node)
            return node.entry

    def empty_trash(self, ids: tuple[int, ...] = ()) -> None:
        with self._call("empty_trash"):
            for trash_id in ids or tuple(self._trash):
                self._trash.pop(trash_id, None)

    # Inside

    def check(self, path: Path, condition: Condition) -> None:
        """PreconditionFailedError unless the entry is as demanded; for splices only."""
        _check(self._node(path), condition)

    @property
    def _contents(self) -> dict[tuple[EntryId, Sequence], bytes]:
        return self.__dict__.setdefault("_content_table", {})

    def _call(self, verb: str) -> threading.RLock:
        self.calls[verb] = self.calls.get(verb, 0) + 1
        if (fault := self.faults.pop(verb, None)) is not None:
            raise fault
        return self._guard

    def _node(self, path: Path) -> Node:
        node = self._root
        for name in path:
            child = node.children.get(name)
            if child is None:
                raise errors.EntryNotFoundError(f"there is no {format_path(path)}")
            node = child
        return node

    def _parent(self, path: Path) -> Node:
        if not path:
            raise errors.InvalidRequestError("the root has no parent")
        try:
            parent = self._node(path[:-1])
        except errors.EntryNotFoundError as error:
            raise errors.ParentNotFoundError(f"{format_path(path)} has no parent") from error
        if not parent.is_directory:
            raise errors.ParentNotFoundError(f"{format_path(path[:-1])} is a file")
        return parent

    def _target(self, path: Path) -> tuple[Node, Node | None]:
        parent = self._parent(path)
        return parent, parent.children.get(path[-1])

    def _source_and_target(
        self, source: Path, target: Path, overwrite: bool, condition: Condition, target_condition: Condition
    ) -> tuple[Node, Node, Node | None]:
        node = self._node(source)
        if is_within(target, source) or is_within(source, target):
            raise errors.CycleError("the source and the target contain each other")
        parent, old = self._target(target)
        _check(node, condition)
        _check(old, target_condition)
        if old is not None and not overwrite:
            raise errors.PreconditionFailedError(f"{format_path(target)} exists")
        return node, parent, old

    def _view(
        self, path: Path, node: Node, *, with_properties: bool, with_locks: bool, with_extents: bool = True
    ) -> EntryView:
        properties = dict(node.properties) if with_properties else {}
        locks = tuple(self._locks.covering(path)) if with_locks else ()
        extents = self._extents.get((node.entry.id, node.entry.revision), ()) if with_extents else ()
        return EntryView(replace(node.entry, extents=extents), (), properties, locks)

    def _tick(self) -> Sequence:
        self._sequence += 1
        return Sequence(self._sequence)

    def _fresh_id(self) -> EntryId:
        self._next_id += 1
        return EntryId(self._next_id - 1)

    def _set_content(self, node: Node, content: bytes) -> None:
        node.content = content
        self._contents[node.entry.id, node.entry.revision] = content

    def _set_extents(self, entry: Entry, planned: tuple[Planned, ...]) -> None:
        """As a writer would: what is not shared in chunks of its own."""
        written = find_run(planned) + sum(part.length for part in planned if not isinstance(part, Shared | Repeated))
        chunks = tuple(
            Extent(ChunkHandle(next(self._handles)), 0, min(DEFAULT_CHUNK_BYTES, written - at))
            for at in range(0, written, DEFAULT_CHUNK_BYTES)
        )
        self._extents[entry.id, entry.revision] = resolve_splice(planned, chunks)

    def _touch(self, path: Path, sequence: Sequence) -> None:
        for depth in range(len(path) + 1):
            try:
                node = self._node(path[:depth])
            except errors.EntryNotFoundError:
                return
            node.entry = replace(node.entry, revision=sequence)

    def _changed(
        self, verb: str, path: Path, node: Node, source: Path | None = None, *, replaced: Node | None = None
    ) -> None:
        sequence = Sequence(self._sequence)
        self._touch(path[:-1], sequence)
        for changed in (path, source):
            if changed is not None:
                self.coherence.touch(changed)
        came_from = "" if source is None else format_path(source)
        parent = self._node(path[:-1]).entry.id
        gone = None if replaced is None else replaced.entry.kind
        self._feed.append(
            Change(sequence, verb, format_path(path), came_from, node.entry.id, node.entry.kind, (parent,), gone)
        )

    def _duplicate(self, node: Node, name: str, sequence: Sequence, *, is_shallow: bool) -> Node:
        now = self._clock.now_ms()
        entry = replace(node.entry, name=name, id=self._fresh_id(), revision=sequence, created_at_ms=now)
        made = Node(entry, properties=dict(node.properties))
        if not node.is_directory:
            self._set_content(made, node.content)
        elif not is_shallow:
            made.children = {
                n: self._duplicate(child, n, sequence, is_shallow=False) for n, child in node.children.items()
            }
        return made

    def _discard(self, path: Path, node: Node, principal: str) -> None:
        del self._parent(path).children[path[-1]]
        self._locks.drop(path)
        if self._keeps_trash:
            size = sum(len(n.content) for n in _walk(node))
            now = self._clock.now_ms()
            trash_id = len(self._feed) + 1
            self._trash[trash_id] = (
                Trashed(trash_id, format_path(path), node.entry.kind, size, principal, now),
                node,
            )


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children.values():
        yield from _walk(child)


def _check(node: Node | None, condition: Condition) -> None:
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
