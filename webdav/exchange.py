"""One request and its response on a connection: cheroot's HTTPRequest and WSGI gateway, replaced.

Used by `server`. Heads are parsed strictly, `100 Continue` waits for the first read of the body, unread bodies are
drained or the connection ends, and a response that breaks off is never made to look whole.
"""

from __future__ import annotations

import contextlib
import logging
import select
from email.utils import formatdate
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cheroot import wsgi
from cheroot.server import HTTPRequest

from helenite.core.errors import HeleniteError
from webdav.body import Body
from webdav.http1 import Head, HeadError, parse_head
from webdav.outgoing import BrokenResponseError
from webdav.response import status_line

if TYPE_CHECKING:
    from webdav.server import Connection

log = logging.getLogger(__name__)

JOIN_BYTES_MAX = 64 * 1024
"""A first piece up to this size travels in one packet train with the head."""
HEAD_S = 20.0
"""Patience for a whole head, and for a TLS handshake: a client that trickles may not hold a thread for long."""
DRAIN_BYTES_MAX = 64 * 1024
"""An unread rest of a body up to this size is read and dropped; more costs less as a new connection."""
SERVER_NAME = "Helenite"


@lru_cache(maxsize=2)
def _http_date(now_s: int) -> bytes:
    return formatdate(now_s, usegmt=True).encode("ascii")


class Exchange(HTTPRequest):
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
        self.simple_response(status_line(status), sentence)
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
            b"Date: " + _http_date(self.server.clock.now_ms() // 1000),
            b"Connection: close",
            b"\r\n",
        ]
        with contextlib.suppress(OSError):  # the client is gone; there is nobody to tell
            self.conn.wfile.write(b"\r\n".join(lines) + text)


class _Nowhere:
    """`wsgi.errors`: our application logs; nothing writes here."""

    def write(self, text: str) -> None:
        log.warning("%s", text)

    def flush(self) -> None:
        pass


_NOWHERE = _Nowhere()


class Gateway(wsgi.Gateway_10):
    """Calls the WSGI application and sends what it returns: bytes or memoryviews."""

    req: Exchange

    def get_environ(self) -> dict[str, Any]:  # type: ignore[override]
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
            "helenite.is_gone": self._is_gone,
            **head.headers,
        }

    def _is_gone(self, patience_s: float) -> bool:
        """Whether the client hangs up within some time, or the server stops: nobody waits for an answer then."""
        poll = select.poll()
        poll.register(self.req.conn.socket, select.POLLRDHUP)
        return bool(poll.poll(patience_s * 1000)) or not self.req.server.ready

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
        request.status = status
        self._length: int | None = None
        self._is_chunked = False
        lines = [request.server.protocol.encode("ascii") + b" " + status.encode("latin-1")]
        for name, value in headers:
            if name.lower() == "content-length":
                self._length = int(value)
            elif name.lower() == "connection" and value.lower() == "close":
                request.close_connection = True
                continue
            lines.append(f"{name}: {value}".encode("latin-1"))
        self._frame(lines, int(status[:3]))
        lines.append(b"Date: " + _http_date(request.server.clock.now_ms() // 1000))
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

    def _send(self, piece: bytes | memoryview) -> None:
        length = len(piece)
        if not self._has_body or length == 0:
            return
        if self._length is not None:
            self._length -= length
            if self._length < 0:
                raise BrokenResponseError("a response is longer than its Content-Length")
        if self._is_chunked:
            self._pending += b"%x\r\n" % length
        if self._pending and length <= JOIN_BYTES_MAX:
            piece = self._pending + bytes(piece)
            self._pending = b""
        self._flush()
        self.req.conn.wfile.write(piece)
        if self._is_chunked:
            self._pending = b"\r\n"

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
