"""The namespace as a tree of Python objects: what each mutation must do, said a second time and differently.

Locks are kept by path (RFC 4918 speaks of URLs), while the scripts keep them by id; so each checks the other.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from helenite.core import errors
from helenite.core.model import Condition, Expect, Extent, Kind, LockScope
from helenite.core.paths import Path, format_path, is_within
from helenite.master.mutations import (
    AcquireLock,
    Commit,
    Copy,
    EmptyTrash,
    MakeDirectory,
    Move,
    Mutation,
    RefreshLock,
    ReleaseLock,
    Remove,
    RestoreTrashed,
    SetDigest,
    SetProperties,
)


@dataclass
class Node:
    """An entry. `id` and `revision` are learnt from Redis (None until then)."""

    kind: Kind
    id: int | None = None
    revision: int | None = None
    extents: tuple[Extent, ...] = ()
    sha256: bytes = b""
    properties: dict[str, bytes] = field(default_factory=dict)
    children: dict[str, Node] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        return sum(extent.length for extent in self.extents)

    def totals(self) -> tuple[int, int, int]:
        """Files, directories and bytes beneath."""
        files = directories = size = 0
        for child in self.children.values():
            if child.kind is Kind.FILE:
                files, size = files + 1, size + child.size_bytes
            else:
                f, d, b = child.totals()
                files, directories, size = files + f, directories + d + 1, size + b
        return files, directories, size


@dataclass
class HeldLock:
    path: Path
    scope: LockScope
    is_infinite: bool
    principal: str

    def covers(self, path: Path) -> bool:
        return path == self.path or (self.is_infinite and is_within(path, self.path))


@dataclass
class Buried:
    path: Path
    node: Node
    id: int = 0  # told by whoever applied the removal


class Model:
    """A namespace that is nowhere but here. `apply` raises what the real one must answer."""

    def __init__(self) -> None:
        self.root = Node(Kind.DIRECTORY, 1)
        self.locks: dict[str, HeldLock] = {}
        self.trash: list[Buried] = []  # oldest first

    def find(self, path: Path) -> Node | None:
        node: Node | None = self.root
        for name in path:
            node = node.children.get(name) if node else None
        return node

    def apply(self, mutation: Mutation, revisions: dict[int, int]) -> tuple[str, Path, Path] | None:
        """Do it; the change that the feed must show (verb, path, source), None if it must show none.

        `revisions` are the present ones by id, for EXACT conditions.
        """
        self._revisions = revisions
        match mutation:
            case Commit() | MakeDirectory() | Remove() | SetProperties():
                return self._apply_to_entry(mutation)
            case Move() | Copy():
                return self._transfer(mutation)
            case AcquireLock():
                return self._acquire(mutation)
            case RefreshLock() | ReleaseLock():
                return self._change_lock(mutation)
            case RestoreTrashed():
                return self._restore(mutation)
            case SetDigest():
                return self._set_digest(mutation)
            case EmptyTrash():
                self.trash.clear()
                return None

    def _apply_to_entry(self, mutation: Commit | MakeDirectory | Remove | SetProperties) -> tuple[str, Path, Path]:
        path, condition = mutation.path, mutation.condition
        match mutation:
            case Commit():
                return self._commit(mutation)
            case MakeDirectory():
                self._parent(path)
                self._check(path, condition)
                if self.find(path):
                    raise errors.EntryExistsError
                self._require(path[:-1], condition)
                self._put(path, Node(Kind.DIRECTORY))
                return "make_directory", path, ()
            case Remove():
                return self._remove(path, condition)
            case SetProperties():
                self._check(path, condition)
                node = self._existing(path)
                self._require(path, condition)
                node.properties.update(mutation.set_values)
                for name in mutation.remove:
                    node.properties.pop(name, None)
                return "set_properties", path, ()

    def _change_lock(self, mutation: RefreshLock | ReleaseLock) -> None:
        self._existing(mutation.path)
        lock = self.locks.get(mutation.token)
        if lock is None or not lock.covers(mutation.path):
            raise errors.LockNotFoundError
        if lock.principal != mutation.principal:
            raise errors.PermissionDeniedError
        if isinstance(mutation, ReleaseLock):
            del self.locks[mutation.token]

    def _commit(self, mutation: Commit) -> tuple[str, Path, Path]:
        path, condition = mutation.path, mutation.condition
        if path:
            self._parent(path)
        self._check(path, condition)
        old = self.find(path)
        if old and old.kind is Kind.DIRECTORY:
            raise errors.WrongKindError
        self._require(path if old else path[:-1], condition)
        fresh = {location.handle for location in mutation.fresh}
        shared = {extent.handle for extent in mutation.extents} - fresh
        held = {extent.handle for extent in old.extents} if old and condition.expect is Expect.EXACT else set()
        if not shared <= held:
            raise errors.InvalidRequestError
        if old:
            old.extents, old.revision, old.sha256 = mutation.extents, None, mutation.sha256
        else:
            self._put(path, Node(Kind.FILE, extents=mutation.extents, sha256=mutation.sha256))
        return "commit", path, ()

    def _set_digest(self, mutation: SetDigest) -> None:
        """Not a change that anybody is told of."""
        self._check(mutation.path, mutation.condition)
        node = self._existing(mutation.path)
        if node.kind is Kind.DIRECTORY:
            raise errors.WrongKindError
        if mutation.condition.expect is not Expect.EXACT:
            raise errors.InvalidRequestError
        node.sha256 = node.sha256 or mutation.sha256

    def _remove(self, path: Path, condition: Condition) -> tuple[str, Path, Path]:
        self._check(path, condition)
        node = self._existing(path)
        if not path:
            raise errors.PermissionDeniedError
        self._require_tree(path, condition)
        self._require(path[:-1], condition)
        self._detach(path)
        self.trash.append(Buried(path, node))
        return "remove", path, ()

    def _transfer(self, mutation: Move | Copy) -> tuple[str, Path, Path]:
        source, target, condition = mutation.source, mutation.target, mutation.condition
        self._check(source, condition)
        node = self._existing(source)
        is_flat = isinstance(mutation, Copy) and (mutation.is_shallow or node.kind is Kind.FILE)
        if target == source or (is_within(target, source) and node.kind is Kind.DIRECTORY and not is_flat):
            raise errors.CycleError
        if is_within(source, target):
            raise errors.CycleError
        self._parent(target)
        self._check(target, mutation.target_condition)
        old = self.find(target)
        if old and not mutation.overwrite:
            raise errors.PreconditionFailedError
        if isinstance(mutation, Move):
            self._require_tree(source, condition)
            self._require(source[:-1], condition)
        self._require(target[:-1], condition)
        if old:
            self._require_tree(target, condition)
            self.trash.append(Buried(target, old))
            for token in [t for t, lock in self.locks.items() if is_within(lock.path, target) and lock.path != target]:
                del self.locks[token]
        if isinstance(mutation, Move):
            self._detach(source)
            self._put(target, node)
            return "move", target, source
        self._put(target, _copied(node, is_flat=is_flat))
        return "copy", target, source

    def _acquire(self, mutation: AcquireLock) -> tuple[str, Path, Path] | None:
        path, condition = mutation.path, mutation.condition
        if path:
            self._parent(path)
        self._check(path, condition)
        node = self.find(path)
        for lock in self.locks.values():
            is_beneath = mutation.is_infinite and is_within(lock.path, path)
            if (lock.covers(path) or is_beneath) and LockScope.EXCLUSIVE in {lock.scope, mutation.scope}:
                raise errors.LockedError
        if node is None:
            self._require(path[:-1], condition)
            self._put(path, Node(Kind.FILE))
        self.locks[mutation.token] = HeldLock(path, mutation.scope, mutation.is_infinite, condition.principal)
        return None if node else ("commit", path, ())

    def _restore(self, mutation: RestoreTrashed) -> tuple[str, Path, Path]:
        item = next((item for item in self.trash if item.id == mutation.id), None)
        if item is None:
            raise errors.EntryNotFoundError
        path = item.path if mutation.target is None else mutation.target
        if path:
            self._parent(path)
        if self.find(path):
            raise errors.EntryExistsError
        self._require(path[:-1], Condition())
        self.trash.remove(item)
        self._put(path, item.node)
        return "restore_trashed", path, ()

    def _parent(self, path: Path) -> Node:
        node = self.find(path[:-1]) if path else self.root
        if node is None or node.kind is Kind.FILE:
            raise errors.ParentNotFoundError
        return node

    def _existing(self, path: Path) -> Node:
        node = self.find(path)
        if node is None:
            raise errors.EntryNotFoundError
        return node

    def _put(self, path: Path, node: Node) -> None:
        self._parent(path).children[path[-1]] = node

    def _detach(self, path: Path) -> None:
        del self._parent(path).children[path[-1]]
        for token in [token for token, lock in self.locks.items() if is_within(lock.path, path)]:
            del self.locks[token]

    def _check(self, path: Path, condition: Condition) -> None:
        node = self.find(path)
        match condition.expect:
            case Expect.ANY:
                return
            case Expect.ABSENT:
                holds = node is None
            case Expect.PRESENT:
                holds = node is not None
            case Expect.EXACT:
                holds = node is not None and node.id is not None
                holds = holds and (node.id, self._revisions[node.id]) == (condition.id, condition.revision)
        if not holds:
            raise errors.PreconditionFailedError

    def _require(self, path: Path, condition: Condition) -> None:
        covering = {token: lock for token, lock in self.locks.items() if lock.covers(path)}
        submitted = [
            t for t, lock in covering.items() if t in condition.tokens and lock.principal == condition.principal
        ]
        if covering and not submitted:
            raise errors.LockedError(format_path(path))

    def _require_tree(self, path: Path, condition: Condition) -> None:
        self._require(path, condition)
        for lock in list(self.locks.values()):
            if is_within(lock.path, path):
                self._require(lock.path, condition)


def _copied(node: Node, *, is_flat: bool) -> Node:
    made = copy.deepcopy(node)
    _forget_ids(made)
    if is_flat:
        made.children.clear()
    return made


def _forget_ids(node: Node) -> None:
    node.id = node.revision = None
    for child in node.children.values():
        _forget_ids(child)
