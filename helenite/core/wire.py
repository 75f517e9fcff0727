"""Values to messages and back, errors to gRPC statuses and back: the border where generated code stops.

Used by the services and by `client/rpc`. Whatever arrives is validated here; behind it live the values of
`core.model`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import cast

import grpc

from helenite.core import errors
from helenite.core.errors import (
    DeadlineExceededError,
    HeleniteError,
    InvalidRequestError,
    UnavailableError,
    error_from_code,
)
from helenite.core.model import (
    Allocation,
    Change,
    ChunkHandle,
    Chunkserver,
    Condition,
    Entry,
    EntryId,
    EntryView,
    Expect,
    Kind,
    Location,
    Lock,
    LockScope,
    Sequence,
    ServerId,
    ServerState,
    Trashed,
    Usage,
)
from helenite.core.pb import common_pb2, master_pb2
from helenite.core.record import decode_record

ERROR_KEY = "helenite-error"
"""Trailing metadata key that carries the error's code; the status carries the message."""

_STATUS: dict[type[HeleniteError], grpc.StatusCode] = {
    errors.InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ProtocolError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.EntryNotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.ChunkNotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.LockNotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.EntryExistsError: grpc.StatusCode.ALREADY_EXISTS,
    errors.ChunkExistsError: grpc.StatusCode.ALREADY_EXISTS,
    errors.ParentNotFoundError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.WrongKindError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.CycleError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.PreconditionFailedError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.LockedError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.StaleEpochError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ForeignClusterError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ConfigurationError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    errors.BadCapabilityError: grpc.StatusCode.PERMISSION_DENIED,
    errors.QuotaExceededError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.InsufficientStorageError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceededError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.UploadExpiredError: grpc.StatusCode.OUT_OF_RANGE,
    errors.SequenceExpiredError: grpc.StatusCode.OUT_OF_RANGE,
    errors.ChunkCorruptError: grpc.StatusCode.DATA_LOSS,
    errors.ContentLostError: grpc.StatusCode.DATA_LOSS,
    errors.HeleniteError: grpc.StatusCode.INTERNAL,
}


def status_of(error: HeleniteError) -> grpc.StatusCode:
    """The gRPC status of an error, that of its nearest listed base class."""
    return next(_STATUS[cls] for cls in type(error).__mro__ if cls in _STATUS)


@contextmanager
def errors_as_status(context: grpc.ServicerContext) -> Iterator[None]:
    """End the RPC with the status of a HeleniteError raised inside."""
    try:
        yield
    except HeleniteError as error:
        context.set_trailing_metadata(((ERROR_KEY, error.code),))
        context.abort(status_of(error), str(error))


def error_from_rpc(error: grpc.RpcError, peer: str) -> HeleniteError:
    """The error that the server raised, or what the transport's failure means for the caller."""
    call = cast("grpc.Call", error)  # grpcio raises objects that are both
    for key, value in call.trailing_metadata() or ():
        if key == ERROR_KEY:
            return error_from_code(str(value), call.details() or "")
    if call.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceededError(f"{peer} did not answer in time")
    if call.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED}:
        return UnavailableError(f"{peer} cannot be reached: {call.details()}")
    return HeleniteError(f"{peer} failed: {call.code().name} {call.details()}")


def failure_to_message(error: HeleniteError) -> common_pb2.Failure:
    return common_pb2.Failure(code=error.code, message=str(error))


def failure_from_message(message: common_pb2.Failure) -> HeleniteError:
    return error_from_code(message.code, message.message)


def location_to_message(location: Location | Allocation) -> common_pb2.Location:
    return common_pb2.Location(handle=location.handle, servers=location.servers, capability=location.capability)


def location_from_message(message: common_pb2.Location) -> Location:
    return Location(ChunkHandle(message.handle), tuple(map(ServerId, message.servers)), message.capability)


def allocation_from_message(message: common_pb2.Location) -> Allocation:
    return Allocation(ChunkHandle(message.handle), tuple(map(ServerId, message.servers)), message.capability)


def lock_to_message(lock: Lock) -> common_pb2.Lock:
    return common_pb2.Lock(
        token=lock.token,
        path=lock.path,
        scope=lock.scope,
        is_infinite=lock.is_infinite,
        owner=lock.owner,
        principal=lock.principal,
        timeout_s=lock.timeout_s,
        expires_at_ms=lock.expires_at_ms,
    )


def lock_from_message(m: common_pb2.Lock) -> Lock:
    return Lock(m.token, m.path, LockScope(m.scope), m.is_infinite, m.owner, m.principal, m.timeout_s, m.expires_at_ms)


def pack_servers(servers: Iterable[ServerId]) -> bytes:
    """Packed u16 ids, as the chunk table stores them."""
    return b"".join(server.to_bytes(2, "big") for server in servers)


def unpack_servers(packed: bytes) -> tuple[ServerId, ...]:
    return tuple(ServerId(int.from_bytes(packed[at : at + 2], "big")) for at in range(0, len(packed), 2))


def view_from_message(message: common_pb2.Entry) -> EntryView:
    entry = decode_record(message.name, message.record)
    if not (message.replicas or message.properties or message.locks):  # nearly all of a listing
        return EntryView(entry)
    located = zip(entry.extents, message.replicas, message.capabilities, strict=False)
    locations = tuple(
        Location(extent.handle, unpack_servers(servers), capability) for extent, servers, capability in located
    )
    return EntryView(entry, locations, dict(message.properties), tuple(map(lock_from_message, message.locks)))


def entry_from_message(message: common_pb2.Entry) -> Entry:
    return decode_record(message.name, message.record)


def condition_to_message(condition: Condition) -> master_pb2.Condition:
    return master_pb2.Condition(
        expect=condition.expect,
        id=condition.id,
        revision=condition.revision,
        tokens=condition.tokens,
        principal=condition.principal,
    )


def condition_from_message(message: master_pb2.Condition) -> Condition:
    try:
        expect = Expect(message.expect or "any")
    except ValueError:
        raise InvalidRequestError(f"unknown expectation {message.expect!r}") from None
    return Condition(expect, EntryId(message.id), Sequence(message.revision), tuple(message.tokens), message.principal)


def chunkserver_to_message(server: Chunkserver) -> common_pb2.Chunkserver:
    return common_pb2.Chunkserver(
        id=server.id,
        uuid=server.uuid,
        address=server.address,
        data_address=server.data_address,
        data_socket=server.data_socket,
        host=server.host,
        rack=server.rack,
        pid=server.pid,
        state=server.state,
        capacity_bytes=server.capacity_bytes,
        free_bytes=server.free_bytes,
        used_bytes=server.used_bytes,
        chunk_count=server.chunk_count,
    )


def chunkserver_from_message(m: common_pb2.Chunkserver) -> Chunkserver:
    try:
        state = ServerState(m.state or "alive")
    except ValueError:
        raise InvalidRequestError(f"unknown state {m.state!r} of a chunkserver") from None
    return Chunkserver(
        id=ServerId(m.id),
        uuid=m.uuid,
        address=m.address,
        data_address=m.data_address,
        data_socket=m.data_socket,
        host=m.host,
        rack=m.rack,
        pid=m.pid,
        state=state,
        capacity_bytes=m.capacity_bytes,
        free_bytes=m.free_bytes,
        used_bytes=m.used_bytes,
        chunk_count=m.chunk_count,
    )


def usage_to_message(usage: Usage) -> master_pb2.Usage:
    return master_pb2.Usage(
        file_count=usage.file_count,
        directory_count=usage.directory_count,
        file_bytes=usage.file_bytes,
        capacity_bytes=usage.capacity_bytes,
        free_bytes=usage.free_bytes,
    )


def usage_from_message(m: master_pb2.Usage) -> Usage:
    return Usage(m.file_count, m.directory_count, m.file_bytes, m.capacity_bytes, m.free_bytes)


def change_to_message(change: Change) -> master_pb2.Change:
    return master_pb2.Change(
        sequence=change.sequence,
        verb=change.verb,
        path=change.path,
        source=change.source,
        id=change.id,
        kind=change.kind,
        parents=change.parents,
        replaced=change.replaced or "",
    )


def change_from_message(m: master_pb2.Change) -> Change:
    parents = tuple(map(EntryId, m.parents))
    replaced = Kind(m.replaced) if m.replaced else None
    return Change(Sequence(m.sequence), m.verb, m.path, m.source, EntryId(m.id), Kind(m.kind), parents, replaced)


def trashed_to_message(item: Trashed) -> master_pb2.Trashed:
    return master_pb2.Trashed(
        id=item.id,
        path=item.path,
        kind=item.kind,
        size_bytes=item.size_bytes,
        principal=item.principal,
        deleted_at_ms=item.deleted_at_ms,
    )


def trashed_from_message(m: master_pb2.Trashed) -> Trashed:
    return Trashed(m.id, m.path, Kind(m.kind), m.size_bytes, m.principal, m.deleted_at_ms)
