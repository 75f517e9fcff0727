"""A bundle going out: the files of a list of links as one tar stream, each with its ETag, resource id and time.

Used by `bundles`. Files are looked up a slice at a time and small ones read ahead by threads of the provider, so memory
is bounded whatever the list. What cannot be sent is named in a last member. One bundle serves one thread.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future

from helenite.client.reader import Reader
from helenite.core.errors import HeleniteError, InvalidRequestError
from helenite.core.model import MIB, EntryView
from helenite.core.paths import DEPTH_MAX, Path, is_within
from webdav.body import BodyTooLargeError
from webdav.bundling import (
    BYTES_MAX,
    EXECUTABLE,
    HELD_BYTES_MAX,
    HELD_MAX,
    SMALL_BYTES,
    check_target,
)
from webdav.digests import format_repr_digest
from webdav.errors import status_of
from webdav.finding import Found, find_many
from webdav.provider import BUNDLE_MEMBERS_MAX
from webdav.request import Request
from webdav.response import Response, generated
from webdav.rights import Verb
from webdav.tars import END, Member, format_header, padding
from webdav.urls import parse_url_path

LIST_BYTES_MAX = 4 * MIB
"""The list of links: 400 bytes for each."""
SLICE = 500
"""Files that are looked up together."""
JOINED_BYTES = 64 * 1024
"""Small pieces are sent together up to this size."""
TAR_TYPE = "application/x-tar"
MISSING_NAME = ".helenite-missing.json"
"""The last member, when something is missing; its keyword `kind` is `missing`."""


def get_bundle(request: Request) -> Response:
    """The files of a list of links, as a tar stream in the order of the list."""
    check_target(request)
    links = _parse_links(request.body.read_all(LIST_BYTES_MAX))
    return generated(200, _Outlet(request).send(links), TAR_TYPE)


def _parse_links(body: bytes) -> list[str]:
    try:
        links = json.loads(body)
    except (ValueError, RecursionError):
        links = None
    if not isinstance(links, list) or not all(isinstance(link, str) for link in links):
        raise InvalidRequestError('a bundle is asked for by a JSON list of links: ["a.txt", "b/c%20d"]')
    if len(links) > BUNDLE_MEMBERS_MAX:
        raise BodyTooLargeError(f"a bundle has at most {BUNDLE_MEMBERS_MAX} members")
    return links


class _Outlet:
    """Sends one bundle; holds some small files that come next, so that several are read at once."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._missing: dict[str, dict[str, object]] = {}
        self._left = BYTES_MAX

    def send(self, links: list[str]) -> Iterator[bytes | memoryview]:
        """The tar stream."""
        small = bytearray()
        for piece in self._send_all(links):
            if len(small) + len(piece) <= JOINED_BYTES:
                small += piece
                continue
            yield bytes(small)
            small.clear()
            yield piece
        yield bytes(small)

    def _send_all(self, links: list[str]) -> Iterator[bytes | memoryview]:
        for at in range(0, len(links), SLICE):
            for path, view, content in self._read_ahead(self._find(links[at : at + SLICE])):
                yield format_header(self._describe(path, view))
                yield from (content.result(),) if content is not None else self._open(view).iterate()
                yield padding(view.entry.size_bytes)
        if self._missing:
            names = json.dumps(self._missing).encode()
            yield format_header(Member(MISSING_NAME, len(names), wishes=(("kind", "missing"),)))
            yield names + padding(len(names))
        yield END

    def _find(self, links: list[str]) -> Iterator[Found]:
        """What is there of these."""
        placed = [(link, path) for link in dict.fromkeys(links) if (path := self._place(link)) is not None]
        paths = [path for _, path in placed]
        views = find_many(self._request.file_system, paths, with_locations=True, with_properties=True)
        for link, path in placed:
            view = views.get(path)
            if view is not None and self._is_sent(link, view):
                yield path, view
            elif view is None:
                self._miss(link, 404, "there is none")

    def _read_ahead(self, files: Iterable[Found]) -> Iterator[tuple[Path, EntryView, Future[bytes] | None]]:
        """The files in order; the small ones that come next are being read meanwhile."""
        waiting: deque[tuple[Path, EntryView, Future[bytes] | None]] = deque()
        held = 0
        for path, view in files:
            content = None
            if view.entry.size_bytes <= SMALL_BYTES:
                content = self._request.provider.bundling.submit(self._read, view)
                held += view.entry.size_bytes
            waiting.append((path, view, content))
            while len(waiting) > HELD_MAX or held > HELD_BYTES_MAX:
                held -= waiting[0][1].entry.size_bytes if waiting[0][2] is not None else 0
                yield waiting.popleft()
        yield from waiting

    def _place(self, link: str) -> Path | None:
        """The path of a link; one that leads elsewhere is missing."""
        home = self._request.path
        try:
            path = parse_url_path(link)[0] if link.startswith("/") else (*home, *parse_url_path(f"/{link}")[0])
            if not is_within(path, home) or len(path) > DEPTH_MAX:
                raise InvalidRequestError("a link leads to something beneath the collection")
            self._request.demand_right(Verb.READ, path)
        except HeleniteError as error:
            self._miss(link, status_of(error, "GET"), str(error))
            return None
        return path

    def _is_sent(self, link: str, view: EntryView) -> bool:
        """Whether an entry is a file for which there is room."""
        if view.entry.is_directory:
            self._miss(link, 409, "a collection")
        elif view.entry.size_bytes > self._left:
            self._miss(link, 413, f"a bundle has at most {BYTES_MAX} bytes; ask for it again")
        else:
            self._left -= view.entry.size_bytes
            return True
        return False

    def _miss(self, link: str, status: int, reason: str) -> None:
        self._missing[link] = {"status": status, "reason": reason}

    def _open(self, view: EntryView) -> Reader:
        return self._request.file_system.open_view(view)

    def _read(self, view: EntryView) -> bytes:
        return self._open(view).read(0, view.entry.size_bytes)

    def _describe(self, path: Path, view: EntryView) -> Member:
        entry = view.entry
        wishes = [("etag", f'"{entry.etag}"'), ("resource-id", self._request.provider.resource_id(entry))]
        if entry.sha256:
            wishes.append(("digest", format_repr_digest(entry.sha256)))
        return Member(
            "/".join(path[len(self._request.path) :]),
            entry.size_bytes,
            modified_at_ms=entry.modified_at_ms,
            is_executable=EXECUTABLE in view.properties,
            wishes=tuple(wishes),
        )
