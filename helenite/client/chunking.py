"""Which bytes of which chunk: pure arithmetic on extents for the reader and the writer.

Decides how a range of a file maps to pieces of chunks, and how a partial write makes a new list of extents that
shares what it did not touch (D2). No I/O.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from helenite.core.model import Extent


@dataclass(frozen=True, slots=True)
class Piece:
    """`length` bytes at `offset` of the chunk that the file's extent number `extent` points into."""

    extent: int
    offset: int
    length: int


def plan_pieces(extents: tuple[Extent, ...], offset: int, length: int, piece_bytes: int) -> Iterator[Piece]:
    """The pieces that make up `length` bytes of a file from `offset`, in order, none larger than `piece_bytes`.

    A piece after the first of its extent starts at a multiple of `piece_bytes` in the chunk, so that pieces fall on
    the borders of checksummed blocks when `piece_bytes` does.
    """
    start = 0
    end = offset + length
    for index, extent in enumerate(extents):
        if start >= end:
            return
        first = max(offset, start) - start
        last = min(end, start + extent.length) - start
        at = first
        while at < last:
            in_chunk = extent.offset + at
            size = min(last - at, piece_bytes - in_chunk % piece_bytes)
            yield Piece(index, in_chunk, size)
            at += size
        start += extent.length


def slice_extents(extents: tuple[Extent, ...], offset: int, length: int) -> tuple[Extent, ...]:
    """The extents that hold `length` bytes from `offset`."""
    found: list[Extent] = []
    start = 0
    for extent in extents:
        first = max(offset - start, 0)
        last = min(offset + length - start, extent.length)
        if first < last:
            found.append(Extent(extent.handle, extent.offset + first, last - first))
        start += extent.length
    return tuple(found)


def splice_extents(extents: tuple[Extent, ...], offset: int, fresh: tuple[Extent, ...]) -> tuple[Extent, ...]:
    """The extents of a file after `fresh` replaced its bytes from `offset`; it may grow, it never shrinks.

    `offset` is at most the file's size: a gap would have no bytes to show.
    """
    size = sum(extent.length for extent in extents)
    assert offset <= size, (offset, size)
    after = offset + sum(extent.length for extent in fresh)
    head = slice_extents(extents, 0, offset)
    tail = slice_extents(extents, after, max(0, size - after))
    return head + fresh + tail
