"""The data port: listens on TCP and a unix socket and runs a `session` in a thread for each connection.

Used by `__main__`. Connections are kept by `core.sessions`; what a request means is the session's business.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

from helenite.chunkserver.session import TRANSFER_S, Session
from helenite.chunkserver.store import ChunkStore
from helenite.core import frames
from helenite.core.dataport import IdleConnections
from helenite.core.errors import ConfigurationError
from helenite.core.sessions import Sessions
from helenite.core.stream import Stream

log = logging.getLogger(__name__)

SOCKET_PATH_MAX = 100
"""The kernel takes 107 bytes (macOS: 103)."""
BACKLOG = 256


class DataPort:
    """The listeners and all sessions. Thread-safe."""

    def __init__(self, store: ChunkStore, connections_max: int, on_crash: Callable[[], None] | None = None) -> None:
        self._store = store
        self._sessions = Sessions("data", self._serve, connections_max, on_crash)
        self._key = b""
        self._hops = IdleConnections()
        self._socket_path: Path | None = None
        self._private: tempfile.TemporaryDirectory[str] | None = None

    def bind(self, address: str, socket_path: str) -> tuple[int, str]:
        """Bind both sockets, so that their addresses can be announced; the TCP port and the unix socket's path."""
        host, _, port = address.rpartition(":")
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        try:
            tcp = socket.create_server((host.strip("[]"), int(port)), backlog=BACKLOG, family=family)
            self._sessions.add(tcp)
            path = self._socket_path = self._choose_path(socket_path)
            path.unlink(missing_ok=True)
            unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._sessions.add(unix)
            unix.bind(str(path))
            path.chmod(0o600)
            unix.listen(BACKLOG)
        except OSError as error:
            raise ConfigurationError(f"the data port cannot listen on {address}: {error.strerror}") from error
        return int(tcp.getsockname()[1]), str(path)

    def serve(self, capability_key: bytes) -> None:
        """Accept from now on: this server belongs to a cluster and can check capabilities."""
        self._key = capability_key
        self._sessions.start()

    def close(self) -> None:
        """Stop listening, end every connection and wait for its session: the store may be closed after this."""
        if not self._sessions.end():
            return
        self._hops.close()
        self._sessions.wait()
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

    def _serve(self, connection: socket.socket) -> None:
        stream = Stream(connection, TRANSFER_S)
        identity = self._store.identity
        stream.send([frames.encode_greeting(identity.server_id, bytes.fromhex(identity.cluster_id))])
        session = Session(stream, self._store, self._key, self._hops)
        while session.answer():
            pass
