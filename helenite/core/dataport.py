"""A connection to a chunkserver's data port: sends the requests of `core.frames` and receives their replies.

Used by the client library and by chunkservers among themselves (chains, replication). One request at a time; a
connection belongs to one thread, or to nobody while it is idle. Transport trouble closes it and raises
UnavailableError, DeadlineExceededError or ProtocolError; a refusal by the server raises the server's error and leaves
the connection usable.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence as Many
from dataclasses import replace
from pathlib import Path

from helenite.core import frames
from helenite.core.errors import (
    DeadlineExceededError,
    ForeignClusterError,
    ProtocolError,
    UnavailableError,
    unpack_error,
)
from helenite.core.frames import (
    FRAME,
    GREETING_BYTES,
    Ack,
    OpenRequest,
    RangeReply,
    ReadRequest,
    Verb,
    WriteRequest,
)
from helenite.core.model import ServerId
from helenite.core.stream import Buffer, Stream

IDLE_MAX = 16
"""Kept to each server: as many as requests are usually in flight in one process. Each costs a sleeping thread there."""
CONNECTED_S = 5.0
"""Longest wait on a new connection, until a request brings its own deadline."""


class DataConnection:
    """One connection to one chunkserver."""

    def __init__(self, sock: socket.socket, peer: str, *, is_local: bool) -> None:
        self._stream = Stream(sock, CONNECTED_S)
        self._peer = peer
        self.is_local = is_local
        """Whether it is a unix socket, over which descriptors can be passed."""

    @classmethod
    def connect(
        cls, server: ServerId, address: str, socket_path: str, cluster_id: bytes | None, timeout_s: float
    ) -> DataConnection:
        """Connect to a server: by its unix socket when that is here and is this server's, else by TCP.

        ForeignClusterError when another server or cluster answers at the address.
        """
        deadline = time.monotonic() + timeout_s
        made = cls._connect_unix(server, socket_path, deadline) if socket_path else None
        if made is not None:
            try:
                made.check_greeting(server, cluster_id, deadline)
            except (ForeignClusterError, UnavailableError, ProtocolError):
                made.close()  # a leftover, or the path of another machine: TCP decides
            else:
                return made
        made = cls._connect_tcp(server, address, deadline)
        try:
            made.check_greeting(server, cluster_id, deadline)
        except BaseException:
            made.close()
            raise
        return made

    @classmethod
    def _connect_unix(cls, server: ServerId, path: str, deadline: float) -> DataConnection | None:
        if not Path(path).exists():
            return None
        try:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError:  # no descriptor is left: TCP says so
            return None
        try:
            sock.settimeout(max(0.01, deadline - time.monotonic()))
            sock.connect(path)
        except OSError:
            sock.close()
            return None
        return cls(sock, f"chunkserver {server} at {path}", is_local=True)

    @classmethod
    def _connect_tcp(cls, server: ServerId, address: str, deadline: float) -> DataConnection:
        peer = f"chunkserver {server} at {address}"
        host, _, port = address.rpartition(":")
        try:
            target = (host.strip("[]"), int(port))
            sock = socket.create_connection(target, timeout=max(0.01, deadline - time.monotonic()))
        except TimeoutError:
            raise DeadlineExceededError(f"{peer} does not answer") from None
        except OSError as error:
            raise UnavailableError(f"{peer} cannot be reached: {error.strerror}") from error
        except ValueError:
            raise UnavailableError(f"{peer} cannot be reached: that is no HOST:PORT") from None
        return cls(sock, peer, is_local=False)

    def check_greeting(self, server: ServerId, cluster_id: bytes | None, deadline: float) -> None:
        """ForeignClusterError unless the greeting is that of `server` (and of the cluster)."""
        there, there_cluster = frames.parse_greeting(bytes(self._take(GREETING_BYTES, deadline)))
        if there != server:
            raise ForeignClusterError(f"{self._peer}: chunkserver {there} answers there")
        if cluster_id is not None and there_cluster != cluster_id:
            raise ForeignClusterError(f"{self._peer} belongs to another cluster")

    def close(self) -> None:
        self._stream.close()

    def is_usable(self) -> bool:
        """Whether an idle connection still stands. Nothing may have arrived on it, and not its end either."""
        return not self._stream.is_closed and self._stream.is_silent()

    # Requests. `deadline_s` is how long the whole call may take.

    def write(self, request: WriteRequest, payload: Many[Buffer], deadline_s: float) -> tuple[Ack, ...]:
        """Store a chunk and wait for the acknowledgements of its chain."""
        deadline = time.monotonic() + deadline_s
        self._send(write_parts(request, payload, deadline_s), deadline)
        return self.receive_acks(deadline - time.monotonic())

    def send_some(self, parts: Many[Buffer]) -> list[Buffer]:
        """Send what the kernel takes now, without waiting: what is left. So several servers can be sent to at once."""
        try:
            return self._stream.send_some(parts)
        except OSError as error:
            raise self._broken(error) from error

    def fileno(self) -> int:
        """For poll."""
        return self._stream.socket.fileno()

    def start_write(self, request: WriteRequest, deadline_s: float) -> None:
        """Send a WRITE's head only, with the request's own patience; pieces follow by `send_piece`."""
        self._send([frames.encode_write(request)], time.monotonic() + deadline_s)

    def send_piece(self, piece: Buffer, deadline_s: float) -> None:
        """Send the next part of a payload."""
        self._send([piece], time.monotonic() + deadline_s)

    def receive_acks(self, deadline_s: float) -> tuple[Ack, ...]:
        """The replicas that are durable now."""
        meta, _ = self._receive_reply(Verb.WRITE, time.monotonic() + deadline_s)
        return frames.parse_acks(meta)

    def receive_many_acks(self, count: int, deadline_s: float) -> tuple[bytes, ...]:
        """The digests of the chunks of a WRITE_MANY that are durable now, empty for the others."""
        meta, _ = self._receive_reply(Verb.WRITE_MANY, time.monotonic() + deadline_s)
        return frames.parse_many_acks(meta, count)

    def read(self, request: ReadRequest, deadline_s: float) -> tuple[RangeReply, memoryview]:
        """The whole blocks that cover a range, with their checksums, not yet compared."""
        deadline = time.monotonic() + deadline_s
        self._send([frames.encode_read(request)], deadline)
        meta, payload = self._receive_reply(Verb.READ, deadline)
        return frames.parse_range(meta), payload

    def open(self, request: OpenRequest, deadline_s: float) -> tuple[RangeReply, int]:
        """A descriptor of the file that holds a chunk, for the caller to close; unix sockets only."""
        deadline = time.monotonic() + deadline_s
        self._send([frames.encode_open(request)], deadline)
        try:
            descriptors = self._stream.take_descriptors(deadline)
        except OSError as error:
            raise self._broken(error) from error
        try:
            meta, _ = self._receive_reply(Verb.OPEN, deadline)
            if len(descriptors) != 1:
                self.close()
                raise ProtocolError(f"{self._peer} passed {len(descriptors)} descriptors")
            reply = frames.parse_range(meta)
            os.set_inheritable(descriptors[0], False)  # noqa: FBT003 - children must not keep replicas open
            return reply, descriptors.pop()
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    # Bytes

    def _receive_reply(self, verb: Verb, deadline: float) -> tuple[bytes, memoryview]:
        """Meta and payload of a reply to `verb`; raises what the server refused with."""
        header = self._take(FRAME.size, deadline)
        try:
            frame = frames.parse_frame(header)
        except ProtocolError:
            self.close()
            raise
        if frame.verb is not verb:
            self.close()
            raise ProtocolError(f"{self._peer} answered {frame.verb.name} to {verb.name}")
        meta = bytes(self._take(frame.meta_length, deadline))
        if frame.status:
            raise unpack_error(meta)
        try:
            return meta, self._stream.take_over(frame.payload_length, deadline)
        except OSError as error:
            raise self._broken(error) from error

    def _send(self, parts: list[Buffer], deadline: float) -> None:
        try:
            self._stream.send(parts, deadline)
        except OSError as error:
            raise self._broken(error) from error

    def _take(self, length: int, deadline: float) -> memoryview:
        try:
            return self._stream.take(length, deadline)
        except OSError as error:
            raise self._broken(error) from error

    def _broken(self, error: OSError) -> UnavailableError:
        """Close, and say what happened."""
        self.close()
        if isinstance(error, TimeoutError):
            return DeadlineExceededError(f"{self._peer} did not answer in time")
        return UnavailableError(f"{self._peer} ended the connection{f': {error.strerror}' if error.strerror else ''}")


class IdleConnections:
    """Connections that wait for their next request, a few for each server. Thread-safe: one lock guards them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[ServerId, list[DataConnection]] = {}
        self._is_closed = False

    def take(self, server: ServerId) -> DataConnection | None:
        """One that stands: a kept one may have died with its server's last process."""
        while True:
            with self._lock:
                idle = self._idle.get(server)
                connection = idle.pop() if idle else None
            if connection is None or connection.is_usable():
                return connection
            connection.close()

    def give_back(self, server: ServerId, connection: DataConnection) -> None:
        """Keep a connection whose request has ended well."""
        with self._lock:
            idle = self._idle.setdefault(server, [])
            if not self._is_closed and len(idle) < IDLE_MAX:
                idle.append(connection)
                return
        connection.close()

    def drop(self, server: ServerId) -> None:
        """It has failed, or is elsewhere by now."""
        with self._lock:
            dropped = self._idle.pop(server, [])
        for connection in dropped:
            connection.close()

    def close(self) -> None:
        """Keep none from now on."""
        with self._lock:
            self._is_closed = True
            servers = list(self._idle)
        for server in servers:
            self.drop(server)


def write_parts(request: WriteRequest, payload: Many[Buffer], deadline_s: float) -> list[Buffer]:
    """A WRITE as it travels, with the time that is left as the server's own deadline."""
    return [frames.encode_write(replace(request, patience_ms=max(1, int(deadline_s * 1000)))), *payload]
