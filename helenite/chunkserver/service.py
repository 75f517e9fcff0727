"""The Control service of a chunkserver: verify, delete, replicate, state, list. Bytes travel by the data port.

The border between messages and values. Called from gRPC's threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import grpc

from helenite.chunkserver.pulling import pull
from helenite.chunkserver.store import ChunkStore
from helenite.core.errors import HeleniteError, InvalidRequestError
from helenite.core.frames import check_capability
from helenite.core.model import ChunkHandle, Chunkserver
from helenite.core.pb import chunkserver_pb2, common_pb2
from helenite.core.pb.chunkserver_pb2_grpc import ControlServicer
from helenite.core.wire import (
    chunkserver_from_message,
    chunkserver_to_message,
    errors_as_status,
    failure_to_message,
)

HANDLES_MAX = 1_000
"""Chunks named in one call."""
LIST_MAX = 10_000
"""Handles on one page of a list."""


class ControlService(ControlServicer):
    """Control of one chunkserver."""

    def __init__(
        self,
        store: ChunkStore,
        capability_key: bytes,
        describe: Callable[[], Chunkserver],
        stopping: threading.Event,
    ) -> None:
        self._store = store
        self._key = capability_key
        self._describe = describe
        self._stopping = stopping

    def Verify(
        self, request: chunkserver_pb2.HandlesRequest, context: grpc.ServicerContext
    ) -> chunkserver_pb2.VerifyReply:
        with errors_as_status(context):
            return chunkserver_pb2.VerifyReply(chunks=map(self._health, _handles(request)))

    def _health(self, handle: ChunkHandle) -> chunkserver_pb2.ChunkHealth:
        try:
            length, digest = self._store.verify(handle)
        except HeleniteError as error:
            return chunkserver_pb2.ChunkHealth(handle=handle, failure=failure_to_message(error))
        return chunkserver_pb2.ChunkHealth(handle=handle, length_bytes=length, digest=digest)

    def Delete(self, request: chunkserver_pb2.HandlesRequest, context: grpc.ServicerContext) -> common_pb2.Empty:
        with errors_as_status(context):
            for handle in _handles(request):
                self._store.delete(handle)
            return common_pb2.Empty()

    def Replicate(self, request: chunkserver_pb2.ReplicateRequest, context: grpc.ServicerContext) -> common_pb2.Empty:
        with errors_as_status(context):
            handle = ChunkHandle(request.handle)
            check_capability(self._key, handle, request.capability)
            sources = tuple(map(chunkserver_from_message, request.sources))
            pull(self._store, handle, sources, request.capability, self._stopping)
            return common_pb2.Empty()

    def GetState(self, request: common_pb2.Empty, context: grpc.ServicerContext) -> common_pb2.Chunkserver:
        with errors_as_status(context):
            return chunkserver_to_message(self._describe())

    def ListChunks(
        self, request: chunkserver_pb2.ListChunksRequest, context: grpc.ServicerContext
    ) -> chunkserver_pb2.ListChunksReply:
        with errors_as_status(context):
            limit = min(request.limit or LIST_MAX, LIST_MAX)
            return chunkserver_pb2.ListChunksReply(handles=self._store.handles_after(request.after, limit))


def _handles(request: chunkserver_pb2.HandlesRequest) -> list[ChunkHandle]:
    if len(request.handles) > HANDLES_MAX:
        raise InvalidRequestError(f"at most {HANDLES_MAX} chunks a call")
    return [ChunkHandle(handle) for handle in request.handles]
