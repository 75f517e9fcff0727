"""The benchmark's own HTTP client: it shares the cores with the servers, so it does as little as can be done.

Used by all rows, for all servers alike. A `Connection` keeps one socket alive and receives each reply, head and body,
into one buffer whose pages exist already; nothing is copied and nothing is compared while the clock runs. `drive` keeps
several connections busy from one thread. Deadlines are the kernel's (SO_RCVTIMEO), which cost no system call of their
own. Not thread-safe.
"""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

PATIENCE_S = 120
"""Silence after which a server counts as hung."""
BUFFER_BYTES = 4 << 20
"""A connection's buffer unless told otherwise: the listing of 1,000 entries is the largest reply it must hold."""
RECEIVE_BYTES_MAX = 1 << 20
"""Most that is taken in one call: as much as a socket holds, and little enough to stay in the processor's cache."""
HEAD_BYTES_MAX = 1 << 16
IDLE_S = 2.0
"""A socket that rested longer than this is not trusted: servers hang up on idle clients, some after ten seconds."""


class TransferError(Exception):
    """The server hung up, kept silent, or sent what is no HTTP."""


Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Reply:
    """One response; `body` is a view of the connection's buffer and stands until its next request."""

    status: int
    head: bytes
    body: memoryview

    def header(self, name: bytes) -> bytes | None:
        return _header(self.head.lower(), name)


class Connection:
    """One connection that is kept alive."""

    def __init__(self, address: Address, buffer: bytearray | None = None) -> None:
        self._address = address
        self._buffer = memoryview(bytearray(BUFFER_BYTES) if buffer is None else buffer)
        self._sock = self._connect()
        self.is_spent = False
        """The server will hang up after this reply: the next request makes a new socket."""
        self._used_at = time.monotonic()
        self.sent = 0
        """Requests so far."""
        self._filled = 0
        self._body_at = 0
        self._end = 0
        """Where the reply ends in the buffer; 0 while that is not known."""
        self._chunk_at = 0
        """Where the next chunk's size stands; 0 when the body is not chunked."""

    def close(self) -> None:
        self._sock.close()

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, *pieces: bytes | memoryview) -> None:
        """Send a request; its reply is received by `pump`, and must fit into the buffer."""
        self._filled = self._body_at = self._end = self._chunk_at = 0
        self.rouse()
        self.sent += 1
        for piece in pieces:
            self._sock.sendall(piece)

    def rouse(self) -> None:
        """Get a new socket when the old one is spent or rested too long; called before a clock starts."""
        if self.is_spent or time.monotonic() - self._used_at > IDLE_S:
            self._sock.close()
            self._sock = self._connect()
            self._used_at = time.monotonic()
            self.is_spent = False

    def pump(self) -> bool:
        """Receive once, waiting if need be; True when the reply is whole."""
        limit = min(self._filled + RECEIVE_BYTES_MAX, self._end or len(self._buffer))
        if limit == self._filled:
            raise TransferError(f"a reply of more than {len(self._buffer)} bytes")
        try:
            count = self._sock.recv_into(self._buffer[self._filled : limit])
        except BlockingIOError:
            raise TransferError(f"nothing came within {PATIENCE_S} s") from None
        self._filled += count
        if count == 0:
            return self._ended()
        if self._body_at == 0 and not self._read_head():
            return False
        if self._chunk_at:
            return self._read_chunks()
        return self._filled == self._end

    def reply(self) -> Reply:
        """The reply that `pump` has made whole."""
        head = bytes(self._buffer[: self._body_at])
        body = self._buffer[self._body_at : self._end]
        if self._chunk_at:
            body = memoryview(b"".join(self._chunks()))
        reply = Reply(int(head[9:12]), head, body)
        self.is_spent = self.is_spent or reply.header(b"connection") == b"close"
        self._used_at = time.monotonic()
        return reply

    def exchange(self, *pieces: bytes | memoryview) -> Reply:
        """Send a request and wait for its reply."""
        self.send(*pieces)
        while not self.pump():
            pass
        return self.reply()

    def exchange_stream(
        self, request: bytes, pieces: Iterable[memoryview], on_body: Callable[[memoryview], None]
    ) -> int:
        """A request or a reply of any length, piece by piece, in flat memory; the status. The reply needs a length."""
        self.send(request)
        for piece in pieces:
            self._sock.sendall(piece)
        while self._body_at == 0:
            self.pump()
        head = bytes(self._buffer[: self._body_at])
        on_body(self._buffer[self._body_at : self._filled])
        left = self._end - self._filled
        while left > 0:
            count = self._sock.recv_into(self._buffer[: min(RECEIVE_BYTES_MAX, left)])
            if count == 0:
                raise TransferError(f"the server hung up {left} bytes before the end")
            on_body(self._buffer[:count])
            left -= count
        self._used_at = time.monotonic()
        return int(head[9:12])

    def _connect(self) -> socket.socket:
        sock = socket.create_connection(self._address, PATIENCE_S)
        sock.settimeout(None)
        patience = struct.pack("ll", PATIENCE_S, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def _read_head(self) -> bool:
        """Find the end of the head and, from it, of the body."""
        head = bytes(self._buffer[: min(self._filled, HEAD_BYTES_MAX)])
        end = head.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = head[: end + 2].lower()
        if not head.startswith(b"http/1."):
            raise TransferError(f"this is no HTTP: {head[:80]!r}")
        self._body_at = end + 4
        if head[9:12] == b"204":
            self._end = self._body_at
        elif (length := _header(head, b"content-length")) is not None:
            self._end = self._body_at + int(length)
        elif _header(head, b"transfer-encoding") == b"chunked":
            self._chunk_at = self._body_at
        return True

    def _read_chunks(self) -> bool:
        """Step over the chunks that have come; True behind the last."""
        while (line_end := _find_line(self._buffer, self._chunk_at, self._filled)) >= 0:
            size = int(bytes(self._buffer[self._chunk_at : line_end]).split(b";")[0], 16)
            behind = line_end + 2 + size + 2
            if self._filled < behind:
                return False
            self._chunk_at = behind
            if size == 0:
                self._end = behind
                return True
        return False

    def _chunks(self) -> Iterator[memoryview]:
        at = self._body_at
        while (line_end := _find_line(self._buffer, at, self._end)) >= 0:
            size = int(bytes(self._buffer[at:line_end]).split(b";")[0], 16)
            yield self._buffer[line_end + 2 : line_end + 2 + size]
            at = line_end + 2 + size + 2

    def _ended(self) -> bool:
        """The server has hung up: the end of a body without a length, else trouble."""
        if self._body_at == 0 or self._end or self._chunk_at:
            raise TransferError(f"the server hung up after {self._filled} bytes of a reply")
        self._end = self._filled
        self.is_spent = True
        return True


def _header(lowered_head: bytes, name: bytes) -> bytes | None:
    at = lowered_head.find(b"\r\n" + name + b":")
    if at < 0:
        return None
    start = at + len(name) + 3
    return lowered_head[start : lowered_head.find(b"\r\n", start)].strip()


def _find_line(buffer: memoryview, start: int, end: int) -> int:
    """Where the line that starts here ends; -1 when its end has not come yet. Lines are sizes of chunks: short."""
    found = bytes(buffer[start : min(end, start + 64)]).find(b"\r\n")
    return start + found if found >= 0 else -1


def request_head(method: str, path: str, host: str, headers: dict[str, str] | None = None) -> bytes:
    """A request's head as bytes."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(f"{k}: {v}" for k, v in (headers or {}).items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def drive(
    connections: Sequence[Connection],
    requests: Iterator[bytes],
    on_reply: Callable[[Reply], None],
    duration_s: float,
) -> tuple[int, float]:
    """Keep every connection busy with the next request until the time is over or the requests are used up.

    Replies come to `on_reply`, in the order of the requests on one connection. Returns how many there were and the
    seconds they took, those that were under way at the end included.
    """
    for connection in connections:
        connection.rouse()
    if len(connections) == 1:
        return _drive_one(connections[0], requests, on_reply, duration_s)
    count = 0
    with selectors.DefaultSelector() as selector:
        began = time.perf_counter()
        until = began + duration_s
        for connection, request in zip(connections, requests, strict=False):
            connection.send(request)
            selector.register(connection, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(PATIENCE_S)
            if not ready:
                raise TransferError(f"nothing came within {PATIENCE_S} s")
            for key, _ in ready:
                connection = cast("Connection", key.fileobj)
                if connection.pump():
                    count += 1
                    on_reply(connection.reply())
                    _send_next(connection, next(requests, b"") if time.perf_counter() < until else b"", selector)
    return count, time.perf_counter() - began


def _send_next(connection: Connection, request: bytes, selector: selectors.BaseSelector) -> None:
    """The next request on a connection, if there is one; a spent connection gets a new socket with it."""
    is_moving = connection.is_spent or not request
    if is_moving:
        selector.unregister(connection)
    if request:
        connection.send(request)
        if is_moving:
            selector.register(connection, selectors.EVENT_READ)


def _drive_one(
    connection: Connection, requests: Iterator[bytes], on_reply: Callable[[Reply], None], duration_s: float
) -> tuple[int, float]:
    count = 0
    began = now = time.perf_counter()
    for request in requests:
        on_reply(connection.exchange(request))
        count += 1
        now = time.perf_counter()
        if now - began >= duration_s:
            break
    return count, now - began
