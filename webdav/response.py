"""What a handler returns: a status, headers and a body, and how they become a WSGI response.

Used by every handler; the server adds Date and framing. Bodies are pieces, each of which is sent before the next
is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from itertools import chain

BodyPiece = bytes | memoryview
Headers = list[tuple[str, str]]

XML_TYPE = "application/xml; charset=utf-8"
DAV_CLASSES = "1, 2, 3"
"""RFC 4918 section 18; what is here, not more."""
WHOLE_BYTES_MAX = 256 * 1024
"""A generated body up to this size is collected and sent with its length; a longer one is streamed in chunks."""


@dataclass(slots=True)
class Response:
    """One response, not yet sent."""

    status: int
    headers: Headers = field(default_factory=list)
    body: Iterable[BodyPiece] = ()

    def send(self, start_response: Callable[[str, Headers], object]) -> Iterable[BodyPiece]:
        """Start the response in WSGI's way and return its body."""
        start_response(status_line(self.status), [*self.headers, ("DAV", DAV_CLASSES)])
        return self.body


@lru_cache(maxsize=1024)
def http_date(seconds: int) -> str:
    """A date as HTTP writes it."""
    return formatdate(seconds, usegmt=True)


def status_line(status: int) -> str:
    """`404 Not Found`."""
    return f"{status} {HTTPStatus(status).phrase}"


def empty(status: int, headers: Headers | None = None) -> Response:
    """A response without a body."""
    framing = [] if status in {204, 304} else [("Content-Length", "0")]
    return Response(status, framing + (headers or []))


def whole(status: int, content: bytes, content_type: str, headers: Headers | None = None) -> Response:
    """A response whose body is at hand."""
    described = [("Content-Type", content_type), ("Content-Length", str(len(content)))]
    return Response(status, described + (headers or []), (content,))


def generated(
    status: int, pieces: Iterator[bytes | memoryview], content_type: str, headers: Headers | None = None
) -> Response:
    """A response that is made while it is sent; what stays small gets a Content-Length.

    Errors of the first WHOLE_BYTES_MAX still change the status; later ones break the response off.
    """
    collected: list[bytes] = []
    size = 0
    for piece in pieces:
        collected.append(bytes(piece))  # a view need not be valid any more when the next piece is there
        size += len(piece)
        if size > WHOLE_BYTES_MAX:
            described = [("Content-Type", content_type), *(headers or [])]
            return Response(status, described, chain((b"".join(collected),), pieces))
    return whole(status, b"".join(collected), content_type, headers)
