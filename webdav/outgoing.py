"""Bytes to a client: sending pieces on a socket whose waits end.

Used by `exchange` through its connection. One thread at a time.
"""

from __future__ import annotations

import select
import socket
import ssl

from helenite.core.errors import HeleniteError
from helenite.core.stream import TIMED_OUT

SEND_BYTES = 256 * 1024
"""Encrypted and sent with one call at most, so that the timeout bounds a piece and not a file."""

SMALL_BYTES = 64 * 1024
"""Up to this size there is mostly room, and asking first would cost as much as sending."""


class BrokenResponseError(HeleniteError):
    """A response broke off after its head was sent: the connection must end, so that the client notices."""

    code = "broken_response"


class Outgoing:
    """The writing side of a connection, in the shape that cheroot expects."""

    def __init__(self, sock: socket.socket, timeout_s: float) -> None:
        """No wait for the client to take more is longer than `timeout_s`."""
        self._sock = sock
        self._timeout_ms = timeout_s * 1000
        self._is_tls = isinstance(sock, ssl.SSLSocket)
        self._room = select.poll()
        self._room.register(sock, select.POLLOUT)

    def write(self, data: bytes | memoryview) -> None:
        """Send everything; as long as something is taken, the patience begins anew."""
        view = memoryview(data)
        if self._is_tls:
            self._encrypt(view)
            return
        if len(view) <= SMALL_BYTES:
            view = view[self._send_some(view) :]
        # The kernel tells of room when there is much of it. One call that waits would wake for each bit.
        while len(view) > 0:
            if not self._room.poll(self._timeout_ms):
                raise TimeoutError(TIMED_OUT)
            view = view[self._send_some(view) :]

    def _send_some(self, view: memoryview) -> int:
        try:
            return self._sock.send(view, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    def _encrypt(self, view: memoryview) -> None:
        try:
            while len(view) > 0:
                view = view[self._sock.send(view[:SEND_BYTES]) :]
        except TimeoutError:  # in words that cheroot would take for trouble
            raise TimeoutError(TIMED_OUT) from None
