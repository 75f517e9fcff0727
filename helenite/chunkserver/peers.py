"""This chunkserver's part in the cluster: registration, heartbeats to every master, and the commands they answer with.

One worker beats to all masters; orders (delete, replicate) run in a small pool, so that a slow disk never delays the
beat. All masters down means keep serving and keep trying. Thread-safe.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import grpc

from helenite.chunkserver.store import ChunkStore, receive
from helenite.core.checksum import verify_blocks
from helenite.core.dataport import DataConnection
from helenite.core.errors import (
    ChunkExistsError,
    ChunkNotFoundError,
    HeleniteError,
    UnavailableError,
)
from helenite.core.frames import ReadRequest
from helenite.core.model import MIB, ChunkHandle, Chunkserver, ServerId, ServerState
from helenite.core.pb import master_pb2
from helenite.core.pb.master_pb2_grpc import ClusterStub
from helenite.core.process import Worker
from helenite.core.serving import GRPC_OPTIONS
from helenite.core.wire import chunkserver_from_message, chunkserver_to_message, error_from_rpc, failure_to_message

log = logging.getLogger(__name__)
T = TypeVar("T")

BEAT_S = 1.0
ATTEMPT_S = 3.0
"""Patience with one master; a hung one must not make us silent for the others for long."""
REPORT_PAGE = 10_000
ORDERS_AT_ONCE = 4
PULL_S = 60.0
"""Patience with one pull of a chunk."""
PULL_PIECE = MIB


@dataclass(frozen=True, slots=True)
class Place:
    """Where this chunkserver can be reached."""

    address: str
    data_address: str
    data_socket: str
    host: str
    rack: str


class Peers:
    """Talks to the masters."""

    def __init__(self, store: ChunkStore, masters: tuple[str, ...], on_crash: Callable[[], None]) -> None:
        self._store = store
        self._seeds = masters
        self._masters: dict[str, ClusterStub] = {}
        self._channels: dict[str, grpc.Channel] = {}
        self._place: Place | None = None
        self._lock = threading.Lock()  # guards the results of orders and which orders run
        self._deleted: set[ChunkHandle] = set()
        self._copied: dict[ChunkHandle, HeleniteError | None] = {}
        self._running: set[ChunkHandle] = set()
        self._orders = ThreadPoolExecutor(ORDERS_AT_ONCE, thread_name_prefix="orders")
        self._worker = Worker("heartbeat", self._run, on_crash)
        self._add_masters(masters)

    def stop(self) -> None:
        self._worker.stop()
        self._orders.shutdown(wait=True, cancel_futures=True)
        for channel in self._channels.values():
            channel.close()

    def join(self, place: Place, stopping: threading.Event) -> bytes:
        """Register with any master, however long that takes; the cluster's capability key.

        ForeignClusterError when the data belongs elsewhere, UnavailableError when stopped meanwhile.
        """
        while not stopping.is_set():
            for master in list(self._masters):
                try:
                    return self._register(master, place)
                except UnavailableError as error:
                    log.warning("cannot register yet: %s", error)
            stopping.wait(0.2)
        raise UnavailableError("stopped before a master answered")

    def start(self) -> None:
        """Begin to beat."""
        self._worker.start()

    # Beating

    def _run(self, stopping: threading.Event) -> None:
        while True:
            started = time.monotonic()
            self._beat_all()
            if stopping.wait(max(0.0, BEAT_S - (time.monotonic() - started))):
                return

    def _beat_all(self) -> None:
        with self._lock:
            deleted, copied = sorted(self._deleted), dict(self._copied)
        corrupt = self._store.corrupt()
        request = master_pb2.HeartbeatRequest(
            server=chunkserver_to_message(self.describe()),
            deleted=deleted,
            copied=[
                master_pb2.CopyResult(handle=handle, failure=failure_to_message(error) if error else None)
                for handle, error in copied.items()
            ],
            corrupt=corrupt,
        )
        for master in list(self._masters):
            if master not in self._masters:
                continue  # an earlier master of this round says that it is gone
            try:
                is_leader = self._beat(master, request)
            except HeleniteError as error:
                log.warning("heartbeat: %s", error)
                continue
            if is_leader:
                with self._lock:
                    self._deleted.difference_update(deleted)
                    self._copied = {h: e for h, e in self._copied.items() if h not in copied}
                self._store.forget_corrupt(corrupt)

    def _beat(self, master: str, request: master_pb2.HeartbeatRequest) -> bool:
        """One heartbeat; whether the leader has heard it."""
        reply = self._call(master, lambda stub: stub.Heartbeat(request, timeout=ATTEMPT_S))
        if reply.must_register:
            assert self._place is not None
            self._register(master, self._place)
            return False
        self._add_masters(tuple(reply.masters))
        for handle in reply.delete:
            self._order(ChunkHandle(handle), self._delete)
        for command in reply.replicate:
            self._order(ChunkHandle(command.handle), lambda handle, c=command: self._replicate(handle, c))  # type: ignore[misc]
        if reply.must_report:
            self._orders.submit(self._report, master)
        return bool(reply.masters)

    def _register(self, master: str, place: Place) -> bytes:
        self._place = place
        identity = self._store.identity
        request = master_pb2.RegisterRequest(
            server=chunkserver_to_message(self.describe()), cluster_id=identity.cluster_id
        )
        reply = self._call(master, lambda stub: stub.Register(request, timeout=ATTEMPT_S))
        self._store.adopt(reply.cluster_id, ServerId(reply.id))
        self._add_masters(tuple(reply.masters))
        log.info("registered with master %s as chunkserver %d", master, reply.id)
        return bytes(reply.capability_key)

    def describe(self) -> Chunkserver:
        """Who and where this is, and how full."""
        identity, place = self._store.identity, self._place
        assert place is not None
        return Chunkserver(
            id=identity.server_id,
            uuid=identity.uuid,
            address=place.address,
            data_address=place.data_address,
            data_socket=place.data_socket,
            host=place.host,
            rack=place.rack,
            pid=os.getpid(),
            state=ServerState.ALIVE,
            capacity_bytes=self._store.capacity(),
            free_bytes=self._store.free_bytes(),
            used_bytes=self._store.used_bytes(),
            chunk_count=self._store.chunk_count(),
        )

    def _add_masters(self, addresses: tuple[str, ...]) -> None:
        for address in addresses:
            if address not in self._masters:
                channel = grpc.insecure_channel(address, options=GRPC_OPTIONS)
                self._channels[address] = channel
                self._masters[address] = ClusterStub(channel)
        if addresses:
            for address in set(self._masters) - set(addresses) - set(self._seeds):
                del self._masters[address]
                self._channels.pop(address).close()

    def _call(self, master: str, call: Callable[[ClusterStub], T]) -> T:
        try:
            return call(self._masters[master])
        except grpc.RpcError as error:
            raise error_from_rpc(error, f"master {master}") from error

    # Orders

    def _order(self, handle: ChunkHandle, work: Callable[[ChunkHandle], None]) -> None:
        with self._lock:
            if handle in self._running or handle in self._deleted or handle in self._copied:
                return
            self._running.add(handle)
        self._orders.submit(self._carry_out, handle, work)

    def _carry_out(self, handle: ChunkHandle, work: Callable[[ChunkHandle], None]) -> None:
        try:
            work(handle)
        except HeleniteError as error:
            log.warning("an order for chunk %x failed: %s", handle, error)
        finally:
            with self._lock:
                self._running.discard(handle)

    def _delete(self, handle: ChunkHandle) -> None:
        self._store.delete(handle)
        with self._lock:
            self._deleted.add(handle)

    def _replicate(self, handle: ChunkHandle, command: master_pb2.Replicate) -> None:
        problem: HeleniteError | None = None
        try:
            pull(self._store, handle, tuple(map(chunkserver_from_message, command.sources)), command.capability)
        except HeleniteError as error:
            problem = error
        with self._lock:
            self._copied[handle] = problem

    def _report(self, master: str) -> None:
        def pages() -> Iterator[master_pb2.ChunkReport]:
            after = ChunkHandle(0)
            while True:
                found = self._store.handles_after(after, REPORT_PAGE)
                is_last = len(found) < REPORT_PAGE
                yield master_pb2.ChunkReport(server=self._store.identity.server_id, handles=found, is_last=is_last)
                if is_last:
                    return
                after = found[-1]

        try:
            self._call(master, lambda stub: stub.ReportChunks(pages(), timeout=PULL_S))
        except HeleniteError as error:
            log.warning("chunk report: %s", error)


def pull(store: ChunkStore, handle: ChunkHandle, sources: tuple[Chunkserver, ...], capability: bytes) -> None:
    """Copy a chunk from the first source that can give it; the last source's error when none can."""
    problem: HeleniteError = ChunkNotFoundError(f"nobody was named who holds chunk {handle:x}")
    for source in sources:
        try:
            _pull_from(store, handle, source, capability)
        except ChunkExistsError:
            return
        except HeleniteError as error:
            log.warning("chunk %x cannot be copied from chunkserver %d: %s", handle, source.id, error)
            problem = error
        else:
            return
    raise problem


def _pull_from(store: ChunkStore, handle: ChunkHandle, source: Chunkserver, capability: bytes) -> None:
    cluster_id = bytes.fromhex(store.identity.cluster_id)
    connection = DataConnection.connect(source.id, source.data_address, source.data_socket, cluster_id, ATTEMPT_S)
    try:
        reply, first = connection.read(ReadRequest(handle, 0, 1, capability), PULL_S)
        if reply.length <= len(first):
            verify_blocks(first, reply.checksums, f"chunk {handle:x} from chunkserver {source.id}")
            receive(store.begin(handle, reply.length), first)
            return
        sink = store.begin(handle, reply.length)
        try:
            for offset in range(0, reply.length, PULL_PIECE):
                size = min(PULL_PIECE, reply.length - offset)
                part, data = connection.read(ReadRequest(handle, offset, size, capability), PULL_S)
                verify_blocks(data, part.checksums, f"chunk {handle:x} from chunkserver {source.id}")
                sink.write(data)
            sink.seal()
        finally:
            sink.abort()
    finally:
        connection.close()
