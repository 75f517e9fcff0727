"""The metadata verbs: from a request message to a reply message, one round trip to Redis each.

The border between messages and values: everything that arrives is validated here. Decisions lie in the scripts and in
the allocator. Called by `namespace_service` and `call_port` from their threads; raises the errors of `core.errors`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Protocol

from helenite.core.errors import HeleniteError, InvalidRequestError, QuotaExceededError
from helenite.core.frames import capability_for
from helenite.core.model import Allocation, ChunkHandle, Condition, Expect, Extent, LockScope, Sequence, ServerId, Usage
from helenite.core.paths import Path, parse_path
from helenite.core.pb import common_pb2, master_pb2
from helenite.core.record import SHA256_BYTES, decode_extents, encode_record, extents_at
from helenite.core.wire import (
    change_to_message,
    condition_from_message,
    failure_to_message,
    location_from_message,
    lock_to_message,
    trashed_to_message,
    usage_to_message,
)
from helenite.master.mutations import (
    AcquireLock,
    Commit,
    Copy,
    EmptyTrash,
    MakeDirectory,
    Move,
    Mutation,
    Outcome,
    RefreshLock,
    ReleaseLock,
    Remove,
    RestoreTrashed,
    SetDigest,
    SetProperties,
)
from helenite.master.namespace import Namespace
from helenite.master.stored import StoredEntry

MUTATIONS_MAX = 1_000
"""In one call; a pipeline of this length takes Redis a tenth of a second."""
EXTENTS_MAX = 262_144
"""Of one file: 2 TiB at 8 MiB a chunk, 16 TiB at 64 MiB. Its record travels as one message of 4 MiB."""
HANDLES_MAX = 10_000
PROPERTY_BYTES_MAX = 64 * 1024
PROPERTIES_MAX = 200
"""Changed by one request."""
OWNER_BYTES_MAX = 16 * 1024
TOKEN_BYTES_MAX = 256
LOCK_TIMEOUT_S_MAX = 7 * 86_400
TIME_MS_MAX = 1 << 48
"""The year 10889; Lua counts exactly up to 2^53."""
OPERATION_ID_BYTES = 16
WAIT_MS_MAX = 60_000
_HANDLE = struct.Struct(">Q8x")


class Allocating(Protocol):
    """What hands out fresh chunks (`master.allocator`)."""

    lease_s: int
    chunk_bytes: int

    def allocate(self, count: int, exclude: frozenset[ServerId]) -> tuple[list[Allocation], int]: ...


class NamespaceVerbs:
    """Serves one namespace."""

    def __init__(self, namespace: Namespace, allocator: Allocating, usage: Callable[[], Usage]) -> None:
        self._namespace = namespace
        self._allocator = allocator
        self._usage = usage

    def lookup(self, request: master_pb2.LookupRequest) -> common_pb2.Entry:
        stored = self._namespace.lookup(
            parse_path(request.path),
            with_locations=request.with_locations,
            with_properties=request.with_properties,
            with_locks=request.with_locks,
        )
        return self._entry(stored)

    def list(self, request: master_pb2.ListRequest) -> master_pb2.ListReply:
        page = self._namespace.list_directory(
            parse_path(request.path),
            cursor=request.cursor,
            limit=request.limit,
            with_locations=request.with_locations,
            with_properties=request.with_properties,
            with_locks=request.with_locks,
        )
        return master_pb2.ListReply(
            directory=self._entry(page.directory),
            entries=map(self._entry, page.entries),
            cursor=page.cursor,
        )

    def locate(self, request: master_pb2.LocateRequest) -> master_pb2.LocateReply:
        _limit(len(request.handles), HANDLES_MAX, "chunks in one request")
        found = self._namespace.locate([ChunkHandle(handle) for handle in request.handles])
        locations = (
            common_pb2.Location(handle=handle, servers=servers, capability=self._capability(handle))
            for handle, servers in found
        )
        return master_pb2.LocateReply(locations=locations)

    def mutate(self, request: master_pb2.MutateRequest) -> master_pb2.MutateReply:
        """Refusals are outcomes; the call itself fails only when the store does not answer at all."""
        _limit(len(request.mutations), MUTATIONS_MAX, "mutations in one request")
        parsed = [_parse_mutation(message) for message in request.mutations]
        valid = [item for item in parsed if not isinstance(item, HeleniteError)]
        done = iter(self._namespace.mutate(valid))
        outcomes = [item if isinstance(item, HeleniteError) else next(done) for item in parsed]
        return master_pb2.MutateReply(outcomes=map(_outcome_to_message, outcomes))

    def read_feed(self, request: master_pb2.ReadFeedRequest) -> master_pb2.ReadFeedReply:
        wait_s = min(request.wait_ms, WAIT_MS_MAX) / 1000
        changes, last = self._namespace.read_feed(Sequence(request.after), request.limit or 1000, wait_s)
        return master_pb2.ReadFeedReply(changes=map(change_to_message, changes), last=last)

    def get_usage(self) -> master_pb2.Usage:
        return usage_to_message(self._usage())

    def allocate(self, request: master_pb2.AllocateRequest) -> master_pb2.AllocateReply:
        exclude = frozenset(map(ServerId, request.exclude))
        allocations, min_replicas = self._allocator.allocate(max(1, request.count), exclude)
        return master_pb2.AllocateReply(
            allocations=(
                common_pb2.Location(handle=a.handle, servers=a.servers, capability=a.capability) for a in allocations
            ),
            lease_s=self._allocator.lease_s,
            chunk_bytes=self._allocator.chunk_bytes,
            min_replicas=min_replicas,
        )

    def list_trash(self, request: master_pb2.ListTrashRequest) -> master_pb2.ListTrashReply:
        items = self._namespace.list_trash(request.principal, request.limit or 1000)
        return master_pb2.ListTrashReply(items=map(trashed_to_message, items))

    def _capability(self, handle: int) -> bytes:
        return capability_for(self._namespace.capability_key, ChunkHandle(handle))

    def _entry(self, stored: StoredEntry) -> common_pb2.Entry:
        """The record goes out as it is stored; only capabilities are added to it."""
        # Nearly all of a listing, and so made four times faster.
        if not (stored.replicas or stored.properties or stored.locks):
            return common_pb2.Entry(name=stored.name, record=stored.record)
        begin = extents_at(stored.record)
        located = memoryview(stored.record)[begin : begin + _HANDLE.size * len(stored.replicas)]
        return common_pb2.Entry(
            name=stored.name,
            record=stored.record,
            replicas=stored.replicas,
            capabilities=[self._capability(handle) for (handle,) in _HANDLE.iter_unpack(located)],
            properties=stored.properties,
            locks=map(lock_to_message, stored.locks),
        )


def _outcome_to_message(outcome: Outcome | HeleniteError) -> master_pb2.Outcome:
    if isinstance(outcome, HeleniteError):
        return master_pb2.Outcome(failure=failure_to_message(outcome))
    message = master_pb2.Outcome(created=outcome.is_created, sequence=outcome.sequence)
    if outcome.entry is not None:
        message.entry.name = outcome.entry.name
        message.entry.record = encode_record(outcome.entry)
    if outcome.lock is not None:
        message.entry.locks.append(lock_to_message(outcome.lock))
    return message


def _parse_mutation(message: master_pb2.Mutation) -> tuple[bytes, Mutation] | HeleniteError:
    """The mutation with its operation id, or why it makes no sense."""
    try:
        if len(message.operation_id) != OPERATION_ID_BYTES:
            raise InvalidRequestError(f"an operation id has {OPERATION_ID_BYTES} bytes")
        verb = message.WhichOneof("verb")
        if verb is None:
            raise InvalidRequestError("a mutation names a verb that this version does not know")
        return message.operation_id, _PARSERS[verb](message)
    except HeleniteError as error:
        return error


def _parse_commit(mutation: master_pb2.Mutation) -> Commit:
    message = mutation.commit
    _limit(len(message.extents) // 16, EXTENTS_MAX, "chunks in one file (use larger chunks)")
    extents = decode_extents(message.extents)
    if any(extent.length == 0 for extent in extents) or _length(extents) != message.size_bytes:
        raise InvalidRequestError(f"extents of {_length(extents)} bytes are no file of {message.size_bytes} bytes")
    fresh = tuple(map(location_from_message, message.fresh))
    if not all(location.servers for location in fresh):
        raise InvalidRequestError("a fresh chunk names the chunkservers that hold it")
    return Commit(
        parse_path(message.path),
        message.size_bytes,
        extents,
        fresh,
        _time(message.modified_at_ms),
        condition_from_message(message.condition),
        _sha256(message.sha256),
        *_parse_source(message),
    )


def _parse_source(message: master_pb2.Commit) -> tuple[Path | None, Condition]:
    """The other file whose chunks may be shared."""
    condition = condition_from_message(message.source_condition)
    if message.source and condition.expect is not Expect.EXACT:
        raise InvalidRequestError("chunks are shared with one revision of a file, not with whatever it has")
    return (parse_path(message.source), condition) if message.source else (None, condition)


def _parse_set_digest(mutation: master_pb2.Mutation) -> SetDigest:
    message = mutation.set_digest
    if not message.sha256:
        raise InvalidRequestError("a digest is told, not taken away: that happens with the content")
    return SetDigest(parse_path(message.path), _sha256(message.sha256), condition_from_message(message.condition))


def _parse_make_directory(mutation: master_pb2.Mutation) -> MakeDirectory:
    message = mutation.make_directory
    condition = condition_from_message(message.condition)
    return MakeDirectory(parse_path(message.path), _time(message.modified_at_ms), condition)


def _parse_remove(mutation: master_pb2.Mutation) -> Remove:
    return Remove(parse_path(mutation.remove.path), condition_from_message(mutation.remove.condition))


def _parse_move(mutation: master_pb2.Mutation) -> Move:
    message = mutation.move
    return Move(
        parse_path(message.source),
        parse_path(message.target),
        message.overwrite,
        condition_from_message(message.condition),
        condition_from_message(message.target_condition),
    )


def _parse_copy(mutation: master_pb2.Mutation) -> Copy:
    message = mutation.copy
    return Copy(
        parse_path(message.source),
        parse_path(message.target),
        message.overwrite,
        message.is_shallow,
        condition_from_message(message.condition),
        condition_from_message(message.target_condition),
    )


def _parse_set_properties(mutation: master_pb2.Mutation) -> SetProperties:
    message = mutation.set_properties
    _limit(len(message.set) + len(message.remove), PROPERTIES_MAX, "properties in one request")
    for name, value in message.set.items():
        _limit(len(value) + len(name), PROPERTY_BYTES_MAX, "bytes in one property")
    return SetProperties(
        parse_path(message.path),
        dict(message.set),
        tuple(message.remove),
        _time(message.modified_at_ms),
        _time(message.created_at_ms),
        condition_from_message(message.condition),
    )


def _parse_acquire_lock(mutation: master_pb2.Mutation) -> AcquireLock:
    message = mutation.acquire_lock
    if not message.token or message.scope not in set(LockScope):
        raise InvalidRequestError("a lock has a token and is exclusive or shared")
    _limit(len(message.token.encode()), TOKEN_BYTES_MAX, "bytes in a lock token")
    _limit(len(message.owner), OWNER_BYTES_MAX, "bytes in a lock's owner")
    return AcquireLock(
        parse_path(message.path),
        message.token,
        LockScope(message.scope),
        message.is_infinite,
        message.owner,
        _timeout(message.timeout_s),
        condition_from_message(message.condition),
    )


def _parse_refresh_lock(mutation: master_pb2.Mutation) -> RefreshLock:
    message = mutation.refresh_lock
    return RefreshLock(parse_path(message.path), message.token, _timeout(message.timeout_s), message.principal)


def _parse_release_lock(mutation: master_pb2.Mutation) -> ReleaseLock:
    message = mutation.release_lock
    return ReleaseLock(parse_path(message.path), message.token, message.principal)


def _parse_restore_trashed(mutation: master_pb2.Mutation) -> RestoreTrashed:
    message = mutation.restore_trashed
    target: Path | None = parse_path(message.target) if message.target else None
    return RestoreTrashed(message.id, target)


def _parse_empty_trash(mutation: master_pb2.Mutation) -> EmptyTrash:
    ids = tuple(mutation.empty_trash.ids)
    _limit(len(ids), HANDLES_MAX, "items in one request")
    return EmptyTrash(ids)


_PARSERS: dict[str, Callable[[master_pb2.Mutation], Mutation]] = {
    "commit": _parse_commit,
    "make_directory": _parse_make_directory,
    "remove": _parse_remove,
    "move": _parse_move,
    "copy": _parse_copy,
    "set_properties": _parse_set_properties,
    "set_digest": _parse_set_digest,
    "acquire_lock": _parse_acquire_lock,
    "refresh_lock": _parse_refresh_lock,
    "release_lock": _parse_release_lock,
    "restore_trashed": _parse_restore_trashed,
    "empty_trash": _parse_empty_trash,
}


def _length(extents: tuple[Extent, ...]) -> int:
    return sum(extent.length for extent in extents)


def _limit(count: int, maximum: int, what: str) -> None:
    if count > maximum:
        raise QuotaExceededError(f"at most {maximum:,} {what}, not {count:,}")


def _sha256(digest: bytes) -> bytes:
    if len(digest) not in {0, SHA256_BYTES}:
        raise InvalidRequestError(f"a SHA-256 has {SHA256_BYTES} bytes, not {len(digest)}")
    return digest


def _time(at_ms: int) -> int:
    if at_ms > TIME_MS_MAX:
        raise InvalidRequestError(f"{at_ms} ms after 1970 is no time of this world")
    return at_ms


def _timeout(timeout_s: int) -> int:
    """A lock lasts at least a second and at most a week."""
    return max(1, min(timeout_s, LOCK_TIMEOUT_S_MAX))
