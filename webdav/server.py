"""HTTP on sockets: cheroot's accept loop and thread pool with our own connection, request and gateway classes.

Used by `worker`. cheroot waits, accepts and schedules; what it would do wrong with a request is done here instead: heads
are parsed strictly, bodies stream in large pieces, `100 Continue` waits for the first read, unread bodies are drained or
the connection ends, TLS handshakes happen in worker threads, a response that breaks off is never made to look whole.
A connection belongs to one thread at a time; a new one is watched by the selector until its client says something.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from functools import lru_cache
from typing import Any

from cheroot import wsgi
from cheroot.server import HTTPConnection, HTTPRequest
from cheroot.ssl import Adapter
from cheroot.workers.threadpool import ThreadPool

from helenite.client.reader import Segment
from helenite.core.errors import HeleniteError
from webdav.body import Body, Incoming
from webdav.http1 import Head, HeadError, parse_head

log = logging.getLogger(__name__)

SEND_BYTES = 256 * 1024
"""Sent with one call at most, so that the timeout bounds a piece and not a file."""
JOIN_BYTES_MAX = 64 * 1024
"""A first piece up to this size travels in one packet train with the head."""
HEAD_S = 20.0
"""Patience for a whole head, and for a TLS handshake: a client that trickles may not hold a thread for long."""
DRAIN_BYTES_MAX = 64 * 1024
"""An unread rest of a body up to this size is read and dropped; more costs less as a new connection."""
LINGER_S = 2.0
LINGER_BYTES_MAX = 16 * 1024 * 1024
"""After an early answer the connection is half closed and read for a while: a reset would destroy the answer."""
BACKLOG = 1024
"""Connections that the kernel holds until they are accepted; a reconnecting office fits."""
WAITING_MAX = 1024
"""Requests that wait for a thread; beyond them clients get 503 at once."""
IDLE_CONNECTIONS_MAX = 10_000
"""Idle connections of one worker: mounts keep several open each; the limit on descriptors comes first."""
SERVER_NAME = "Helenite"

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[Any]]


class BrokenResponseError(HeleniteError):
    """A response broke off after its head was sent: the connection must end, so that the client notices."""

    code = "broken_response"


@lru_cache(maxsize=2)
def _http_date(now_s: int) -> bytes:
    return formatdate(now_s, usegmt=True).encode("ascii")


class Outgoing:
    """The writing side of a connection, in the shape that cheroot expects."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def write(self, data: bytes | memoryview) -> None:
        """Send everything; each piece has the socket's timeout to itself."""
        view = memoryview(data)
        for at in range(0, len(view), SEND_BYTES):
            self._sock.sendall(view[at : at + SEND_BYTES])

    def send_file(self, descriptor: int, offset: int, length: int) -> None:
        """Send a range of an open file; without TLS it never enters this process."""
        if isinstance(self._sock, ssl.SSLSocket):
            self._send_file_by_hand(descriptor, offset, length)
            return
        timeout = self._sock.gettimeout()
        patience_ms = None if timeout is None else int(timeout * 1000)
        poll = select.poll()
        poll.register(self._sock, select.POLLOUT)
        end = offset + length
        while offset < end:
            try:
                sent = os.sendfile(self._sock.fileno(), descriptor, offset, end - offset)
            except BlockingIOError:
                if not poll.poll(patience_ms):
                    raise TimeoutError("timed out") from None
                continue
            if sent == 0:
                raise BrokenResponseError("a file became shorter while it was sent")
            offset += sent

    def _send_file_by_hand(self, descriptor: int, offset: int, length: int) -> None:
        end = offset + length
        while offset < end:
            data = os.pread(descriptor, min(SEND_BYTES, end - offset), offset)
            if not data:
                raise BrokenResponseError("a file became shorter while it was sent")
            self._sock.sendall(data)
            offset += len(data)


class Request(HTTPRequest):  # type: ignore[misc]
    """One request and its response."""

    conn: Connection
    head: Head
    body: Body

    def parse_request(self) -> None:
        """Read and parse the head; `ready` tells whether there is something to answer."""
        self.close_connection = True
        try:
            data = self.conn.rfile.read_head(HEAD_S)
            self.started_request = bool(data)
            if not data:
                return
            self.head = parse_head(data)
        except HeadError as error:
            self.started_request = True
            self.refuse(error.status, str(error))
            return
        self.close_connection = self.head.wants_close
        self.method = self.head.method.encode("ascii")
        self.response_protocol = f"HTTP/1.{self.head.version[1]}"
        say = self._say_continue if self.head.expects_continue else None
        self.body = Body(self.conn.rfile, None if self.head.is_chunked else self.head.content_length, say)
        self.ready = True

    def respond(self) -> None:
        """Let the gateway answer, then leave the connection clean for the next request or mark it for closing."""
        self.server.gateway(self).respond()
        if not self.close_connection:
            self.close_connection = not self._drain()
        if self.close_connection and not self.body.is_complete:
            self.conn.linger_for_client()

    def _drain(self) -> bool:
        """Read what the application left of the body; False when the connection must not be used again."""
        body = self.body
        if body.is_complete:
            return True
        if body.is_broken or body.left is None or body.left > DRAIN_BYTES_MAX or body.awaits_continue:
            return False
        try:
            for _ in body.pieces():
                pass
        except (HeleniteError, OSError) as error:
            log.info("the rest of a body could not be read: %s", error)
            return False
        return True

    def will_close(self) -> bool:
        """Whether the connection ends after this response, as far as its head can know."""
        body = self.body
        is_undrainable = not body.is_complete and (
            body.is_broken or body.left is None or body.left > DRAIN_BYTES_MAX or body.awaits_continue
        )
        return self.close_connection or is_undrainable or not self.server.can_add_keepalive_connection

    def _say_continue(self) -> None:
        if not self.sent_headers:
            self.conn.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def refuse(self, status: int, sentence: str) -> None:
        """A plain answer to what is no request; the connection ends."""
        self.simple_response(f"{status} {_PHRASES.get(status, 'Error')}", sentence)
        self.conn.linger_for_client()

    def simple_response(self, status: str, msg: str = "") -> None:
        """Also called by cheroot for timeouts (408), crashes (500) and overload (503)."""
        self.close_connection = True
        self.sent_headers = True
        text = msg.encode("utf-8", "replace") + b"\n" if msg else b""
        lines = [
            b"HTTP/1.1 " + status.encode("latin-1"),
            b"Content-Type: text/plain; charset=utf-8",
            b"Content-Length: %d" % len(text),
            b"Date: " + _http_date(int(time.time())),
            b"Connection: close",
            b"\r\n",
        ]
        with contextlib.suppress(OSError):  # the client is gone; there is nobody to tell
            self.conn.wfile.write(b"\r\n".join(lines) + text)


_PHRASES = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    505: "HTTP Version Not Supported",
}


class Gateway(wsgi.Gateway_10):  # type: ignore[misc]
    """Calls the WSGI application and sends what it returns: bytes, memoryviews or Segments of files."""

    req: Request

    def get_environ(self) -> dict[str, Any]:
        """WSGI's view of the request. `REQUEST_URI` is the raw target; paths are parsed from it, once."""
        request = self.req
        head, connection = request.head, request.conn
        path, _, query = head.target.partition("?")
        return {
            "REQUEST_METHOD": head.method,
            "REQUEST_URI": head.target,
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REMOTE_ADDR": connection.remote_addr or "",
            "SERVER_NAME": request.server.server_name,
            "SERVER_PORT": str(request.server.bind_addr[1]),
            "SERVER_PROTOCOL": request.response_protocol,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https" if connection.is_tls else "http",
            "wsgi.input": request.body,
            "wsgi.errors": _NOWHERE,
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            **head.headers,
        }

    def respond(self) -> None:
        request = self.req
        response = request.server.wsgi_app(self.env, self.start_response)
        try:
            for piece in response:
                self._send(piece)
            self._finish()
        except HeleniteError as error:
            log.error("a response broke off: %s", error)
            request.close_connection = True
        finally:
            if hasattr(response, "close"):
                response.close()

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        """Keep the head until the first piece of the body is there, so that both travel together."""
        del exc_info
        self.started_response = True
        request = self.req
        request.status = status.encode("latin-1")
        self._length: int | None = None
        self._is_chunked = False
        lines = [request.server.protocol.encode("ascii") + b" " + request.status]
        for name, value in headers:
            if name.lower() == "content-length":
                self._length = int(value)
            elif name.lower() == "connection" and value.lower() == "close":
                request.close_connection = True
                continue
            lines.append(f"{name}: {value}".encode("latin-1"))
        self._frame(lines, int(status[:3]))
        lines.append(b"Date: " + _http_date(int(time.time())))
        lines.append(b"Server: " + SERVER_NAME.encode())
        request.close_connection = request.will_close()
        if request.close_connection:
            lines.append(b"Connection: close")
        elif request.head.version == (1, 0):
            lines.append(b"Connection: keep-alive")
        self._pending = b"\r\n".join(lines) + b"\r\n\r\n"

    def _frame(self, lines: list[bytes], status: int) -> None:
        """Decide how the client sees where the body ends."""
        request = self.req
        self._has_body = request.head.method != "HEAD" and status >= 200 and status not in {204, 304}
        if self._length is not None or not self._has_body:
            return
        if request.head.version == (1, 1):
            self._is_chunked = True
            lines.append(b"Transfer-Encoding: chunked")
        else:
            request.close_connection = True

    def _send(self, piece: bytes | memoryview | Segment) -> None:
        length = piece.length if isinstance(piece, Segment) else len(piece)
        if not self._has_body or length == 0:
            return
        if self._length is not None:
            self._length -= length
            if self._length < 0:
                raise BrokenResponseError("a response is longer than its Content-Length")
        if self._is_chunked:
            self._pending += b"%x\r\n" % length
        out = self.req.conn.wfile
        if isinstance(piece, Segment) and piece.data is None:
            assert piece.descriptor is not None, piece
            self._flush()
            out.send_file(piece.descriptor, piece.offset, length)
        else:
            self._send_data(piece.data if isinstance(piece, Segment) else piece)
        if self._is_chunked:
            self._pending = b"\r\n"

    def _send_data(self, data: bytes | memoryview | None) -> None:
        assert data is not None
        if self._pending and len(data) <= JOIN_BYTES_MAX:
            data = self._pending + bytes(data)
            self._pending = b""
            self.req.sent_headers = True
        self._flush()
        self.req.conn.wfile.write(data)

    def _flush(self) -> None:
        self.req.sent_headers = True
        if self._pending:
            pending, self._pending = self._pending, b""
            self.req.conn.wfile.write(pending)

    def _finish(self) -> None:
        if self._is_chunked:
            self._pending += b"0\r\n\r\n"
        self._flush()
        if self._has_body and self._length:
            raise BrokenResponseError(f"a response is {self._length} bytes shorter than its Content-Length")


class Connection(HTTPConnection):  # type: ignore[misc]
    """A client's connection."""

    RequestHandlerClass = Request
    rfile: Incoming
    wfile: Outgoing

    def __init__(self, server: Server, sock: socket.socket, makefile: object = None) -> None:
        del makefile
        self.server = server
        self.socket = sock
        self.rfile = Incoming(sock)
        self.wfile = Outgoing(sock)
        self.requests_seen = 0
        self.is_fresh = True
        self.is_tls = isinstance(sock, ssl.SSLSocket)
        self._needs_handshake = self.is_tls

    def communicate(self) -> bool:
        """Answer one request; True when the connection may be kept."""
        if self._needs_handshake and not self._shake_hands():
            return False
        return bool(super().communicate())

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


class LazyTls(Adapter):  # type: ignore[misc]
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

    def makefile(self, sock: socket.socket, mode: str = "r", bufsize: int = -1) -> object:
        raise AssertionError("connections make their own files")


class _Nowhere:
    """`wsgi.errors`: our application logs; nothing writes here."""

    def write(self, text: str) -> None:
        log.warning("%s", text)

    def flush(self) -> None:
        pass


_NOWHERE = _Nowhere()


class Server(wsgi.Server):  # type: ignore[misc]
    """One worker's server on a port that it shares with the others."""

    ConnectionClass = Connection
    keep_alive_conn_limit = IDLE_CONNECTIONS_MAX

    def __init__(
        self, address: tuple[str, int], app: WsgiApp, *, threads: int, timeout_s: float, reuse_port: bool = False
    ) -> None:
        super().__init__(
            address, app, server_name=SERVER_NAME, timeout=timeout_s, request_queue_size=BACKLOG, reuse_port=reuse_port
        )
        self.gateway = Gateway
        self.requests = ThreadPool(
            self, min=threads, max=threads, accepted_queue_size=WAITING_MAX, accepted_queue_timeout=0
        )

    def process_conn(self, conn: Connection) -> None:
        """Give a connection that has something to say to a thread; a fresh one waits until it does."""
        if conn.is_fresh:
            conn.is_fresh = False
            self._connections.put(conn)
            return
        super().process_conn(conn)

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:  # noqa: FBT001, FBT002
        """cheroot's log becomes ours."""
        log.log(level, "%s", msg, exc_info=traceback)
