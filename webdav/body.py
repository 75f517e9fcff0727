"""Bytes from a client: the buffered side of a socket, and a request's body as it is framed.

Used by `server`, which makes one Incoming for each connection, and by `exchange`, which makes one Body for each
request; handlers read the body. A `100 Continue` goes out with the first read, so a request that is refused before
costs its sender no upload. Large pieces come straight from the socket. One thread at a time.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator

from helenite.core.errors import IncompleteBodyError, InvalidRequestError
from helenite.core.stream import TIMED_OUT, limit_waits
from webdav.http1 import CHUNK_LINE_BYTES_MAX, HEAD_BYTES_MAX, TRAILERS_MAX, HeadError, parse_chunk_size

RECEIVE_BYTES = 16 * 1024
"""Asked of the socket while heads and chunk lines are read."""
PIECE_BYTES = 256 * 1024
"""Largest piece of a body handed on at once; larger ones were measured slower, they fall out of the cache."""
END_OF_HEAD = b"\r\n\r\n"


class BodyTooLargeError(InvalidRequestError):
    """More than this kind of body may have (413)."""

    code = "body_too_large"


class Incoming:
    """The reading side of a connection. `deadline` bounds the reading of a head, however slowly it trickles."""

    def __init__(self, sock: socket.socket, timeout_s: float) -> None:
        """No wait is longer than `timeout_s`. A plain socket blocks and the kernel ends its waits (`core.stream`)."""
        self._sock = sock
        self._is_tls = isinstance(sock, ssl.SSLSocket)
        self._timeout_s = timeout_s
        self._limit(timeout_s)
        self._buffer = b""
        self.closed = False

    def has_data(self) -> bool:
        """Whether reading would not wait; asked before an idle connection is watched for input."""
        return bool(self._buffer) or (isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0)

    def close(self) -> None:
        self.closed = True

    def read_some(self, size: int) -> bytes:
        """At least one byte and at most `size`; none at the end of the stream."""
        if self._buffer:
            data, self._buffer = self._buffer[:size], self._buffer[size:]
            return data
        return self._receive(size)

    def read_head(self, patience_s: float) -> bytes:
        """Everything before the next empty line; nothing when the client has gone. TimeoutError after `patience_s`."""
        if not self._buffer and not self._is_tls:
            self._buffer = self._receive(RECEIVE_BYTES)  # it is here: the connection was found to have something to say
            if not self._buffer:
                return b""
        end = self._find_end_of_head()
        if end < 0:
            try:
                end = self._receive_head(time.monotonic() + patience_s)
            finally:
                self._limit(self._timeout_s)
            if end < 0:
                return b""
        if end > HEAD_BYTES_MAX:
            raise HeadError(f"the head of a request has at most {HEAD_BYTES_MAX} bytes", 431)
        head, self._buffer = self._buffer[:end], self._buffer[end + len(END_OF_HEAD) :]
        return head

    def _receive_head(self, deadline: float) -> int:
        """Where the head ends that has not come in one piece; -1 when the client has gone."""
        while (end := self._find_end_of_head()) < 0:
            if len(self._buffer) > HEAD_BYTES_MAX:
                raise HeadError(f"the head of a request has at most {HEAD_BYTES_MAX} bytes", 431)
            self._limit(max(0.001, deadline - time.monotonic()))
            data = self._receive(RECEIVE_BYTES)
            if not data:
                return -1
            self._buffer += data
        return end

    def _find_end_of_head(self) -> int:
        # RFC 9112 section 2.2: an empty line before a request is skipped.
        self._buffer = self._buffer.removeprefix(b"\r\n")
        return self._buffer.find(END_OF_HEAD)

    def read_line(self) -> bytes:
        """A line of the chunked coding without its CRLF."""
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > CHUNK_LINE_BYTES_MAX:
                raise InvalidRequestError("the chunked body is broken: a line is too long")
            data = self._receive(RECEIVE_BYTES)
            if not data:
                raise IncompleteBodyError("the chunked body ended too early")
            self._buffer += data
        line, self._buffer = self._buffer[: end + 1], self._buffer[end + 1 :]
        if not line.endswith(b"\r\n") or len(line) > CHUNK_LINE_BYTES_MAX:
            raise InvalidRequestError("the chunked body is broken: a line does not end with CRLF or is too long")
        return line[:-2]

    def _receive(self, size: int) -> bytes:
        try:
            return self._sock.recv(size)
        except BlockingIOError:
            raise TimeoutError(TIMED_OUT) from None

    def _limit(self, seconds: float) -> None:
        """Let waits end after some time."""
        if self._is_tls:
            self._sock.settimeout(seconds)
        else:
            limit_waits(self._sock, seconds)


class Body:
    """The body of one request (`wsgi.input`). `announced` is its Content-Length, None when it is chunked."""

    def __init__(
        self, incoming: Incoming, announced: int | None, say_continue: Callable[[], None] | None = None
    ) -> None:
        self._incoming = incoming
        self._left = announced or 0
        self._is_chunked = announced is None
        self._say_continue = say_continue
        self.announced = announced
        self.is_complete = announced == 0
        self.is_broken = False

    @property
    def awaits_continue(self) -> bool:
        """Whether the client waits for a `100 Continue` that was not sent yet."""
        return self._say_continue is not None and not self.is_complete

    @property
    def left(self) -> int | None:
        """Bytes not read yet, None when nobody knows."""
        return None if self._is_chunked and not self.is_complete else self._left

    def read(self, size: int = PIECE_BYTES) -> bytes:
        """At least one byte and at most `size`; none at the end.

        IncompleteBodyError when the connection ends before the body, InvalidRequestError when the coding is broken.
        """
        if self.is_complete or self.is_broken:
            return b""
        if self._say_continue is not None:
            say, self._say_continue = self._say_continue, None
            say()
        try:
            return self._read_chunked(size) if self._is_chunked else self._read_known(size)
        except (InvalidRequestError, OSError):
            self.is_broken = True
            raise

    def pieces(self) -> Iterator[bytes]:
        """The rest of the body, piece by piece."""
        while piece := self.read():
            yield piece

    def read_all(self, limit: int) -> bytes:
        """The whole body; BodyTooLargeError when it has more than `limit` bytes."""
        if self.announced is not None and self.announced > limit:
            raise BodyTooLargeError(f"this kind of body has at most {limit} bytes")
        collected = bytearray()
        for piece in self.pieces():
            collected += piece
            if len(collected) > limit:
                raise BodyTooLargeError(f"this kind of body has at most {limit} bytes")
        return bytes(collected)

    def _read_known(self, size: int) -> bytes:
        data = self._incoming.read_some(min(size, self._left))
        if not data:
            raise IncompleteBodyError(f"the connection ended {self._left} bytes before the body did")
        self._left -= len(data)
        self.is_complete = self._left == 0
        return data

    def _read_chunked(self, size: int) -> bytes:
        if self._left == 0:
            self._left = parse_chunk_size(self._incoming.read_line())
            if self._left == 0:
                self._drop_trailers()
                self.is_complete = True
                return b""
        data = self._incoming.read_some(min(size, self._left))
        if not data:
            raise IncompleteBodyError("the connection ended inside a chunk")
        self._left -= len(data)
        if self._left == 0 and self._incoming.read_line():
            raise InvalidRequestError("the chunked body is broken: a chunk is longer than its size")
        return data

    def _drop_trailers(self) -> None:
        """Read the trailers and the last empty line; left in the buffer they would look like the next request."""
        for _ in range(TRAILERS_MAX):
            if not self._incoming.read_line():
                return
        raise InvalidRequestError("the chunked body has too many trailers")
