"""File descriptors, of which a process may run out: ask for all that are allowed, and turn clients away without any.

Used by what accepts connections: the gateway's workers and the data port. A process that has no descriptor left cannot
accept, so a pending connection would neither be served nor go away, and an accept loop would spin. One descriptor is
held in reserve for that moment: it makes room for accepting a client and telling it to come back later.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What accept says when this process or the machine has no room for another connection."""
REST_S = 0.1
"""Pause when a client could not even be turned away: some connection must end first."""
TELL_S = 60.0
"""How often the log hears of it."""


def raise_descriptor_limit() -> None:
    """Ask for as many descriptors as are allowed: each connection, and each replica being read, takes one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError) as error:  # macOS calls the limit infinite and refuses to set it so
        log.debug("the limit of descriptors stays: %s", error)


def descriptor_limit() -> int:
    """How many descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


class Doorman:
    """Turns clients away from one listener. Only the thread that accepts may use it."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._resting = threading.Event()  # never set
        self._told_at = float("-inf")
        self._count = 0

    def close(self) -> None:
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1

    def turn_away(self, accept: Callable[[], tuple[socket.socket, object]], farewell: bytes = b"") -> None:
        """Accept a client that there is no room for, say farewell and close; rest when even that is impossible."""
        self._count += 1
        if time.monotonic() - self._told_at >= TELL_S:
            log.warning("no descriptor is left for %s: %d connections turned away", self._what, self._count)
            self._told_at, self._count = time.monotonic(), 0
        self.close()
        try:
            client, _ = accept()
        except OSError as error:  # another thread took the descriptor, or the client has gone
            log.debug("nobody could be turned away: %s", error)
            self._resting.wait(REST_S)
        else:
            _dismiss(client, farewell)
        with contextlib.suppress(OSError):  # then there is no reserve until the next time
            self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def _dismiss(client: socket.socket, farewell: bytes) -> None:
    """Never waits for the client."""
    with client:
        try:
            client.setblocking(False)  # noqa: FBT003 - the socket's own interface
            if farewell:
                client.send(farewell)
                client.shutdown(socket.SHUT_WR)
                client.recv(65536)  # what is left unread would make the kernel reset the connection, farewell and all
        except OSError as error:
            log.debug("a client left before it was turned away: %s", error)
