"""A connection to a chunkserver's data port: sends the requests of `core.frames` and receives their replies.

Used by the client library and by chunkservers among themselves (chains, replication). One request at a time; a
connection belongs to one thread. Transport trouble closes it and raises UnavailableError or DeadlineExceededError; a
refusal by the server raises the server's error and leaves the connection usable.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence as Many
from pathlib import Path

from helenite.core import frames
from helenite.core.errors import DeadlineExceededError, ForeignClusterError, ProtocolError, UnavailableError
from helenite.core.frames import (
    FRAME,
    GREETING_BYTES,
    Ack,
    Frame,
    OpenRequest,
    RangeReply,
    ReadRequest,
    Verb,
    WriteRequest,
)
from helenite.core.model import ServerId

Buffer = bytes | bytearray | memoryview
BUFFER_BYTES = 1024 * 1024
"""Socket buffers: a 64 KiB default makes sender and receiver wait for each other at every block."""


class DataConnection:
    """One connection to one chunkserver."""

    def __init__(self, sock: socket.socket, peer: str, *, is_local: bool) -> None:
        self._socket = sock
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
        if socket_path and Path(socket_path).exists():
            local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                return cls._greet(local, socket_path, socket_path, server, cluster_id, deadline)
            except (ForeignClusterError, UnavailableError):
                local.close()  # another machine's path, or a leftover: TCP decides
        host, _, port = address.rpartition(":")
        try:
            sock = socket.create_connection(
                (host.strip("[]"), int(port)), timeout=max(0.01, deadline - time.monotonic())
            )
        except TimeoutError:
            raise DeadlineExceededError(f"chunkserver {server} at {address} does not answer") from None
        except OSError as error:
            raise UnavailableError(f"chunkserver {server} at {address} cannot be reached: {error.strerror}") from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            return cls._greet(sock, None, address, server, cluster_id, deadline)
        except BaseException:
            sock.close()
            raise

    @classmethod
    def _greet(
        cls,
        sock: socket.socket,
        socket_path: str | None,
        peer: str,
        server: ServerId,
        cluster_id: bytes | None,
        deadline: float,
    ) -> DataConnection:
        made = cls(sock, f"chunkserver {server} at {peer}", is_local=socket_path is not None)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        if socket_path is not None:
            try:
                sock.settimeout(max(0.01, deadline - time.monotonic()))
                sock.connect(socket_path)
            except OSError as error:
                raise UnavailableError(f"{socket_path}: {error.strerror}") from error
        greeting = made._receive(GREETING_BYTES, deadline)
        there, there_cluster = frames.parse_greeting(bytes(greeting))
        if there != server or (cluster_id is not None and there_cluster != cluster_id):
            raise ForeignClusterError(f"at {peer} is chunkserver {there}, not {server}")
        return made

    def close(self) -> None:
        self._socket.close()

    # Requests

    def write(self, request: WriteRequest, payload: Many[Buffer], deadline_s: float) -> tuple[Ack, ...]:
        """Store a chunk and wait for the acknowledgements of its chain."""
        deadline = time.monotonic() + deadline_s
        self.send_write(request, payload, deadline_s)
        return self.receive_acks(max(0.01, deadline - time.monotonic()))

    def send_write(self, request: WriteRequest, payload: Many[Buffer], deadline_s: float) -> None:
        """Send a WRITE; its acknowledgements are collected later, so that several servers work at once."""
        self.start_write(request, deadline_s)
        for piece in payload:
            self.send_piece(piece, deadline_s)

    def start_write(self, request: WriteRequest, deadline_s: float) -> None:
        """Send a WRITE's head only; pieces follow by `send_piece`."""
        self._send(frames.encode_write(request), time.monotonic() + deadline_s)

    def send_piece(self, piece: Buffer, deadline_s: float) -> None:
        """Send the next part of a payload."""
        self._send(piece, time.monotonic() + deadline_s)

    def receive_acks(self, deadline_s: float) -> tuple[Ack, ...]:
        """The replicas that are durable now."""
        meta, _ = self._receive_reply(Verb.WRITE, time.monotonic() + deadline_s)
        return frames.parse_acks(meta)

    def read(self, request: ReadRequest, deadline_s: float) -> tuple[RangeReply, memoryview]:
        """The whole blocks that cover a range, with their checksums, not yet compared."""
        deadline = time.monotonic() + deadline_s
        self._send(frames.encode_read(request), deadline)
        meta, payload = self._receive_reply(Verb.READ, deadline)
        return frames.parse_range(meta), payload

    def open(self, request: OpenRequest, deadline_s: float) -> tuple[RangeReply, int]:
        """A descriptor of the file that holds a chunk, for the caller to close; unix sockets only."""
        deadline = time.monotonic() + deadline_s
        self._send(frames.encode_open(request), deadline)
        self._set_timeout(deadline)
        try:
            first, descriptors, _, _ = socket.recv_fds(self._socket, 1, 1)
        except OSError as error:
            raise self._broken(error) from error
        try:
            if not first:
                raise self._broken(None)
            rest = self._receive(FRAME.size - 1, deadline)
            meta, _ = self._receive_body(Verb.OPEN, frames.parse_frame(first + bytes(rest)), deadline)
            if len(descriptors) != 1:
                raise ProtocolError(f"{self._peer} passed {len(descriptors)} descriptors")
            os.set_inheritable(descriptors[0], False)  # noqa: FBT003 - children must not keep replicas open
            return frames.parse_range(meta), descriptors.pop()
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    # Bytes

    def _receive_reply(self, verb: Verb, deadline: float) -> tuple[bytes, memoryview]:
        frame = frames.parse_frame(self._receive(FRAME.size, deadline))
        return self._receive_body(verb, frame, deadline)

    def _receive_body(self, verb: Verb, frame: Frame, deadline: float) -> tuple[bytes, memoryview]:
        if frame.verb is not verb:
            self.close()
            raise ProtocolError(f"{self._peer} answered {frame.verb.name} to {verb.name}")
        meta = bytes(self._receive(frame.meta_length, deadline))
        if frame.status:
            raise frames.parse_error(meta)
        return meta, self._receive(frame.payload_length, deadline)

    def _send(self, data: Buffer, deadline: float) -> None:
        self._set_timeout(deadline)
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._broken(error) from error

    def _receive(self, length: int, deadline: float) -> memoryview:
        whole = memoryview(bytearray(length))
        at = 0
        while at < length:
            self._set_timeout(deadline)
            try:
                count = self._socket.recv_into(whole[at:])
            except OSError as error:
                raise self._broken(error) from error
            if count == 0:
                raise self._broken(None)
            at += count
        return whole

    def _set_timeout(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise self._broken(TimeoutError())
        self._socket.settimeout(left)

    def _broken(self, error: OSError | None) -> UnavailableError:
        """Close, and say what happened."""
        self.close()
        if isinstance(error, TimeoutError):
            return DeadlineExceededError(f"{self._peer} did not answer in time")
        return UnavailableError(f"{self._peer} ended the connection{f': {error.strerror}' if error else ''}")
