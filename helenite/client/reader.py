"""Reading one revision of a file: any range, read ahead, replica failover in mid-stream.

Made by `FileSystem.open`. The extents and the chunks' immutability pin the revision: whatever happens to the name, a
reader sees one whole revision. One reader serves one thread; its read-ahead runs in the pool's background.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from helenite.client.chunking import Piece, plan_pieces
from helenite.client.pool import ChunkPool
from helenite.core.model import BLOCK_BYTES, MIB, Entry, EntryView, Location

PIECE_BYTES = MIB
"""Unit of reading: large enough that a round trip costs little, small enough to stay in a processor's cache."""
AHEAD_MAX = 2
"""Pieces fetched ahead of the one that is being sent."""
LOCATE_MAX = 256
"""Extents located at once, as many as a look-up brings."""


class Reader:
    """Reads one revision of one file."""

    def __init__(self, pool: ChunkPool, view: EntryView) -> None:
        self._pool = pool
        self.entry: Entry = view.entry
        self._told: dict[int, Location] = {location.handle: location for location in view.locations}
        self._asked: dict[int, Location] = {}

    @property
    def size_bytes(self) -> int:
        return self.entry.size_bytes

    def close(self) -> None:
        """Nothing is held between reads; here so that a reader is used like a file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer only at the end of the file."""
        return b"".join(map(bytes, self.iterate(offset, length)))

    def iterate(self, offset: int = 0, length: int | None = None) -> Iterator[memoryview]:
        """The bytes of a range, piece by piece; where they have to be waited for, with the next on their way.

        Each is valid until the next one is taken.

        ContentLostError or UnavailableError in the middle when a piece cannot be had: the caller must break off.
        """
        left = max(0, self.size_bytes - offset)
        wanted = left if length is None else min(length, left)
        pieces = plan_pieces(self.entry.extents, offset, wanted, PIECE_BYTES)
        if wanted <= PIECE_BYTES:
            yield from map(self._fetch, pieces)
            return
        ahead: deque[Future[memoryview]] = deque()
        buffer = memoryview(bytearray(PIECE_BYTES + 2 * BLOCK_BYTES))
        try:
            for piece in pieces:
                if not ahead and (kept := self._fetch_kept(piece, buffer)) is not None:
                    yield kept
                    continue
                ahead.append(self._pool.submit(self._fetch, piece))
                if len(ahead) > AHEAD_MAX:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()

    def _fetch_kept(self, piece: Piece, buffer: memoryview) -> memoryview | None:
        """A piece that this machine's memory has, read in this thread: handing it to another costs more than that."""
        return self._pool.read_kept(self.entry.extents[piece.extent].handle, piece.offset, piece.length, buffer)

    def _fetch(self, piece: Piece) -> memoryview:
        extent = self.entry.extents[piece.extent]
        location = self._told.get(extent.handle) or self._asked.get(extent.handle)
        if location is None:
            location = self._locate_from(piece.extent)
        return self._pool.read_chunk(location, piece.offset, piece.length)

    def _locate_from(self, extent: int) -> Location:
        """Ask where the chunks of this extent and the following ones are: one round trip for many chunks."""
        following = (e.handle for e in self.entry.extents[extent : extent + LOCATE_MAX])
        handles = list(dict.fromkeys(handle for handle in following if handle not in self._told))
        asked: dict[int, Location] = {location.handle: location for location in self._pool.locate(handles)}
        self._asked = asked
        return asked[handles[0]]
