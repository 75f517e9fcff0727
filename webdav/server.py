"""Connections: cheroot's accept loop, selector and thread pool with our own connections, TLS and limits.

Used by `worker`. A new connection is watched by the selector until its client says something, so silent clients hold no
thread; TLS handshakes happen in the thread that serves. A connection belongs to one thread at a time.
"""

from __future__ import annotations

import logging
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from typing import Any

from cheroot import wsgi
from cheroot.server import HTTPConnection
from cheroot.ssl import Adapter
from cheroot.workers.threadpool import ThreadPool

from helenite.core.clock import Clock
from helenite.core.descriptors import EXHAUSTED, Doorman, raise_descriptor_limit
from webdav.body import Incoming
from webdav.exchange import HEAD_S, SERVER_NAME, Exchange, Gateway
from webdav.outgoing import SEND_BYTES, Outgoing

log = logging.getLogger(__name__)

LINGER_S = 2.0
LINGER_BYTES_MAX = 16 * 1024 * 1024
"""After an early answer the connection is half closed and read for a while: a reset would destroy the answer."""
NEXT_MS = 5
"""How long a thread waits for the next request of its connection, as long as no other connection waits for a thread."""
BACKLOG = 1024
"""Connections that the kernel holds until they are accepted; a reconnecting office fits."""
WAITING_MAX = 1024
"""Requests that wait for a thread; beyond them clients get 503 at once."""
IDLE_CONNECTIONS_MAX = 10_000
"""Idle connections of one worker: mounts keep several open each; the limit on descriptors comes first."""

SHED_IDLE_S = 5.0
"""Without a descriptor left, connections that have been idle for so long are closed: whoever asks comes first."""
TURNED_AWAY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nConnection: close\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 62\r\n\r\nThe gateway has too many connections; please try again later.\n"
)

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[Any]]


class Connection(HTTPConnection):
    """A client's connection."""

    RequestHandlerClass = Exchange
    rfile: Incoming
    wfile: Outgoing

    def __init__(self, server: Server, sock: socket.socket, makefile: object = None) -> None:
        del makefile
        self.server = server
        self.socket = sock
        self.is_tls = isinstance(sock, ssl.SSLSocket)
        if not self.is_tls:
            sock.settimeout(None)
        self.rfile = Incoming(sock, server.timeout)
        self.wfile = Outgoing(sock, server.timeout)
        self.requests_seen = 0
        self.is_fresh = True
        self._needs_handshake = self.is_tls
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def communicate(self) -> bool:
        """Answer requests while one comes right after the other; True when the connection may be kept."""
        if self._needs_handshake and not self._shake_hands():
            return False
        while super().communicate():  # type: ignore[no-untyped-call]
            if not self._goes_on():
                return True
        return False

    def _goes_on(self) -> bool:
        """Whether this thread serves the next request too, which spares two handovers between threads."""
        if self.server.has_waiting():
            return False
        return self.rfile.has_data() or bool(self._poll.poll(NEXT_MS))

    def _shake_hands(self) -> bool:
        """The TLS handshake, in a worker thread: in the accept loop one slow client would stall everybody."""
        usual = self.socket.gettimeout()
        try:
            self.socket.settimeout(HEAD_S)
            self.socket.do_handshake()
        except (OSError, ValueError) as error:
            log.info("TLS handshake with %s failed: %s", self.remote_addr, error)
            return False
        self.socket.settimeout(usual)
        self._needs_handshake = False
        return True

    def linger_for_client(self) -> None:
        """Close our side and read on for a while, so that the answer is not lost to a reset of the connection."""
        deadline = time.monotonic() + LINGER_S
        budget = LINGER_BYTES_MAX
        try:
            if not self.is_tls:
                self.socket.shutdown(socket.SHUT_WR)
            while budget > 0 and (left := deadline - time.monotonic()) > 0:
                self.socket.settimeout(left)
                data = self.socket.recv(SEND_BYTES)
                if not data:
                    return
                budget -= len(data)
        except OSError as error:
            log.debug("a connection ended while it lingered: %s", error)


class LazyTls(Adapter):
    """TLS whose handshake is left to the thread that serves the connection."""

    def __init__(self, certificate: str, private_key: str) -> None:
        super().__init__(certificate, private_key)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.load_cert_chain(certificate, private_key)

    def bind(self, sock: socket.socket) -> socket.socket:
        return sock

    def wrap(self, sock: socket.socket) -> tuple[ssl.SSLSocket, dict[str, str]]:
        return self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), {}

    def get_environ(self) -> dict[str, str]:
        return {}

    def makefile(self, *_: object) -> object:
        raise AssertionError("connections make their own files")


class Listener(socket.socket):
    """The listening socket: a client that there is no descriptor for is turned away, else cheroot's loop would spin."""

    def __init__(self, server: Server, listening: socket.socket) -> None:
        timeout = listening.gettimeout()
        super().__init__(fileno=listening.detach())
        self.settimeout(timeout)
        self._server = server
        self._usual_timeout_s = server.timeout
        self._doorman = Doorman("HTTP connections")

    def accept(self) -> tuple[socket.socket, Any]:
        """TimeoutError when there is nobody to serve, which is what cheroot expects to hear."""
        try:
            accepted = super().accept()
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
        else:
            self._server.timeout = self._usual_timeout_s
            return accepted
        self._server.timeout = SHED_IDLE_S
        self._doorman.turn_away(super().accept, b"" if self._server.ssl_adapter else TURNED_AWAY)
        raise TimeoutError

    def close(self) -> None:
        super().close()
        self._doorman.close()


class Threads(ThreadPool):
    """Cheroot's threads, which end also when a client does not read."""

    @staticmethod
    def _force_close(conn: Connection | None) -> None:
        """End both directions of a connection that outlasts the patience with it, so that whoever waits there wakes."""
        if conn is None or conn.rfile.closed:
            return
        try:
            socket.socket.shutdown(conn.socket, socket.SHUT_RDWR)  # not by way of TLS, which its thread is using
        except OSError as error:
            log.debug("a connection was gone already: %s", error)


class Server(wsgi.Server):
    """One worker's server on a port that it shares with the others."""

    ConnectionClass = Connection
    keep_alive_conn_limit = IDLE_CONNECTIONS_MAX

    def __init__(
        self,
        address: tuple[str, int],
        app: WsgiApp,
        *,
        threads: int,
        timeout_s: float,
        reuse_port: bool = False,
    ) -> None:
        self.clock = Clock()
        super().__init__(
            address,
            app,
            server_name=SERVER_NAME,
            request_queue_size=BACKLOG,
            timeout=timeout_s,  # type: ignore[arg-type]
            reuse_port=reuse_port,
        )
        self.gateway = Gateway
        self.requests = Threads(
            self, min=threads, max=threads, accepted_queue_size=WAITING_MAX, accepted_queue_timeout=0
        )

    def prepare(self) -> None:
        """Listen, with all the descriptors that are allowed."""
        raise_descriptor_limit()
        super().prepare()
        self.socket = Listener(self, self.socket)

    def has_waiting(self) -> bool:
        """Whether a connection waits for a thread."""
        return bool(self.requests.qsize > 0)

    def process_conn(self, conn: Connection) -> None:
        """Give a connection that has something to say to a thread; a fresh one waits until it does."""
        if conn.is_fresh:
            conn.is_fresh = False
            self._connections.put(conn)  # type: ignore[attr-defined]
            return
        super().process_conn(conn)

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:  # noqa: FBT001, FBT002
        """What cheroot logs goes to our log."""
        log.log(level, "%s", msg, exc_info=traceback)
