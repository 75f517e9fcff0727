from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helenite.core.errors import InvalidRequestError
from webdav.http1 import HeadError, parse_chunk_size, parse_head


def head(*lines: str) -> bytes:
    return "\r\n".join(lines).encode("latin-1")


def test_a_usual_head() -> None:
    parsed = parse_head(
        head("PUT /a%20b?c HTTP/1.1", "Host: h", "Content-Length: 12", 'If-Match:  "x"  ', "Expect: 100-CONTINUE")
    )
    assert (parsed.method, parsed.target, parsed.version) == ("PUT", "/a%20b?c", (1, 1))
    assert parsed.headers["HTTP_IF_MATCH"] == '"x"'
    assert (parsed.content_length, parsed.is_chunked, parsed.expects_continue) == (12, False, True)
    assert not parsed.wants_close


def test_lists_are_joined_and_underscores_dropped() -> None:
    parsed = parse_head(
        head("GET / HTTP/1.1", "Host: h", "If: (<a>)", "if: (<b>)", "Cookie: a=1", "Cookie: b=2", "If_Match: *")
    )
    assert parsed.headers["HTTP_IF"] == "(<a>), (<b>)"
    assert parsed.headers["HTTP_COOKIE"] == "a=1; b=2"
    assert "HTTP_IF_MATCH" not in parsed.headers


def test_an_absolute_target_is_taken_by_its_path() -> None:
    assert parse_head(head("GET http://h:80/a/b?c HTTP/1.1", "Host: h")).target == "/a/b?c"
    assert parse_head(head("GET http://h HTTP/1.1", "Host: h")).target == "/"
    assert parse_head(head("OPTIONS * HTTP/1.1", "Host: h")).target == "*"


@pytest.mark.parametrize(
    ("version", "connection", "wants_close"),
    [
        ("1.1", "", False),
        ("1.1", "Close", True),
        ("1.1", "TE, close", True),
        ("1.0", "", True),
        ("1.0", "Keep-Alive", False),
    ],
)
def test_connection(version: str, connection: str, wants_close: bool) -> None:
    parsed = parse_head(head(f"GET / HTTP/{version}", "Host: h", f"Connection: {connection}"))
    assert parsed.wants_close is wants_close


@pytest.mark.parametrize(
    ("status", "lines"),
    [
        (400, ["GET /"]),
        (400, ["GET  / HTTP/1.1"]),
        (400, ["GET / HTTP/1.1 x"]),
        (400, ["GET / http/1.1"]),
        (400, ["G\x00T / HTTP/1.1"]),
        (400, ["GET a HTTP/1.1"]),
        (400, ["GET /a#b HTTP/1.1", "Host: h"]),
        (400, ["GET /\x01 HTTP/1.1"]),
        (505, ["GET / HTTP/2.0"]),
        (400, ["GET / HTTP/1.1"]),
        (400, ["GET / HTTP/1.1", "Host: h", "Host: h"]),
        (400, ["GET / HTTP/1.1", "Host: h", "Bad"]),
        (400, ["GET / HTTP/1.1", "Host: h", "Bad : x"]),
        (400, ["GET / HTTP/1.1", "Host: h", " folded"]),
        (400, ["GET / HTTP/1.1", "Host: h", "X: a\x00b"]),
        (400, ["GET / HTTP/1.1", "Host: h", "X: a\nb"]),
        (400, ["GET / HTTP/1.1", "Host: h", "Depth: 0", "Depth: 1"]),
        (400, ["GET / HTTP/1.1", "Host: h", "Content-Length: 1", "Content-Length: 1"]),
        (400, ["GET / HTTP/1.1", "Host: h", "Content-Length: -1"]),
        (400, ["GET / HTTP/1.1", "Host: h", "Content-Length: 0x1"]),
        (400, ["GET / HTTP/1.1", "Host: h", "Content-Length: 9999999999999999999"]),
        (400, ["GET / HTTP/1.1", "Host: h", "Content-Length: 1", "Transfer-Encoding: chunked"]),
        (400, ["GET / HTTP/1.0", "Host: h", "Transfer-Encoding: chunked"]),
        (501, ["GET / HTTP/1.1", "Host: h", "Transfer-Encoding: gzip, chunked"]),
        (431, ["GET / HTTP/1.1", "Host: h", *(f"X-{n}: y" for n in range(200))]),
    ],
)
def test_what_is_refused(status: int, lines: list[str]) -> None:
    with pytest.raises(HeadError) as caught:
        parse_head(head(*lines))
    assert caught.value.status == status


def test_chunk_sizes() -> None:
    assert parse_chunk_size(b"1aF") == 0x1AF
    assert parse_chunk_size(b"0 ; name=value") == 0
    for bad in (b"", b"-1", b"0x1", b"g", b"1 1", b"f" * 20, b"1;\x00"):
        with pytest.raises(InvalidRequestError):
            parse_chunk_size(bad)


@given(st.binary(max_size=300))
def test_anything_parses_or_is_refused(data: bytes) -> None:
    with contextlib.suppress(HeadError):
        parse_head(data)
