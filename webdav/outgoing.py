"""Bytes to a client: sending pieces on a socket whose waits end.

Used by `exchange` through its connection. A plain socket blocks, so that the kernel takes a large piece in one call and
ends the wait for a client that does not read (`core.stream`). One thread at a time.
"""

from __future__ import annotations

import socket
import ssl

from helenite.core.errors import HeleniteError
from helenite.core.stream import TIMED_OUT

SEND_BYTES = 256 * 1024
"""Encrypted and sent with one call at most, so that the timeout bounds a piece and not a file."""


class BrokenResponseError(HeleniteError):
    """A response broke off after its head was sent: the connection must end, so that the client notices."""

    code = "broken_response"


class Outgoing:
    """The writing side of a connection, in the shape that cheroot expects."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._is_tls = isinstance(sock, ssl.SSLSocket)

    def write(self, data: bytes | memoryview) -> None:
        """Send everything; as long as something is taken, the socket's timeout begins anew."""
        view = memoryview(data)
        most = SEND_BYTES if self._is_tls else len(view)
        try:
            while len(view) > 0:
                view = view[self._sock.send(view[:most]) :]
        except (BlockingIOError, TimeoutError):  # of TLS, whose words cheroot would take for trouble
            raise TimeoutError(TIMED_OUT) from None
