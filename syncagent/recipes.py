"""What the server says a file consists of, and what two revisions have in common by that.

Used by `downloads`. A chunk handle names one content for ever, so ranges of one chunk that both revisions name are
equal, byte for byte: no hashing, and an insertion moves nothing. Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from helenite.core.errors import ProtocolError
from helenite.core.model import ChunkHandle, Extent

NEAR_BYTES = 64 << 10
"""So few bytes between two ranges that are fetched are fetched with them: another request costs more."""


@dataclass(frozen=True, slots=True)
class Source:
    """The next `length` bytes of a file: at `at` of the local file, or None: from the server."""

    at: int | None
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
    """Where each byte of the wanted revision comes from, when a local file has the one that is held."""
    index = _Index(held)
    found: list[Source] = []
    for extent in wanted:
        for source in index.look_up(extent):
            _append(found, source)
    near: list[Source] = []
    for at, source in enumerate(found):
        is_between = 0 < at < len(found) - 1 and found[at - 1].at is None and found[at + 1].at is None
        _append(near, Source(None, source.length) if is_between and source.length < NEAR_BYTES else source)
    return near


def _append(sources: list[Source], source: Source) -> None:
    last = sources[-1] if sources else None
    if last is not None and _continues(last, source):
        sources[-1] = Source(last.at, last.length + source.length)
    else:
        sources.append(source)


def _continues(last: Source, source: Source) -> bool:
    if last.at is None or source.at is None:
        return last.at is source.at
    return last.at + last.length == source.at


class _Index:
    """Finds ranges of chunks in a file. Where the file names a byte of a chunk twice, either will do."""

    def __init__(self, extents: Iterable[Extent]) -> None:
        self._ranges: dict[ChunkHandle, list[tuple[int, int, int]]] = {}
        at = 0
        for extent in extents:
            self._ranges.setdefault(extent.handle, []).append((extent.offset, extent.offset + extent.length, at))
            at += extent.length
        for ranges in self._ranges.values():
            ranges.sort()

    def look_up(self, extent: Extent) -> Iterator[Source]:
        """Where the bytes of a range of a chunk are, in order."""
        at, end = extent.offset, extent.offset + extent.length
        ranges = self._ranges.get(extent.handle, [])
        first = bisect_right(ranges, (at, 1 << 63, 0)) - 1
        for start, stop, place in ranges[max(0, first) :]:
            if start >= end:
                break
            if stop <= at:
                continue
            if start > at:
                yield Source(None, start - at)
                at = start
            until = min(stop, end)
            yield Source(place + at - start, until - at)
            at = until
            if at == end:
                return
        if at < end:
            yield Source(None, end - at)
