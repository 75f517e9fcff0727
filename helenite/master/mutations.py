"""What can be asked of the namespace, as values, and the request that a script takes for each. Pure.

Made by `namespace_verbs` from messages, run by `namespace`. Paths and sizes have been validated before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from helenite.core.model import Condition, Entry, Extent, Location, Lock, LockScope, Sequence
from helenite.core.paths import Path
from helenite.core.record import encode_extents
from helenite.core.wire import pack_servers

ANY = Condition()


@dataclass(frozen=True, slots=True)
class Commit:
    """Create a file or swap its record.

    Extents of chunks that are not `fresh` are shared with the revision that an EXACT condition demands, or with the one
    that `source_condition` demands of another file. `modified_at_ms` 0 = now. `sha256` of the content, if it is known.
    """

    path: Path
    size_bytes: int
    extents: tuple[Extent, ...]
    fresh: tuple[Location, ...]
    modified_at_ms: int = 0
    condition: Condition = ANY
    sha256: bytes = b""
    source: Path | None = None
    source_condition: Condition = ANY


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """A new, empty directory."""

    path: Path
    modified_at_ms: int = 0
    condition: Condition = ANY


@dataclass(frozen=True, slots=True)
class Remove:
    """Into the trash, with everything beneath."""

    path: Path
    condition: Condition = ANY


@dataclass(frozen=True, slots=True)
class Move:
    """Rename; `condition` is on the source, its tokens and principal count for both ends."""

    source: Path
    target: Path
    overwrite: bool
    condition: Condition = ANY
    target_condition: Condition = ANY


@dataclass(frozen=True, slots=True)
class Copy:
    """A second entry that shares the content; `is_shallow` leaves a directory's members out."""

    source: Path
    target: Path
    overwrite: bool
    is_shallow: bool = False
    condition: Condition = ANY
    target_condition: Condition = ANY


@dataclass(frozen=True, slots=True)
class SetProperties:
    """Dead properties and times; 0 = leave the time as it is."""

    path: Path
    set_values: dict[str, bytes] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    modified_at_ms: int = 0
    created_at_ms: int = 0
    condition: Condition = ANY


@dataclass(frozen=True, slots=True)
class SetDigest:
    """Note what the content of the very revision that an EXACT condition names hashes to; it changes nothing else."""

    path: Path
    sha256: bytes
    condition: Condition


@dataclass(frozen=True, slots=True)
class AcquireLock:
    """Take a lock under a fresh token for the condition's principal; a free name becomes an empty file."""

    path: Path
    token: str
    scope: LockScope
    is_infinite: bool
    owner: bytes
    timeout_s: int
    condition: Condition = ANY


@dataclass(frozen=True, slots=True)
class RefreshLock:
    """Prolong a lock that covers the path."""

    path: Path
    token: str
    timeout_s: int
    principal: str = ""


@dataclass(frozen=True, slots=True)
class ReleaseLock:
    """End a lock that covers the path."""

    path: Path
    token: str
    principal: str = ""


@dataclass(frozen=True, slots=True)
class RestoreTrashed:
    """Put an item of the trash back, where it was or at `target`."""

    id: int
    target: Path | None = None


@dataclass(frozen=True, slots=True)
class EmptyTrash:
    """Free items of the trash for good; none named = all."""

    ids: tuple[int, ...] = ()


Mutation = (
    Commit
    | MakeDirectory
    | Remove
    | Move
    | Copy
    | SetProperties
    | SetDigest
    | AcquireLock
    | RefreshLock
    | ReleaseLock
    | RestoreTrashed
    | EmptyTrash
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a mutation did: the target as it is now (of Remove: as it was), and the space's sequence.

    The entry is None for EmptyTrash. Its extents may be left out (`record.decode_record`). `lock` is set for
    AcquireLock and RefreshLock.
    """

    entry: Entry | None
    is_created: bool
    sequence: Sequence
    lock: Lock | None = None


def encode_path(path: Path) -> list[bytes]:
    return [name.encode() for name in path]


def script_call(mutation: Mutation, operation_id: bytes, *, has_trash: bool) -> tuple[str, dict[str, Any]]:
    """The script that carries a mutation out, and its request."""
    script, request = _request(mutation)
    return script, {**request, "operation": operation_id, "has_trash": has_trash}


def _request(mutation: Mutation) -> tuple[str, dict[str, Any]]:
    match mutation:
        case Commit() | MakeDirectory() | Remove() | SetProperties() | SetDigest():
            return _entry_request(mutation)
        case Move() | Copy():
            return _pair_request(mutation)
        case AcquireLock() | RefreshLock() | ReleaseLock():
            return _lock_request(mutation)
        case RestoreTrashed(id=item, target=target):
            names = None if target is None else encode_path(target)
            return "restore_trashed", {"id": item, "names": names, "condition": _condition(ANY)}
        case EmptyTrash(ids=ids):
            return "empty_trash", {"ids": ids}


def _entry_request(mutation: Commit | MakeDirectory | Remove | SetProperties | SetDigest) -> tuple[str, dict[str, Any]]:
    request: dict[str, Any] = {"names": encode_path(mutation.path), "condition": _condition(mutation.condition)}
    match mutation:
        case Commit():
            request["size_bytes"] = mutation.size_bytes
            request["extents"] = encode_extents(mutation.extents)
            request["fresh"] = [(chunk.handle, pack_servers(chunk.servers)) for chunk in mutation.fresh]
            request["modified_at_ms"] = mutation.modified_at_ms
            request["sha256"] = mutation.sha256
            if mutation.source is not None:
                request["source"] = encode_path(mutation.source)
                request["source_condition"] = _condition(mutation.source_condition)
            return "commit", request
        case SetDigest():
            request["sha256"] = mutation.sha256
            return "set_digest", request
        case MakeDirectory():
            request["modified_at_ms"] = mutation.modified_at_ms
            return "make_directory", request
        case Remove():
            return "remove", request
        case SetProperties():
            request["set"] = [part for name, value in mutation.set_values.items() for part in (name.encode(), value)]
            request["remove"] = [name.encode() for name in mutation.remove]
            request["modified_at_ms"] = mutation.modified_at_ms
            request["created_at_ms"] = mutation.created_at_ms
            return "set_properties", request


def _pair_request(mutation: Move | Copy) -> tuple[str, dict[str, Any]]:
    request = {
        "source": encode_path(mutation.source),
        "target": encode_path(mutation.target),
        "overwrite": mutation.overwrite,
        "condition": _condition(mutation.condition),
        "target_condition": _condition(mutation.target_condition),
    }
    if isinstance(mutation, Move):
        return "move", request
    return "copy", {**request, "is_shallow": mutation.is_shallow}


def _lock_request(mutation: AcquireLock | RefreshLock | ReleaseLock) -> tuple[str, dict[str, Any]]:
    request: dict[str, Any] = {"names": encode_path(mutation.path), "token": mutation.token}
    match mutation:
        case AcquireLock():
            request["scope"] = mutation.scope.value
            request["is_infinite"] = mutation.is_infinite
            request["owner"] = mutation.owner
            request["timeout_s"] = mutation.timeout_s
            request["condition"] = _condition(mutation.condition)
            return "acquire_lock", request
        case RefreshLock():
            return "change_lock", {**request, "timeout_s": mutation.timeout_s, "principal": mutation.principal}
        case ReleaseLock():
            return "change_lock", {**request, "timeout_s": 0, "principal": mutation.principal}


def _condition(condition: Condition) -> dict[str, Any]:
    return {
        "expect": condition.expect.value,
        "id": condition.id,
        "revision": condition.revision,
        "tokens": condition.tokens,
        "principal": condition.principal,
    }
