"""The Control service of a chunkserver: verify and list. Bytes travel by the data port, orders on heartbeat replies.

Asked by clients that found a replica bad and by `helenite fsck`. The border between messages and values. Called from
gRPC's threads.
"""

from __future__ import annotations

import grpc

from helenite.chunkserver.store import ChunkStore
from helenite.core.errors import HeleniteError, InvalidRequestError, UnavailableError
from helenite.core.model import ChunkHandle
from helenite.core.pb import chunkserver_pb2
from helenite.core.pb.chunkserver_pb2_grpc import ControlServicer
from helenite.core.wire import errors_as_status, failure_to_message

HANDLES_MAX = 1_000
"""Chunks named in one call."""
LIST_MAX = 10_000
"""Handles on one page of a list."""


class ControlService(ControlServicer):
    """Questions about the replicas of one chunkserver."""

    def __init__(self, store: ChunkStore) -> None:
        self._store = store

    def Verify(
        self, request: chunkserver_pb2.HandlesRequest, context: grpc.ServicerContext
    ) -> chunkserver_pb2.VerifyReply:
        with errors_as_status(context):
            self._check_asked(request.server)
            return chunkserver_pb2.VerifyReply(chunks=map(self._health, _handles(request)))

    def _health(self, handle: ChunkHandle) -> chunkserver_pb2.ChunkHealth:
        try:
            length, digest = self._store.verify(handle)
        except HeleniteError as error:
            return chunkserver_pb2.ChunkHealth(handle=handle, failure=failure_to_message(error))
        return chunkserver_pb2.ChunkHealth(handle=handle, length_bytes=length, digest=digest)

    def ListChunks(
        self, request: chunkserver_pb2.ListChunksRequest, context: grpc.ServicerContext
    ) -> chunkserver_pb2.ListChunksReply:
        with errors_as_status(context):
            self._check_asked(request.server)
            limit = min(request.limit or LIST_MAX, LIST_MAX)
            return chunkserver_pb2.ListChunksReply(handles=self._store.handles_after(request.after, limit))

    def _check_asked(self, server: int) -> None:
        """A new chunkserver often has the address of the one whose disk it replaces; it cannot speak for that."""
        if server not in {0, ours := self._store.identity.server_id}:
            raise UnavailableError(f"chunkserver {server} is gone: chunkserver {ours} has its address")


def _handles(request: chunkserver_pb2.HandlesRequest) -> list[ChunkHandle]:
    if len(request.handles) > HANDLES_MAX:
        raise InvalidRequestError(f"at most {HANDLES_MAX} chunks a call")
    return [ChunkHandle(handle) for handle in request.handles]
