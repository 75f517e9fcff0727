"""The head of an HTTP/1.1 request, parsed strictly: where two parsers disagree, requests are smuggled.

Used by `exchange` and `body`. It decides what is well formed and where the body ends (RFC 9112); what the headers mean
is decided elsewhere. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from helenite.core.errors import InvalidRequestError

HEAD_BYTES_MAX = 64 * 1024
"""Longest head: room for long paths in `If` and `Destination`, not for filling memory."""
HEADERS_MAX = 128
"""Header lines in one head; browsers send about 20."""
CHUNK_LINE_BYTES_MAX = 4096
"""Longest line with a chunk's size and extensions, or of a trailer."""
TRAILERS_MAX = 64
"""Trailer lines that are read and dropped after a chunked body."""
LENGTH_DIGITS_MAX = 18
"""Digits of a Content-Length; 10**18 bytes are beyond any disk."""

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(rb"[\x21\x22\x24-\x7e\x80-\xff]+")
_VERSION = re.compile(rb"HTTP/(\d)\.(\d)")
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?]*")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(;[\t\x20-\x7e\x80-\xff]*)?")

ONLY_ONCE = frozenset(
    {
        "CONTENT_LENGTH",
        "CONTENT_TYPE",
        "HTTP_HOST",
        "HTTP_TRANSFER_ENCODING",
        "HTTP_AUTHORIZATION",
        "HTTP_DEPTH",
        "HTTP_DESTINATION",
        "HTTP_OVERWRITE",
        "HTTP_RANGE",
        "HTTP_IF_RANGE",
        "HTTP_IF_MODIFIED_SINCE",
        "HTTP_IF_UNMODIFIED_SINCE",
        "HTTP_LOCK_TOKEN",
        "HTTP_TIMEOUT",
        "HTTP_CONTENT_RANGE",
        "HTTP_CONTENT_MD5",
        "HTTP_X_OC_MTIME",
        "HTTP_EXPECT",
    }
)
"""Headers that cannot be lists: two of them are two opinions, so the request is refused."""


class HeadError(InvalidRequestError):
    """The head is malformed; `status` is what the client gets, and the connection ends."""

    code = "bad_head"

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True)
class Head:
    """A well-formed head. `headers` has WSGI's names; `target` is raw and begins with `/` or is `*`."""

    method: str
    target: str
    version: tuple[int, int]
    headers: dict[str, str]
    content_length: int
    is_chunked: bool
    wants_close: bool
    expects_continue: bool


def parse_head(data: bytes) -> Head:
    """Parse everything before the empty line."""
    first, *lines = data.split(b"\r\n")
    method, target, version = _parse_request_line(first)
    headers = _parse_headers(lines)
    if version == (1, 1) and "HTTP_HOST" not in headers:
        raise HeadError("a request of HTTP/1.1 has a Host header")
    length, is_chunked = _parse_framing(headers, version)
    connection = {option.strip().lower() for option in headers.get("HTTP_CONNECTION", "").split(",")}
    wants_close = "close" in connection or (version == (1, 0) and "keep-alive" not in connection)
    expects = version == (1, 1) and headers.get("HTTP_EXPECT", "").strip().lower() == "100-continue"
    return Head(method, target, version, headers, length, is_chunked, wants_close, expects)


def _parse_request_line(line: bytes) -> tuple[str, str, tuple[int, int]]:
    parts = line.split(b" ")
    if len(parts) != 3 or not _TOKEN.fullmatch(parts[0]) or not _TARGET.fullmatch(parts[1]):
        raise HeadError("the request line is malformed")
    match = _VERSION.fullmatch(parts[2])
    if match is None:
        raise HeadError("the request line has no HTTP version")
    if match[1] != b"1":
        raise HeadError("this server speaks HTTP/1.1", 505)
    version = (1, 0) if match[2] == b"0" else (1, 1)
    target = parts[1].decode("latin-1")
    absolute = _ABSOLUTE.match(target)
    if absolute is not None:
        target = target[absolute.end() :] or "/"
    if not target.startswith("/") and target != "*":
        raise HeadError("the request target is a path that starts with '/'")
    return parts[0].decode("ascii"), target, version


def _parse_headers(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > HEADERS_MAX:
        raise HeadError(f"a request has at most {HEADERS_MAX} headers", 431)
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise HeadError("a header line is malformed")
        if b"_" in name:
            continue  # would be taken for the header that has '-' in that place
        key = name.decode("ascii").upper().replace("-", "_")
        key = key if key in {"CONTENT_LENGTH", "CONTENT_TYPE"} else f"HTTP_{key}"
        text = value.strip(b" \t").decode("latin-1")
        if key not in headers:
            headers[key] = text
        elif key in ONLY_ONCE:
            raise HeadError(f"the header {name.decode('ascii')} is there twice")
        else:
            headers[key] += f"; {text}" if key == "HTTP_COOKIE" else f", {text}"
    return headers


def _parse_framing(headers: dict[str, str], version: tuple[int, int]) -> tuple[int, bool]:
    """The length of the body and whether it is chunked (RFC 9112 section 6.3)."""
    encoding = headers.get("HTTP_TRANSFER_ENCODING")
    length = headers.get("CONTENT_LENGTH")
    if encoding is not None:
        if length is not None or version != (1, 1):
            raise HeadError("a body is framed by Transfer-Encoding or by Content-Length, and the former is of HTTP/1.1")
        if encoding.strip().lower() != "chunked":
            raise HeadError("the only transfer coding known here is 'chunked'", 501)
        return 0, True
    if length is None:
        return 0, False
    if not (length.isascii() and length.isdigit()) or len(length) > LENGTH_DIGITS_MAX:
        raise HeadError("Content-Length is no length")
    return int(length), False


def parse_chunk_size(line: bytes) -> int:
    """The size in a line that opens a chunk, without its CRLF; extensions are ignored."""
    match = _CHUNK_SIZE.fullmatch(line)
    if match is None:
        raise InvalidRequestError("the chunked body is broken: a chunk's size is malformed")
    return int(match[1], 16)
