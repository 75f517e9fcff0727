"""The data port's server: threads that answer WRITE, READ and OPEN (core/frames.py) over TCP and a unix socket.

One thread for each connection. A WRITE is stored and forwarded while it arrives; a hop that fails is left out of the
acknowledgement and never fails the local replica. A forwarding thread waits only for its own connection to the next
hop, never for a pool, so chains that run in circles cannot block each other (D10).
"""

from __future__ import annotations

import logging
import os
import select
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from helenite.chunkserver.layout import covering_blocks
from helenite.chunkserver.store import ChunkStore, Sink
from helenite.core import frames
from helenite.core.checksum import block_checksums, block_count, digest
from helenite.core.dataport import DataConnection, configure
from helenite.core.errors import (
    ChunkExistsError,
    HeleniteError,
    InvalidRequestError,
    ProtocolError,
)
from helenite.core.frames import FRAME, Ack, Frame, OpenRequest, RangeReply, ReadRequest, Verb, WriteRequest
from helenite.core.model import BLOCK_BYTES, MIB, ChunkHandle, ServerId
from helenite.core.process import Worker

log = logging.getLogger(__name__)

PIECE_BYTES = MIB
TRANSFER_S = 30.0
"""Longest silence inside a request, from a client or from the next hop; then the connection is given up."""
CONNECT_S = 2.0
SOCKET_PATH_MAX = 100
POOLED_MAX = 8
"""Idle connections kept to each next hop."""


class Hops:
    """Pooled connections to the next servers of chains. Thread-safe: one lock guards the idle connections."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[ServerId, list[DataConnection]] = {}

    def take(self, target: frames.Target) -> DataConnection:
        with self._lock:
            idle = self._idle.get(target.server)
            if idle:
                return idle.pop()
        return DataConnection.connect(target.server, target.address, target.socket, None, CONNECT_S)

    def give_back(self, server: ServerId, connection: DataConnection) -> None:
        with self._lock:
            idle = self._idle.setdefault(server, [])
            if len(idle) < POOLED_MAX:
                idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        with self._lock:
            for idle in self._idle.values():
                for connection in idle:
                    connection.close()
            self._idle.clear()


class Forward:
    """The rest of a chain, as seen from one hop: pieces out, acknowledgements back; trouble is noted, not raised."""

    def __init__(self, hops: Hops, request: WriteRequest) -> None:
        self._hops = hops
        self._connection: DataConnection | None = None
        self._server = ServerId(0)
        if request.targets:
            first, *rest = request.targets
            self._server = first.server
            onward = WriteRequest(request.handle, request.length, request.capability, tuple(rest))
            self._attempt(lambda: self._start(first, onward))

    def _start(self, target: frames.Target, request: WriteRequest) -> None:
        self._connection = self._hops.take(target)
        self._connection.start_write(request, TRANSFER_S)

    def send(self, piece: memoryview) -> None:
        """Pass a piece on."""
        connection = self._connection
        if connection is not None:
            self._attempt(lambda: connection.send_piece(piece, TRANSFER_S))

    def acks(self) -> tuple[Ack, ...]:
        """What the hops behind have made durable."""
        connection = self._connection
        if connection is None:
            return ()
        found: list[Ack] = []
        self._attempt(lambda: found.extend(connection.receive_acks(TRANSFER_S)))
        if self._connection is not None:
            self._hops.give_back(self._server, connection)
        return tuple(found)

    def give_up(self) -> None:
        """The local side has failed: the hop behind will notice the end of the stream."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except HeleniteError as error:
            log.warning("the next server of a chain, %d, failed: %s", self._server, error)
            self.give_up()


class DataPort:
    """Listens and serves."""

    def __init__(self, store: ChunkStore, connections_max: int) -> None:
        self._store = store
        self._key = b""
        self._hops = Hops()
        self._slots = threading.BoundedSemaphore(connections_max)
        self._lock = threading.Lock()  # guards the two below
        self._connections: set[socket.socket] = set()
        self._is_closed = False
        self._listeners: list[socket.socket] = []
        self._private: tempfile.TemporaryDirectory[str] | None = None

    def bind(self, address: str, socket_path: str) -> tuple[int, str]:
        """Bind both sockets, so that their addresses can be announced; the TCP port and the unix socket's path."""
        host, _, port = address.rpartition(":")
        tcp = socket.create_server((host.strip("[]"), int(port)), backlog=256, family=_family(host))
        path = self._choose_path(socket_path)
        Path(path).unlink(missing_ok=True)
        unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        unix.bind(path)
        Path(path).chmod(0o600)
        unix.listen(256)
        self._listeners += [tcp, unix]
        return int(tcp.getsockname()[1]), path

    def serve(self, capability_key: bytes) -> None:
        """Accept from now on: this server belongs to a cluster and can check capabilities."""
        self._key = capability_key
        for listener in self._listeners:
            is_local = listener.family == socket.AF_UNIX
            Worker(f"accept-{'unix' if is_local else 'tcp'}", self._accepting(listener, is_local=is_local)).start()

    def close(self) -> None:
        """Stop listening and end every connection."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            connections = list(self._connections)
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError as error:
                log.debug("a connection was gone already: %s", error)
        self._hops.close()
        if self._private is not None:
            self._private.cleanup()

    def _choose_path(self, wanted: str) -> str:
        if len(os.fsencode(wanted)) <= SOCKET_PATH_MAX:
            return wanted
        self._private = tempfile.TemporaryDirectory(prefix="helenite-")
        return str(Path(self._private.name) / "data.sock")

    def _accepting(self, listener: socket.socket, *, is_local: bool) -> Callable[[threading.Event], None]:
        def accept(_stopping: threading.Event) -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError as error:
                    if self._is_closed:
                        return
                    log.warning("cannot accept a connection: %s", error)
                    _stopping.wait(0.1)  # out of descriptors: let some go
                    continue
                if not self._slots.acquire(blocking=False):
                    log.warning("too many data connections; one is refused")
                    connection.close()
                    continue
                Worker("data", lambda _, c=connection: self._serve(c, is_local=is_local)).start()  # type: ignore[misc]

        return accept

    def _serve(self, connection: socket.socket, *, is_local: bool) -> None:
        with self._lock:
            if self._is_closed:
                connection.close()
                return
            self._connections.add(connection)
        try:
            configure(connection)
            identity = self._store.identity
            connection.settimeout(TRANSFER_S)
            connection.sendall(frames.encode_greeting(identity.server_id, bytes.fromhex(identity.cluster_id)))
            session = Session(connection, self._store, self._key, self._hops, is_local=is_local)
            while session.answer():
                pass
        except (OSError, ProtocolError) as error:
            log.debug("a data connection ended: %s", error)
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()
            self._slots.release()


class Session:
    """One connection's requests."""

    def __init__(self, connection: socket.socket, store: ChunkStore, key: bytes, hops: Hops, *, is_local: bool) -> None:
        self._socket = connection
        self._store = store
        self._key = key
        self._hops = hops
        self._is_local = is_local
        self._buffer = memoryview(bytearray(PIECE_BYTES))

    def answer(self) -> bool:
        """Read one request and answer it; False when the client has gone."""
        header = self._receive_head()
        if header is None:
            return False
        frame = frames.parse_frame(header)
        meta = bytes(self._receive(bytearray(frame.meta_length)))
        try:
            match frame.verb:
                case Verb.WRITE:
                    self._write(frame, frames.parse_write(meta))
                case Verb.READ:
                    self._read(frames.parse_read(meta))
                case Verb.OPEN:
                    self._open(frames.parse_open(meta))
        except ProtocolError:
            raise
        except HeleniteError as error:
            self._socket.sendall(frames.encode_error(frame.verb, error))
        return True

    # WRITE

    def _write(self, frame: Frame, request: WriteRequest) -> None:
        if frame.payload_length != request.length:
            raise ProtocolError("a WRITE's payload has another length than its meta says")
        try:
            frames.check_capability(self._key, request.handle, request.capability)
            sink: Sink | Comparison = self._store.begin(request.handle, request.length)
        except ChunkExistsError:
            # A repeat after a lost reply: the same bytes are a success, other bytes are not (chunks are immutable).
            sink = Comparison(self._store, request.handle, request.length)
        except HeleniteError:
            self._drain(request.length)
            raise
        forward = Forward(self._hops, request)
        left = request.length
        try:
            while left:
                piece = self._receive_piece(left)
                left -= len(piece)
                forward.send(piece)
                sink.write(piece)
            own = Ack(self._store.identity.server_id, sink.seal())
        except (HeleniteError, OSError) as error:
            forward.give_up()
            if isinstance(error, HeleniteError):
                self._drain(left)
            raise
        finally:
            sink.abort()
        self._socket.sendall(frames.encode_acks((own, *forward.acks())))

    def _drain(self, left: int) -> None:
        """Read a refused payload to its end, so that the connection stays usable and the client reads the reason."""
        while left:
            left -= len(self._receive_piece(left))

    # READ, OPEN

    def _read(self, request: ReadRequest) -> None:
        frames.check_capability(self._key, request.handle, request.capability)
        with self._store.open(request.handle) as replica:
            if request.length < 1 or request.offset + request.length > replica.length:
                raise InvalidRequestError(f"chunk {request.handle:x} has {replica.length} bytes")
            start, size = covering_blocks(request.offset, request.length, replica.length)
            checksums = replica.checksums(start // BLOCK_BYTES, block_count(size))
            head = frames.encode_range(Verb.READ, RangeReply(replica.length, start, checksums), size)
            self._socket.sendall(head)
            self._send_file(replica.descriptor, replica.offset + start, size)

    def _send_file(self, descriptor: int, offset: int, size: int) -> None:
        """sendfile, waiting for the client as long as it makes progress."""
        end = offset + size
        while offset < end:
            try:
                count = os.sendfile(self._socket.fileno(), descriptor, offset, end - offset)
            except BlockingIOError:
                self._wait_writable()
                continue
            if count == 0:
                raise OSError("a replica's file was cut short while it was sent")
            offset += count

    def _wait_writable(self) -> None:
        waiting = select.poll()
        waiting.register(self._socket, select.POLLOUT)
        if not waiting.poll(TRANSFER_S * 1000):
            raise TimeoutError("the client does not read")

    def _open(self, request: OpenRequest) -> None:
        frames.check_capability(self._key, request.handle, request.capability)
        if not self._is_local:
            raise InvalidRequestError("descriptors are passed over unix sockets only")
        with self._store.open(request.handle) as replica:
            checksums = replica.checksums(0, block_count(replica.length))
            head = frames.encode_range(Verb.OPEN, RangeReply(replica.length, replica.offset, checksums))
            count = socket.send_fds(self._socket, [head], [replica.descriptor])
            self._socket.sendall(head[count:])

    # Bytes

    def _receive_head(self) -> bytearray | None:
        """A frame's header; None when the client ended the connection between requests."""
        head = bytearray(FRAME.size)
        self._socket.settimeout(None)  # idle connections are cheap and may stay
        count = self._socket.recv_into(head)
        self._socket.settimeout(TRANSFER_S)
        if count == 0:
            return None
        self._receive(head, count)
        return head

    def _receive(self, into: bytearray, at: int = 0) -> bytearray:
        view = memoryview(into)
        while at < len(into):
            count = self._socket.recv_into(view[at:])
            if count == 0:
                raise ConnectionResetError("the client left in the middle of a request")
            at += count
        return into

    def _receive_piece(self, left: int) -> memoryview:
        """The next bytes of a payload, as many as came; valid until the next call."""
        count = self._socket.recv_into(self._buffer, min(left, PIECE_BYTES))
        if count == 0:
            raise ConnectionResetError("the client left in the middle of a chunk")
        return self._buffer[:count]


class Comparison:
    """Takes the bytes of a chunk that is here already and seals only if they are the same."""

    def __init__(self, store: ChunkStore, handle: ChunkHandle, length: int) -> None:
        self._store = store
        self._handle = handle
        self._length = length
        self._whole = bytearray()

    def write(self, piece: memoryview) -> None:
        self._whole += piece

    def seal(self) -> bytes:
        """The digest; ChunkExistsError when the chunk has other content."""
        computed = digest(block_checksums(self._whole))
        if self._store.digest_of(self._handle) != (self._length, computed):
            raise ChunkExistsError(f"chunk {self._handle:x} is here with other content")
        return computed

    def abort(self) -> None:
        """Nothing was stored."""


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if host.startswith("[") else socket.AF_INET
