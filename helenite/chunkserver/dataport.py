"""The data port: listens on TCP and a unix socket and runs a `session` in a thread for each connection (D10, D17).

Used by `__main__`. It knows how many connections there are and ends them all when it closes; what a request means is
the session's business.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from helenite.chunkserver.forwarding import Hops
from helenite.chunkserver.session import TRANSFER_S, Session
from helenite.chunkserver.store import ChunkStore
from helenite.core import frames
from helenite.core.dataport import configure
from helenite.core.descriptors import EXHAUSTED, Doorman
from helenite.core.errors import ConfigurationError, ProtocolError
from helenite.core.process import Worker

log = logging.getLogger(__name__)

SOCKET_PATH_MAX = 100
"""The kernel takes 107 bytes (macOS: 103)."""
BACKLOG = 256
ACCEPT_PAUSE_S = 0.1
"""After an accept that failed for no reason that passes by itself."""
CLOSE_S = 5.0
"""Patience with sessions at the end; one that writes to a disk cannot be interrupted."""


class DataPort:
    """The listeners and all sessions. Thread-safe."""

    def __init__(self, store: ChunkStore, connections_max: int, on_crash: Callable[[], None] | None = None) -> None:
        self._store = store
        self._connections_max = connections_max
        self._on_crash = on_crash
        self._key = b""
        self._hops = Hops()
        self._listeners: list[socket.socket] = []
        self._socket_path: Path | None = None
        self._private: tempfile.TemporaryDirectory[str] | None = None
        self._changed = threading.Condition()  # guards the two below
        self._connections: set[socket.socket] = set()
        self._is_closed = False

    def bind(self, address: str, socket_path: str) -> tuple[int, str]:
        """Bind both sockets, so that their addresses can be announced; the TCP port and the unix socket's path."""
        host, _, port = address.rpartition(":")
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        try:
            tcp = socket.create_server((host.strip("[]"), int(port)), backlog=BACKLOG, family=family)
            self._listeners.append(tcp)
            path = self._socket_path = self._choose_path(socket_path)
            path.unlink(missing_ok=True)
            unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._listeners.append(unix)
            unix.bind(str(path))
            path.chmod(0o600)
            unix.listen(BACKLOG)
        except OSError as error:
            raise ConfigurationError(f"the data port cannot listen on {address}: {error.strerror}") from error
        return int(tcp.getsockname()[1]), str(path)

    def serve(self, capability_key: bytes) -> None:
        """Accept from now on: this server belongs to a cluster and can check capabilities."""
        self._key = capability_key
        for listener in self._listeners:
            name = "accept-unix" if listener.family == socket.AF_UNIX else "accept-tcp"
            Worker(name, partial(self._accept, listener), self._on_crash).start()

    def close(self) -> None:
        """Stop listening, end every connection and wait for its session: the store may be closed after this."""
        with self._changed:
            if self._is_closed:
                return
            self._is_closed = True
            connections = list(self._connections)
        for listening_or_open in self._listeners + connections:
            _shut_down(listening_or_open)
        for listener in self._listeners:
            listener.close()
        self._hops.close()
        with self._changed:
            if not self._changed.wait_for(lambda: not self._connections, CLOSE_S):
                log.warning("%d data connections do not end", len(self._connections))
        if self._socket_path is not None:
            self._socket_path.unlink(missing_ok=True)
        if self._private is not None:
            self._private.cleanup()

    def _choose_path(self, wanted: str) -> Path:
        """The wanted socket path, or one in a private directory when it is too long for the kernel."""
        if len(os.fsencode(wanted)) <= SOCKET_PATH_MAX:
            return Path(wanted)
        self._private = tempfile.TemporaryDirectory(prefix="helenite-")
        return Path(self._private.name) / "data.sock"

    def _accept(self, listener: socket.socket, stopping: threading.Event) -> None:
        doorman = Doorman("data connections")
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
                log.warning("cannot accept a data connection: %s", error)
                stopping.wait(ACCEPT_PAUSE_S)
                continue
            if not self._admit(connection):
                connection.close()

    def _admit(self, connection: socket.socket) -> bool:
        """Start a session, unless there are too many or the port is closing."""
        with self._changed:
            if self._is_closed:
                return False
            if len(self._connections) >= self._connections_max:
                log.warning("%d data connections are open; another is refused", len(self._connections))
                return False
            self._connections.add(connection)
        try:
            Worker("data", lambda _: self._serve(connection)).start()
        except RuntimeError as error:  # the system gives no more threads
            log.warning("cannot serve a data connection: %s", error)
            self._forget(connection)
            return False
        return True

    def _serve(self, connection: socket.socket) -> None:
        try:
            configure(connection)
            identity = self._store.identity
            connection.settimeout(TRANSFER_S)
            connection.sendall(frames.encode_greeting(identity.server_id, bytes.fromhex(identity.cluster_id)))
            session = Session(connection, self._store, self._key, self._hops)
            while session.answer():
                pass
        except (OSError, ProtocolError) as error:
            log.debug("a data connection ended: %s", error)
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
