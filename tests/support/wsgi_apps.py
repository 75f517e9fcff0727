"""Bare WSGI applications, for tests of the HTTP layer alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

App = Callable[[dict[str, Any], Any], Any]
BIG = 3 * 1024 * 1024 + 17
"""Bytes that `from_a_buffer` answers with."""
BIG_CONTENT = (bytes(range(256)) * (BIG // 256 + 1))[:BIG]


def hello(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]


def read_a_little(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answers with the size of the first piece of the body."""
    size = str(len(environ["wsgi.input"].read(1000))).encode()
    start_response("200 OK", [("Content-Length", str(len(size)))])
    return [size]


def from_a_buffer(environ: dict[str, Any], start_response: Any) -> Iterator[Any]:
    """Each piece stands until the next one is taken."""
    start_response("200 OK", [("Content-Length", str(BIG))])
    buffer = memoryview(bytearray(100_000))
    for at in range(0, BIG, len(buffer)):
        piece = BIG_CONTENT[at : at + len(buffer)]
        buffer[: len(piece)] = piece
        yield buffer[: len(piece)]
