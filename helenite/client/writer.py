"""Writing a new revision of a file: chunks go out while bytes come in, the commit makes them visible.

Made by `FileSystem.create`. A chunk stays in memory until all its replicas have acknowledged it, so that it can be sent
again. One writer serves one thread; full chunks are written in the pool's background, at most IN_FLIGHT_MAX at once.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from helenite.client.pool import ChunkPool
from helenite.core.errors import HeleniteError, IncompleteBodyError
from helenite.core.model import Entry, Extent, Location

log = logging.getLogger(__name__)

IN_FLIGHT_MAX = 2
"""Chunks on their way while the next one fills: with it, a writer holds three chunks at most."""

Publish = Callable[[tuple[Extent, ...], tuple[Location, ...], int, bytes], tuple[Entry, bool]]
"""Commits extents, the locations of fresh chunks, size and digest; returns the entry and whether it is new."""

StoreWhole = Callable[[bytes, bytes], tuple[Entry, bool]]
"""Stores a whole small file, content and SHA-256 (empty if not known), together with others of other threads."""
WHOLE_BYTES_MAX = 64 * 1024
"""A larger file has so much to transfer that company gains nothing."""


class Writer:
    """Collects the content of one new revision. Used as a context manager, it aborts unless it was committed."""

    def __init__(
        self, pool: ChunkPool, publish: Publish, size_bytes: int | None, store_whole: StoreWhole | None = None
    ) -> None:
        self._pool = pool
        self._publish = publish
        self._store_whole = store_whole
        self._announced = size_bytes
        self._buffer = bytearray()
        self._in_flight: deque[Future[Location]] = deque()
        self._done: list[tuple[Extent, Location]] = []
        self._lengths: deque[int] = deque()
        self._is_open = True
        self.bytes_written = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`. Blocks while enough chunks are in flight; raises what a chunk in flight ran into."""
        view = memoryview(data)
        self.bytes_written += len(view)
        if self._announced is not None and self.bytes_written > self._announced:
            raise IncompleteBodyError(f"more than the announced {self._announced} bytes arrived")
        chunk_bytes = self._pool.chunk_bytes()
        while len(view) > 0:
            room = chunk_bytes - len(self._buffer)
            self._buffer += view[:room]
            view = view[room:]
            if len(self._buffer) == chunk_bytes:
                self._send()

    def commit(self, sha256: bytes = b"") -> tuple[Entry, bool]:
        """Wait until every chunk is durable, then make the revision visible; the entry and whether it is new.

        `sha256` of all that was written, if the caller has computed it, is kept with the revision. IncompleteBodyError
        when the announced size was not reached; nothing is visible then.
        """
        if self._announced is not None and self.bytes_written != self._announced:
            raise IncompleteBodyError(f"{self.bytes_written} bytes arrived, {self._announced} were announced")
        if self._store_whole is not None and self.bytes_written <= WHOLE_BYTES_MAX:
            self._is_open = False
            return self._store_whole(bytes(self._buffer), sha256)
        extents, locations = self.seal()
        self._is_open = False
        return self._publish(extents, locations, self.bytes_written, sha256)

    def seal(self) -> tuple[tuple[Extent, ...], tuple[Location, ...]]:
        """Wait until every chunk is durable; the extents, and where their chunks are. Nothing is written after it."""
        if self._buffer and not self._in_flight:
            # The only or last chunk, nothing to overlap with: written here, without a hop to another thread.
            location = self._pool.write_chunk(memoryview(self._buffer))
            self._done.append((Extent(location.handle, 0, len(self._buffer)), location))
            self._buffer = bytearray()
        elif self._buffer:
            self._send()
        while self._in_flight:
            self._collect()
        return tuple(extent for extent, _ in self._done), tuple(location for _, location in self._done)

    def abort(self) -> None:
        """Give up: nothing becomes visible, chunks already written are collected as garbage."""
        if not self._is_open:
            return
        self._is_open = False
        while self._in_flight:
            try:
                self._collect()
            except HeleniteError as error:
                log.info("a chunk of an aborted write failed: %s", error)
        self._buffer = bytearray()

    def _send(self) -> None:
        while len(self._in_flight) >= IN_FLIGHT_MAX:
            self._collect()
        full, self._buffer = self._buffer, bytearray()
        self._lengths.append(len(full))
        self._in_flight.append(self._pool.submit(self._pool.write_chunk, memoryview(full)))

    def _collect(self) -> None:
        length = self._lengths.popleft()
        location = self._in_flight.popleft().result()
        self._done.append((Extent(location.handle, 0, length), location))
