"""The chunkservers as a client knows them: their addresses, pooled data connections, who failed lately.

Used by `pool`. It knows nothing of files or of which replica to choose. Thread-safe: one lock guards the table and
the suspicions; connecting and transferring happen outside it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from helenite.client.retry import SUSPECT_S
from helenite.client.rpc import MasterRpc
from helenite.core.dataport import DataConnection, IdleConnections
from helenite.core.errors import BadCapabilityError, ProtocolError, UnavailableError
from helenite.core.model import ChunkHandle, Chunkserver, ServerId
from helenite.core.pb import common_pb2
from helenite.core.pb.chunkserver_pb2 import HandlesRequest
from helenite.core.pb.chunkserver_pb2_grpc import ControlStub
from helenite.core.serving import GRPC_OPTIONS
from helenite.core.wire import chunkserver_from_message, error_from_rpc

log = logging.getLogger(__name__)

TABLE_AGE_S = 30.0
"""A table older than this is fetched again when it is next needed."""
CONNECT_S = 2.0
TRANSPORT_ERRORS = (UnavailableError, ProtocolError, BadCapabilityError)
"""What says more about a server than about a chunk: the server is suspected and another is tried."""


class Connections:
    """Pooled connections to the data ports of all chunkservers."""

    def __init__(self, rpc: MasterRpc) -> None:
        self._rpc = rpc
        self._idle = IdleConnections()
        self._lock = threading.Lock()  # guards everything below
        self._table: dict[ServerId, Chunkserver] = {}
        self._near: frozenset[ServerId] = frozenset()
        self._fetched_at = float("-inf")
        self._suspect_until: dict[ServerId, float] = {}

    def close(self) -> None:
        self._idle.close()

    def server(self, server: ServerId) -> Chunkserver:
        """The server's addresses; UnavailableError when no master has heard of it."""
        with self._lock:
            known = self._table.get(server)
            is_fresh = time.monotonic() - self._fetched_at < TABLE_AGE_S
        if known is None or not is_fresh:
            self._fetch()
            with self._lock:
                known = self._table.get(server)
        if known is None:
            raise UnavailableError(f"chunkserver {server} is not registered with the master")
        return known

    def near(self) -> frozenset[ServerId]:
        """Servers whose unix socket exists on this machine."""
        with self._lock:
            return self._near

    def suspects(self) -> dict[ServerId, float]:
        """Until when (monotonic seconds) a server that failed is tried last."""
        with self._lock:
            return dict(self._suspect_until)

    def suspect(self, server: ServerId) -> None:
        """Remember that the server failed, drop its idle connections and forget the table's age."""
        with self._lock:
            self._suspect_until[server] = time.monotonic() + SUSPECT_S
            self._fetched_at = float("-inf")
        self._idle.drop(server)

    def take(self, server: ServerId, timeout_s: float) -> DataConnection:
        """A connection for one request; the caller gives it back or closes it."""
        if (connection := self._idle.take(server)) is not None:
            return connection
        known = self.server(server)
        return DataConnection.connect(server, known.data_address, known.data_socket, None, min(timeout_s, CONNECT_S))

    def give_back(self, server: ServerId, connection: DataConnection) -> None:
        """Keep a connection whose request has ended well."""
        self._idle.give_back(server, connection)

    @contextmanager
    def borrow(self, server: ServerId, timeout_s: float) -> Iterator[DataConnection]:
        """A connection for one request. It goes back to the pool unless the request failed."""
        connection = self.take(server, timeout_s)
        try:
            yield connection
        except BaseException:
            # Refusals leave a connection in step, but only the connection knows; trouble is rare, so start anew.
            connection.close()
            raise
        self.give_back(server, connection)

    def ask_to_verify(self, server: ServerId, handle: ChunkHandle) -> None:
        """Ask a chunkserver to check a replica that looked corrupt from here; it then knows what is bad."""
        known = self.server(server)
        try:
            with grpc.insecure_channel(known.address, options=GRPC_OPTIONS) as channel:
                ControlStub(channel).Verify(HandlesRequest(handles=[handle]), timeout=CONNECT_S)
        except grpc.RpcError as problem:
            error = error_from_rpc(problem, f"chunkserver {server}")
            log.warning("chunk %x: chunkserver %d could not be asked to verify it: %s", handle, server, error)

    def _fetch(self) -> None:
        reply = self._rpc.cluster("ListServers", common_pb2.Empty())
        table = {server.id: server for server in map(chunkserver_from_message, reply.servers)}
        near = frozenset(s.id for s in table.values() if s.data_socket and Path(s.data_socket).exists())
        with self._lock:
            moved = [
                server
                for server, was in self._table.items()
                if (now := table.get(server)) is None or now.data_address != was.data_address
            ]
            self._table, self._near, self._fetched_at = table, near, time.monotonic()
        for server in moved:
            self._idle.drop(server)
