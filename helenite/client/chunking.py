"""Which bytes of which chunk: pure arithmetic on extents for the reader and the writer.

Decides how a range of a file maps to pieces of chunks, and how a new revision that is made of pieces of the present one
and of new bytes shares the chunks of what it keeps. No I/O.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from helenite.core.errors import InvalidRequestError
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


# Splices: a new revision that shares what it keeps of the present one.

SHARED_BYTES_MIN = 64 * 1024
"""A shorter range that is kept is copied: what it would save is less than what one more extent costs every reader."""
EXTENTS_MAX = 256
EXTENTS_PER_CHUNK = 4
"""So many extents may a spliced file have, or this many times the number that it would have if it were written anew:
a file that is edited a thousand times does not become a thousand crumbs, nor hold a thousand chunks on disk by crumbs
of them. Beyond, the smallest shared ranges are copied."""
GROWTH_EXTENTS_MAX = 1 << 20
"""So many extents may a splice add beyond some for each that there is: a few lines make no file that fills a memory."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A part of a new revision: `length` bytes that a file (0: the present revision) has at `offset`."""

    offset: int
    length: int
    file: int = 0


@dataclass(frozen=True, slots=True)
class Fresh:
    """A part of a new revision: `length` bytes that come with it."""

    length: int


@dataclass(frozen=True, slots=True)
class Zeros:
    """A part of a new revision: so many zeros, which come from nowhere."""

    length: int


@dataclass(frozen=True, slots=True)
class Repeated:
    """Zeros as one extent after the other of a single run of them, which the new revision's own chunks begin with."""

    length: int
    run_bytes: int


@dataclass(frozen=True, slots=True)
class Shared:
    """Bytes of a file whose chunk the new revision names too."""

    offset: int
    extent: Extent
    file: int = 0

    @property
    def length(self) -> int:
        return self.extent.length


Part = Kept | Fresh | Zeros
Planned = Shared | Repeated | Kept | Fresh | Zeros
"""In a plan, Kept is what is copied: it is read, and written into a chunk together with the fresh bytes around it. So
are Zeros."""


def plan_splice(files: Sequence[tuple[Extent, ...]], parts: Iterable[Part], chunk_bytes: int) -> tuple[Planned, ...]:
    """How a revision made of `parts`, of bytes that come and of ranges of files with these extents, is to be stored.

    Shares chunks where the ranges are long enough, so that the new revision has a bounded number of extents; of all
    long runs of zeros one chunk at most is stored. InvalidRequestError when it would be larger than a file can be.
    """
    wanted = _merged(_share_all(files, parts), GROWTH_EXTENTS_MAX + EXTENTS_PER_CHUNK * sum(map(len, files)))
    size = sum(part.length for part in wanted)
    zeros = [part.length for part in wanted if isinstance(part, Zeros)]
    if sum(zeros) > GROWTH_EXTENTS_MAX * chunk_bytes:
        raise _too_large()
    run_bytes = min(max(zeros, default=0), chunk_bytes)
    extents_max = max(EXTENTS_MAX, EXTENTS_PER_CHUNK * (size // chunk_bytes + 1))
    shared_bytes_min = SHARED_BYTES_MIN
    while True:
        planned = tuple(_written_if_short(part, shared_bytes_min, run_bytes) for part in wanted)
        if _extent_count(planned, chunk_bytes) <= extents_max:
            return planned
        shared_bytes_min *= 2


def find_run(planned: Iterable[Planned]) -> int:
    """How many zeros are to be written before everything else, for all that are Repeated."""
    return next((part.run_bytes for part in planned if isinstance(part, Repeated)), 0)


def count_written(planned: Sequence[Planned]) -> int:
    """Bytes that are to be written into chunks of the new revision's own, the run of zeros among them."""
    return find_run(planned) + sum(part.length for part in planned if not isinstance(part, Shared | Repeated))


def resolve_splice(planned: Sequence[Planned], written: tuple[Extent, ...]) -> tuple[Extent, ...]:
    """The extents of the new revision; `written` hold the run of zeros and all that was not shared, in order."""
    slicer, at = Slicer(written), find_run(planned)
    found: list[Extent] = []
    for part in planned:
        if isinstance(part, Shared):
            found.append(part.extent)
        elif isinstance(part, Repeated):
            for start in range(0, part.length, part.run_bytes):
                found += (extent for _, extent in slicer.slices(0, min(part.run_bytes, part.length - start)))
        else:
            for _, extent in slicer.slices(at, part.length):
                last = found[-1] if found else None
                if last is not None and last.handle == extent.handle and last.offset + last.length == extent.offset:
                    found[-1] = Extent(last.handle, last.offset, last.length + extent.length)
                else:
                    found.append(extent)
            at += part.length
    return tuple(found)


class Slicer:
    """Finds ranges in a list of extents."""

    def __init__(self, extents: tuple[Extent, ...]) -> None:
        self._extents = extents
        self._ends = list(accumulate(extent.length for extent in extents))

    def slices(self, offset: int, length: int) -> Iterator[tuple[int, Extent]]:
        """The extents that hold a range, each with where it begins in the file."""
        end = offset + length
        for index in range(bisect_right(self._ends, offset), len(self._extents)):
            extent = self._extents[index]
            start = self._ends[index] - extent.length
            if start >= end:
                return
            first, last = max(offset, start), min(end, self._ends[index])
            if first < last:
                yield first, Extent(extent.handle, extent.offset + first - start, last - first)


def _share_all(files: Sequence[tuple[Extent, ...]], parts: Iterable[Part]) -> Iterator[Shared | Fresh | Zeros]:
    slicers = [Slicer(extents) for extents in files]
    for part in parts:
        if isinstance(part, Kept):
            for offset, extent in slicers[part.file].slices(part.offset, part.length):
                yield Shared(offset, extent, part.file)
        else:
            yield part


def _merged(parts: Iterable[Shared | Fresh | Zeros], count_max: int) -> list[Shared | Fresh | Zeros]:
    """The same with parts as one that are one range of a chunk or one run of zeros, and without empty ones."""
    found: list[Shared | Fresh | Zeros] = []
    for part in parts:
        last = found[-1] if found else None
        if isinstance(part, Shared) and isinstance(last, Shared) and _continues(last, part):
            merged = Extent(last.extent.handle, last.extent.offset, last.length + part.length)
            found[-1] = Shared(last.offset, merged, last.file)
        elif isinstance(part, Zeros) and isinstance(last, Zeros):
            found[-1] = Zeros(last.length + part.length)
        elif part.length > 0:
            found.append(part)
            if len(found) > count_max:
                raise _too_large()
    return found


def _too_large() -> InvalidRequestError:
    return InvalidRequestError("the file would consist of more pieces than a file may have")


def _continues(last: Shared, part: Shared) -> bool:
    in_file = last.offset + last.length == part.offset and last.file == part.file
    in_chunk = last.extent.offset + last.length == part.extent.offset
    return in_file and in_chunk and last.extent.handle == part.extent.handle


def _written_if_short(part: Shared | Fresh | Zeros, shared_bytes_min: int, run_bytes: int) -> Planned:
    if isinstance(part, Fresh):
        return part
    if isinstance(part, Zeros):
        return part if part.length < shared_bytes_min else Repeated(part.length, run_bytes)
    return part if part.length >= shared_bytes_min else Kept(part.offset, part.length, part.file)


def _extent_count(planned: tuple[Planned, ...], chunk_bytes: int) -> int:
    """At most so many extents will a plan's result have."""
    shared = sum(isinstance(part, Shared) for part in planned)
    repeated = sum(-(-part.length // part.run_bytes) for part in planned if isinstance(part, Repeated))
    is_written = [not isinstance(part, Shared | Repeated) for part in planned]
    runs = sum(is_written[index] and (index == 0 or not is_written[index - 1]) for index in range(len(planned)))
    return shared + repeated + runs + count_written(planned) // chunk_bytes
