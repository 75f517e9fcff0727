"""What the server says a file consists of, and what two revisions have in common by that.

Used by `downloads`. A chunk handle names one content for ever, so ranges of one chunk that both revisions name are
equal, byte for byte: no hashing, and an insertion moves nothing. Pure.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from helenite.core.errors import ProtocolError
from helenite.core.model import ChunkHandle, Extent

NEAR_BYTES = 64 << 10
"""So few bytes between two ranges that are fetched are fetched with them: another request costs more."""


class Origin(Enum):
    """Where bytes of a file come from that is being put together."""

    SERVER = auto()
    LOCAL = auto()  # a local file that both sides know
    ITSELF = auto()  # its own beginning


@dataclass(frozen=True, slots=True)
class Source:
    """The next `length` bytes of a file: from `at` of their origin; what is fetched is where it belongs."""

    origin: Origin
    at: int
    length: int


def parse_recipe(text: bytes, size: int) -> tuple[Extent, ...]:
    """The extents of a file of this size, as `?extents` tells them."""
    try:
        lines = [line.split(b" ") for line in text.splitlines()]
        extents = tuple(Extent(ChunkHandle(int(h, 16)), int(o), int(n)) for h, o, n in lines)
    except ValueError as error:
        raise ProtocolError("the server's list of extents cannot be understood") from error
    if sum(extent.length for extent in extents) != size or any(e.length <= 0 or e.offset < 0 for e in extents):
        raise ProtocolError(f"the server's list of extents is none of a file of {size} bytes")
    return extents


def plan_sources(held: Iterable[Extent], wanted: Iterable[Extent]) -> list[Source]:
    """Where each byte of the wanted revision comes from, when a local file has the one that is held.

    What it has twice, as the zeros of a hole, is fetched once.
    """
    local, own = _Index(held), _Index(())
    found: list[Source] = []
    at = 0
    for extent in wanted:
        for place, part in local.look_up(extent):
            if place is not None:
                _append(found, Source(Origin.LOCAL, place, part.length))
                at += part.length
                continue
            for earlier, piece in list(own.look_up(part)):
                if earlier is None:
                    own.add(piece, at)
                    _append(found, Source(Origin.SERVER, at, piece.length))
                else:
                    _append(found, Source(Origin.ITSELF, earlier, piece.length))
                at += piece.length
    return _with_near_ones(found)


def _with_near_ones(found: Sequence[Source]) -> list[Source]:
    """The same with what is short, and between two ranges that are fetched, fetched with them."""
    near: list[Source] = []
    at = 0
    for index, source in enumerate(found):
        around = found[max(0, index - 1) : index + 2 : 2]
        is_between = len(around) == 2 and all(neighbour.origin is Origin.SERVER for neighbour in around)
        is_fetched = is_between and source.length < NEAR_BYTES
        _append(near, Source(Origin.SERVER, at, source.length) if is_fetched else source)
        at += source.length
    return near


def _append(sources: list[Source], source: Source) -> None:
    last = sources[-1] if sources else None
    if last is not None and last.origin is source.origin and last.at + last.length == source.at:
        sources[-1] = Source(last.origin, last.at, last.length + source.length)
    else:
        sources.append(source)


class _Index:
    """Finds ranges of chunks in a file. Where the file names a byte of a chunk twice, either will do."""

    def __init__(self, extents: Iterable[Extent]) -> None:
        self._ranges: dict[ChunkHandle, list[tuple[int, int, int]]] = {}
        at = 0
        for extent in extents:
            self.add(extent, at)
            at += extent.length

    def add(self, extent: Extent, at: int) -> None:
        """The file has this range of a chunk at `at`."""
        insort(self._ranges.setdefault(extent.handle, []), (extent.offset, extent.offset + extent.length, at))

    def look_up(self, extent: Extent) -> Iterator[tuple[int | None, Extent]]:
        """A range of a chunk in pieces, in order, each with where it is in the file, None if it is not."""
        handle, at, end = extent.handle, extent.offset, extent.offset + extent.length
        ranges = self._ranges.get(handle, [])
        first = bisect_right(ranges, (at, 1 << 63, 0)) - 1
        for start, stop, place in ranges[max(0, first) :]:
            if start >= end:
                break
            if stop <= at:
                continue
            if start > at:
                yield None, Extent(handle, at, start - at)
                at = start
            until = min(stop, end)
            yield place + at - start, Extent(handle, at, until - at)
            at = until
            if at == end:
                return
        if at < end:
            yield None, Extent(handle, at, end - at)
