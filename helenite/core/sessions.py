"""Connections that are served each by a thread of its own: who is let in, who is not, and how all of them end.

Used by the data port and the call port, which say what a connection means. Thread-safe.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from functools import partial

from helenite.core.descriptors import EXHAUSTED, Doorman
from helenite.core.errors import ProtocolError
from helenite.core.process import Worker

log = logging.getLogger(__name__)

ACCEPT_PAUSE_S = 0.1
"""After an accept that failed for no reason that passes by itself."""
CLOSE_S = 5.0
"""Patience with sessions at the end; one that writes to a disk cannot be interrupted."""


class Sessions:
    """Some listeners and the connections that they have accepted."""

    def __init__(
        self,
        what: str,
        serve: Callable[[socket.socket], None],
        connections_max: int,
        on_crash: Callable[[], None] | None = None,
    ) -> None:
        """`what` they are for, in the log; `serve` returns at the end, or raises OSError or ProtocolError."""
        self._what = what
        self._serve = serve
        self._connections_max = connections_max
        self._on_crash = on_crash
        self._listeners: list[socket.socket] = []
        self._changed = threading.Condition()  # guards the two below
        self._connections: set[socket.socket] = set()
        self._is_closed = False

    def add(self, listener: socket.socket) -> None:
        """A listener that is to be closed at the end; it accepts from `start` on."""
        self._listeners.append(listener)

    def start(self) -> None:
        for listener in self._listeners:
            Worker(f"{self._what} in", partial(self._accept, listener), self._on_crash).start()

    def end(self) -> bool:
        """Stop listening and end every connection; False when that was done before."""
        with self._changed:
            if self._is_closed:
                return False
            self._is_closed = True
            connections = list(self._connections)
        for each in self._listeners + connections:
            _shut_down(each)
        for listener in self._listeners:
            listener.close()
        return True

    def wait(self) -> None:
        """Return when all have ended, or after CLOSE_S."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._connections, CLOSE_S):
                log.warning("%d connections for %s do not end", len(self._connections), self._what)

    def _accept(self, listener: socket.socket, stopping: threading.Event) -> None:
        doorman = Doorman(self._what)
        while True:
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if self._is_closed:
                    doorman.close()
                    return
                if error.errno in EXHAUSTED:
                    doorman.turn_away(listener.accept)
                    continue
                log.warning("cannot accept a connection for %s: %s", self._what, error)
                stopping.wait(ACCEPT_PAUSE_S)
                continue
            if not self._admit(connection):
                connection.close()

    def _admit(self, connection: socket.socket) -> bool:
        """Start a session, unless there are too many or all are ending."""
        with self._changed:
            if self._is_closed:
                return False
            if len(self._connections) >= self._connections_max:
                log.warning("%d connections for %s are open; another is refused", len(self._connections), self._what)
                return False
            self._connections.add(connection)
        try:
            Worker(self._what, lambda _: self._run(connection)).start()
        except RuntimeError as error:  # the system gives no more threads
            log.warning("cannot serve a connection for %s: %s", self._what, error)
            self._forget(connection)
            return False
        return True

    def _run(self, connection: socket.socket) -> None:
        try:
            self._serve(connection)
        except (OSError, ProtocolError) as error:
            log.debug("a connection for %s ended: %s", self._what, error)
        finally:
            connection.close()
            self._forget(connection)

    def _forget(self, connection: socket.socket) -> None:
        with self._changed:
            self._connections.discard(connection)
            self._changed.notify_all()


def _shut_down(sock: socket.socket) -> None:
    """Wake whoever waits at this socket."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        log.debug("a connection was gone already: %s", error)
