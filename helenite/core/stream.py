"""A connected socket that is read through a buffer and whose waits the kernel ends.

Used by both ends of the data port and of the call port. A small frame comes whole with one system call, and no wait
costs another one: Python's own timeouts cost a poll before each call and one more to change them. One thread at a
time.
"""

from __future__ import annotations

import math
import select
import socket
import struct
import time
from collections.abc import Sequence

Buffer = bytes | bytearray | memoryview
UNIX_BUFFER_BYTES = 1024 * 1024
"""Of unix sockets, whose default of 208 KiB makes sender and receiver take turns. TCP is left to the kernel, which
grows its buffers further than a program without privileges may."""
KEEPALIVE_S = 60
"""Idle connections whose other end vanished without a word are noticed after this and a few probes."""
PARTS_MAX = 64
"""Buffers handed to one sendmsg; the kernel takes 1,024."""
BUFFER_BYTES = 64 * 1024
GRAIN_S = 0.1
"""How much later than its deadline a wait may end, so that similar deadlines need no new limit."""
TIMED_OUT = "timed out"
"""As Python says it; cheroot compares."""
_TIMEVAL = struct.Struct("@ll")


class Stream:
    """One end of a connection. Waits end with TimeoutError, what was closed by the other end with ConnectionError."""

    def __init__(self, sock: socket.socket, limit_s: float) -> None:
        """Take over a connected socket; no wait is longer than `limit_s`, unless a deadline says otherwise."""
        self.socket = sock
        sock.settimeout(None)
        _configure(sock)
        self._limit_s = limit_s
        limit_waits(sock, limit_s)
        self._arrived = select.poll()
        self._arrived.register(sock, select.POLLIN)
        self._room = select.poll()
        self._room.register(sock, select.POLLOUT)
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._start = self._end = 0

    def close(self) -> None:
        self.socket.close()

    @property
    def is_closed(self) -> bool:
        return self.socket.fileno() < 0

    @property
    def is_empty(self) -> bool:
        """Whether all that was received has been taken."""
        return self._start == self._end

    def is_silent(self) -> bool:
        """Whether nothing has arrived that was not read yet, nor the end of the connection."""
        return self._start == self._end and not self._arrived.poll(0)

    # Receiving

    def wait(self) -> bool:
        """Wait for the first bytes of a request, however long that takes; False when the other end has gone."""
        while self._start == self._end:
            try:
                self._start, self._end = 0, self.socket.recv_into(self._buffer)
            except BlockingIOError:
                continue  # an idle connection may stay: it costs a sleeping thread
            return self._end > 0
        return True

    def take(self, length: int, deadline: float | None = None) -> memoryview:
        """The next bytes. Up to BUFFER_BYTES of them stand until the next call only."""
        if length > len(self._buffer):
            return self.take_over(length, deadline)
        if self._start + length > len(self._buffer) or self._start == self._end:
            rest = self._end - self._start
            self._buffer[:rest] = self._buffer[self._start : self._end]
            self._start, self._end = 0, rest
        while self._end - self._start < length:
            self._end += self._receive(self._buffer[self._end :], deadline)
        self._start += length
        return self._buffer[self._start - length : self._start]

    def take_over(self, length: int, deadline: float | None = None) -> memoryview:
        """The next bytes, in memory of their own."""
        whole = memoryview(bytearray(length))
        at = min(length, self._end - self._start)
        whole[:at] = self._buffer[self._start : self._start + at]
        self._start += at
        while at < length:
            at += self._receive(whole[at:], deadline)
        return whole

    def take_some(self, into: memoryview, most: int) -> memoryview:
        """At least one of the next bytes and at most `most`, in `into` or in the buffer, until the next call."""
        if self._start < self._end:
            start = self._start
            self._start = min(self._end, start + most)
            return self._buffer[start : self._start]
        return into[: self._receive(into[:most], None)]

    def take_descriptors(self, deadline: float) -> list[int]:
        """The descriptors that come with the next byte, for the caller to close; the byte is still to be taken."""
        assert self._start == self._end
        self._limit_to(deadline)
        try:
            first, descriptors, _, _ = socket.recv_fds(self.socket, 1, 1)
        except BlockingIOError:
            raise TimeoutError(TIMED_OUT) from None
        if not first:
            raise ConnectionResetError
        self._buffer[:1] = first
        self._start, self._end = 0, 1
        return descriptors

    def _receive(self, into: memoryview, deadline: float | None) -> int:
        if deadline is not None:
            self._limit_to(deadline)
        try:
            count = self.socket.recv_into(into)
        except BlockingIOError:
            raise TimeoutError(TIMED_OUT) from None
        if count == 0:
            raise ConnectionResetError
        return count

    # Sending

    def send(self, parts: Sequence[Buffer], deadline: float | None = None) -> None:
        """Send all parts, as far as they fit in one system call: a head travels with its small payload."""
        if deadline is not None and deadline <= time.monotonic():
            raise TimeoutError(TIMED_OUT)
        # The kernel's limit would not do: on a unix socket it begins anew with each piece that a slow reader takes.
        while parts := self.send_some(parts):
            left = self._limit_s if deadline is None else deadline - time.monotonic()
            if left <= 0 or not self._room.poll(math.ceil(left * 1000)):
                raise TimeoutError(TIMED_OUT)

    def send_some(self, parts: Sequence[Buffer]) -> list[Buffer]:
        """Send what the kernel takes now, without waiting: what is left."""
        left = list(parts)
        try:
            while left:
                _drop_sent(left, self.socket.sendmsg(left[:PARTS_MAX], (), socket.MSG_DONTWAIT))
        except BlockingIOError:
            pass
        return left

    def _limit_to(self, deadline: float) -> None:
        """Let the next receiving end soon after the deadline (monotonic seconds); TimeoutError when it has passed."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(TIMED_OUT)
        grain = min(GRAIN_S, left / 4)
        if not left <= self._limit_s <= left + grain:
            self._limit_s = left + grain / 2
            limit_waits(self.socket, self._limit_s)


def _drop_sent(parts: list[Buffer], sent: int) -> None:
    """Leave of the parts what was not sent."""
    while parts and sent >= len(parts[0]):
        sent -= len(parts.pop(0))
    if sent:
        parts[0] = memoryview(parts[0])[sent:]


def limit_waits(sock: socket.socket, seconds: float) -> None:
    """Have the kernel end each wait of a blocking socket after some time: BlockingIOError."""
    whole, rest = divmod(max(1, int(seconds * 1_000_000)), 1_000_000)  # to the kernel zero means for ever
    limit = _TIMEVAL.pack(whole, rest)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def _configure(sock: socket.socket) -> None:
    """Options of both ends."""
    if sock.family == socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNIX_BUFFER_BYTES)
    else:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):  # else the system's two hours
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_S // 4)
