"""HTTP by hand on a socket: tests say exactly which bytes travel, and see exactly what comes back."""

from __future__ import annotations

import re
import socket
import ssl
import time
from dataclasses import dataclass

PATIENCE_S = 30.0
"""With what must come."""


class NoAnswerError(AssertionError):
    """The server kept silent, or hung up without an answer."""


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes
    head: bytes = b""

    @property
    def text(self) -> str:
        return self.body.decode()

    def __getitem__(self, name: str) -> str:
        return self.headers[name.lower()]

    def get(self, name: str) -> str | None:
        return self.headers.get(name.lower())


class RawConnection:
    """One connection to a server."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext | None = None) -> None:
        self.sock = socket.create_connection(address, PATIENCE_S)
        if context is not None:
            self.sock = context.wrap_socket(self.sock, server_hostname="localhost")
        self._buffer = b""

    def __enter__(self) -> RawConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def finish_sending(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def read_reply(self, method: str = "GET", patience_s: float = PATIENCE_S) -> Reply:
        """The next response; interim ones are skipped, see `read_interim`."""
        while True:
            head = self._read_until(b"\r\n\r\n", patience_s)
            lines = head.decode("latin-1").split("\r\n")
            status = int(lines[0].split(" ")[1])
            if status >= 200:
                break
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)}
        return Reply(status, headers, self._read_body(method, status, headers, patience_s), head)

    def read_line(self, patience_s: float = PATIENCE_S) -> bytes:
        return self._read_until(b"\r\n", patience_s)

    def read_continue(self) -> None:
        """The interim response that asks for the body."""
        assert self.read_line() == b"HTTP/1.1 100 Continue\r\n"
        assert self.read_line() == b"\r\n"

    def read_to_end(self, patience_s: float = PATIENCE_S) -> bytes:
        """Everything until the server hangs up; NoAnswerError when it does not."""
        deadline = time.monotonic() + patience_s
        while True:
            try:
                data = self._receive(deadline)
            except ConnectionError:
                break
            if not data:
                break
            self._buffer += data
        data, self._buffer = self._buffer, b""
        return data

    def _receive(self, deadline: float) -> bytes:
        self.sock.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            return self.sock.recv(1 << 16)
        except TimeoutError:
            raise NoAnswerError("the server neither answered nor hung up") from None

    def _read_until(self, mark: bytes, patience_s: float) -> bytes:
        deadline = time.monotonic() + patience_s
        while mark not in self._buffer:
            data = self._receive(deadline)
            if not data:
                raise NoAnswerError(f"the server hung up after {self._buffer!r}")
            self._buffer += data
        found, self._buffer = self._buffer.split(mark, 1)
        return found + mark

    def _read_exactly(self, length: int, patience_s: float) -> bytes:
        deadline = time.monotonic() + patience_s
        while len(self._buffer) < length:
            data = self._receive(deadline)
            if not data:
                raise NoAnswerError(f"the body ended after {len(self._buffer)} of {length} bytes")
            self._buffer += data
        found, self._buffer = self._buffer[:length], self._buffer[length:]
        return found

    def _read_body(self, method: str, status: int, headers: dict[str, str], patience_s: float) -> bytes:
        if method == "HEAD" or status in {204, 304}:
            return b""
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self._read_until(b"\r\n", patience_s).split(b";")[0], 16):
                body += self._read_exactly(size, patience_s)
                assert self._read_exactly(2, patience_s) == b"\r\n"
            assert self._read_until(b"\r\n", patience_s) == b"\r\n"
            return body
        if "content-length" in headers:
            return self._read_exactly(int(headers["content-length"]), patience_s)
        return self.read_to_end(patience_s)


@dataclass(frozen=True)
class Client:
    """Requests to one server, each on a connection of its own unless told otherwise."""

    host: str
    port: int
    context: ssl.SSLContext | None = None
    credentials: str = ""
    """Base64 of `name:password`."""
    patience_s: float = PATIENCE_S
    """With what a server of another kind never sends: probes that are known to fail there need not wait as long."""

    @property
    def base(self) -> str:
        return f"http://{self.host}:{self.port}"

    def connect(self) -> RawConnection:
        return RawConnection((self.host, self.port), self.context)

    def head(self, method: str, target: str, headers: dict[str, str] | None = None) -> bytes:
        """A request's head as bytes."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.host}:{self.port}"]
        if self.credentials:
            lines.append(f"Authorization: Basic {self.credentials}")
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        return "\r\n".join(lines).encode() + b"\r\n\r\n"

    def __call__(
        self,
        method: str,
        target: str,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        patience_s: float = PATIENCE_S,
    ) -> Reply:
        framed = dict(headers or {})
        if body is not None or method == "PUT":
            framed.setdefault("Content-Length", str(len(body or b"")))
        with self.connect() as connection:
            connection.send(self.head(method, target, framed) + (body or b""))
            return connection.read_reply(method, patience_s)

    # The usual ones

    def put(self, target: str, body: bytes, **headers: str) -> Reply:
        return self("PUT", target, _named(headers), body)

    def get(self, target: str, **headers: str) -> Reply:
        return self("GET", target, _named(headers))

    def propfind(self, target: str, body: str = "", depth: str = "0", **headers: str) -> Reply:
        return self("PROPFIND", target, {"Depth": depth, **_named(headers)}, body.encode())

    def lock(self, target: str, depth: str = "0", scope: str = "exclusive", **headers: str) -> Reply:
        body = (
            f'<lockinfo xmlns="DAV:"><lockscope><{scope}/></lockscope><locktype><write/></locktype>'
            "<owner>me</owner></lockinfo>"
        )
        return self("LOCK", target, {"Depth": depth, "Timeout": "Second-600", **_named(headers)}, body.encode())

    def token(self, target: str, **options: str) -> str:
        """Lock and return the token with its brackets."""
        reply = self.lock(target, **options)
        assert reply.status in {200, 201}, reply
        return reply["Lock-Token"]


def _named(headers: dict[str, str]) -> dict[str, str]:
    """`if_match=` says `If-Match`."""
    return {name.replace("_", "-"): value for name, value in headers.items()}


def statuses(data: bytes) -> list[int]:
    """The status codes in what a connection gave."""
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3})", data)]
