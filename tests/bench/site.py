"""One server under test: requests to it, the files that the rows stand on, and the proof that its bytes are right.

Used by `rows` and `curves`. What is made here is made outside the measured time, once for each server, with names that
nothing else uses. Content comes from one pool of random bytes at ever other places, stamped with a number that is never
used twice, so that no server can recognise what it has seen. Not thread-safe.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self
from urllib.parse import unquote, urlsplit

from tests.bench.http_client import BUFFER_BYTES, Connection, Reply, TransferError, drive, request_head
from tests.bench.servers import Running

POOL_BYTES = 32 << 20
STAMP_BYTES = 16
PROPFIND_BODY = (
    b'<?xml version="1.0" encoding="utf-8"?><D:propfind xmlns:D="DAV:"><D:prop><D:resourcetype/><D:getcontentlength/>'
    b"<D:getlastmodified/><D:getetag/><D:creationdate/></D:prop></D:propfind>"
)
"""What file managers ask for. All servers compared know these five."""
XML = {"Content-Type": "application/xml", "Content-Length": str(len(PROPFIND_BODY))}


class RefusedError(Exception):
    """The server answered with a status that is no success; the text is what the table shows."""


class WrongBytesError(Exception):
    """What came back is not what was stored: the one result that no speed makes up for."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is moved. Rates are measured for `duration_s` each, or until `small_files` are used up."""

    large_bytes: int = 256 << 20
    small_bytes: int = 4096
    range_bytes: int = 64 << 10
    entries: int = 1000
    duration_s: float = 1.5
    repeats: int = 7
    """How often a row that is measured in milliseconds is repeated within a round."""


QUICK = Sizes(large_bytes=24 << 20, entries=100, duration_s=0.25, repeats=2)


class Content:
    """Bytes that nobody has seen before, and memory for those that come back. Shared by all sites."""

    def __init__(self, seed: int) -> None:
        self._pool = memoryview(random.Random(seed).randbytes(POOL_BYTES))
        self._count = 0
        self._shared = b""
        self._wide: list[bytearray] = []

    def small(self, length: int) -> bytes:
        """Fresh bytes; cheap enough to be made while the clock runs."""
        self._count += 1
        at = (self._count * 4099) % (POOL_BYTES - length)
        return b"%016x" % self._count + self._pool[at : at + length - STAMP_BYTES]

    def large(self, length: int) -> bytes:
        return os.urandom(length)

    def shared(self, length: int) -> bytes:
        """The same bytes at every call: the large file that each server keeps."""
        if len(self._shared) != length:
            self._shared = self.large(length)
        return self._shared

    def wide_buffers(self, length: int) -> list[bytearray]:
        """Four buffers for large replies. All sites share them, as one at a time is measured.

        They are written to once, so that the first reply does not pay for their pages.
        """
        if not self._wide or len(self._wide[0]) != length:
            self._wide = [bytearray(b"-") * length for _ in range(4)]
        return self._wide


@dataclass(slots=True)
class Site:
    """A running server with a directory of this run's own."""

    key: str
    running: Running
    sizes: Sizes
    content: Content
    is_checked: bool = True
    """Off only where a profile must not show the checking."""
    _connections: list[Connection] = field(default_factory=list)
    _stack: ExitStack = field(default_factory=ExitStack)
    _token: str = field(default_factory=lambda: secrets.token_hex(4))
    _names: Iterator[int] = field(default_factory=itertools.count)
    _fixtures: Fixtures | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def fixtures(self) -> Fixtures:
        if self._fixtures is None:
            self._fixtures = Fixtures(self)
        return self._fixtures

    def connect(self, buffer: bytearray | None = None) -> Connection:
        """A connection that the site closes when it is left."""
        assert self.running.address is not None
        connection = Connection(self.running.address, buffer)
        self._stack.callback(connection.close)
        self._connections.append(connection)
        return connection

    def requests(self) -> int:
        """How many requests were sent so far."""
        return sum(connection.sent for connection in self._connections)

    def head(self, method: str, path: str, headers: dict[str, str] | None = None) -> bytes:
        assert self.running.address is not None
        return request_head(method, path, "{}:{}".format(*self.running.address), headers)

    def put_head(self, path: str, length: int) -> bytes:
        headers = {"Content-Length": str(length), "Content-Type": "application/octet-stream"}
        return self.head("PUT", path, headers)

    def copy_head(self, method: str, path: str, destination: str) -> bytes:
        assert self.running.address is not None
        url = "http://{}:{}{}".format(*self.running.address, destination)
        headers = {"Destination": url, "Overwrite": "F", "Depth": "infinity"}
        if method == "MOVE":
            del headers["Depth"]
        return self.head(method, path, headers)

    def propfind(self, path: str, depth: str) -> bytes:
        return self.head("PROPFIND", path, {"Depth": depth, **XML}) + PROPFIND_BODY

    def fresh(self, suffix: str = "") -> str:
        """A path in the root that was never used."""
        return f"/bench-{self._token}-{next(self._names)}{suffix}"

    def fresh_directory(self) -> str:
        path = self.fresh("/")
        self.require(self.fixtures.connection.exchange(self.head("MKCOL", path)), "MKCOL")
        return path

    def require(self, reply: Reply, what: str) -> Reply:
        """The reply, when it is a success."""
        if not 200 <= reply.status < 300:
            raise RefusedError(f"{what}: {reply.status}")
        if reply.status == 207 and not what.startswith("PROPFIND"):
            raise RefusedError(f"{what}: {bytes(reply.body)[:200]!r}")
        return reply

    def fill(self, directory: str, count: int, length: int) -> dict[str, bytes]:
        """Make files, eight at a time; path -> content."""
        made = {f"{directory}f{number:07}.bin": self.content.small(length) for number in range(count)}
        requests = (self.put_head(path, len(body)) + body for path, body in made.items())
        drive(self.fixtures.eight, requests, lambda reply: _ignore(self.require(reply, "PUT")), float("inf"))
        return made

    def check_files(self, expected: dict[str, bytes]) -> None:
        """Get them all and compare every byte."""
        if not self.is_checked:
            return
        connection = self.fixtures.connection
        for path, body in expected.items():
            reply = self.require(connection.exchange(self.head("GET", path)), "GET")
            if reply.body != body:
                raise WrongBytesError(f"{self.key} {path}: not what was put")

    def check_large(self, path: str, expected: bytes) -> None:
        if not self.is_checked:
            return
        connection = self.fixtures.wide[0]
        reply = self.require(connection.exchange(self.head("GET", path)), "GET")
        check_equal(reply.body, expected, f"{self.key} {path}")

    def check_listing(self, reply: Reply, directory: str, expected: dict[str, int]) -> None:
        """The listing names exactly these files with these sizes, and the directory itself."""
        if not self.is_checked:
            return
        found = parse_listing(bytes(reply.body))
        own = found.pop(directory.rstrip("/"), None)
        if own is None or found != expected:
            differing = sorted(set(found.items()) ^ set(expected.items()))[:4]
            raise WrongBytesError(f"{self.key} {directory}: the listing is wrong: {differing}")

    def remove(self, path: str) -> None:
        """Delete what a row has made, so that the disk does not fill up; a server that refuses keeps it."""
        self.fixtures.connection.exchange(self.head("DELETE", path))


class Fixtures:
    """What rows of one server share; each part is made when it is first needed."""

    def __init__(self, site: Site) -> None:
        self._site = site

    @cached_property
    def connection(self) -> Connection:
        """For what is not measured."""
        return self._site.connect()

    @cached_property
    def eight(self) -> list[Connection]:
        return [self._site.connect() for _ in range(8)]

    @cached_property
    def wide(self) -> list[Connection]:
        """Four connections whose buffers hold the large file."""
        buffers = self._site.content.wide_buffers(self._site.sizes.large_bytes + BUFFER_BYTES)
        return [self._site.connect(buffer) for buffer in buffers]

    @cached_property
    def large(self) -> tuple[str, bytes]:
        """A large file: its path and its content."""
        site = self._site
        path, body = site.fresh(".bin"), site.content.shared(site.sizes.large_bytes)
        site.require(self.connection.exchange(site.put_head(path, len(body)), body), "PUT")
        return path, body

    @cached_property
    def small(self) -> dict[str, bytes]:
        """Files of 4 KiB: path -> content."""
        site = self._site
        return site.fill(site.fresh_directory(), site.sizes.entries, site.sizes.small_bytes)

    @cached_property
    def tree(self) -> tuple[str, dict[str, bytes]]:
        """A directory of many files of a few bytes."""
        site = self._site
        path = site.fresh_directory()
        return path, site.fill(path, site.sizes.entries, STAMP_BYTES + 4)


def check_equal(found: memoryview, expected: bytes, what: str) -> None:
    """Compare by memcmp: a view would be compared item by item."""
    if bytes(found) != expected:
        raise WrongBytesError(f"{what}: not what was put")


def parse_listing(body: bytes) -> dict[str, int]:
    """Path -> size of every response in a multistatus (0 for directories). Prefixes and order differ by server."""
    found: dict[str, int] = {}
    for response in re.split(rb"<(?:\w+:)?response[ >]", body)[1:]:
        href = re.search(rb"<(?:\w+:)?href[^>]*>([^<]*)<", response)
        if href is None:
            raise TransferError(f"a response without href: {response[:200]!r}")
        size = re.search(rb"<(?:\w+:)?getcontentlength[^>]*>(\d+)<", response)
        found[unquote(urlsplit(href[1].decode()).path).rstrip("/")] = int(size[1]) if size else 0
    return found


def sizes_of(files: Iterable[tuple[str, bytes]]) -> dict[str, int]:
    return {path: len(body) for path, body in files}


def _ignore(_: object) -> None:
    """For replies whose success is all that matters."""
