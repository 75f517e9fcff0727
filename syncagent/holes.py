"""Which ranges of a local file are holes: they hold zeros that nobody has written, and need be neither read nor sent.

Used by everything that reads content for a transfer (`uploads`, `partwise`, `learning`, `downloads`) or for its digest
(`folder`): reading a hole costs several times what hashing the zeros does. File systems that cannot say (and Windows)
have no holes. One thread for each file.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

HOLE_BYTES_MIN = 64 << 10
"""A smaller hole travels as data does: so short a run of zeros is stored by the server as such, too."""
SPARSE_BYTES_MIN = 4 << 20
"""A file with less than this in its holes is treated as any other."""
BLOCK_BYTES = 512
"""The unit of `st_blocks`."""
_ZEROS = memoryview(bytes(1 << 20))


@dataclass(frozen=True, slots=True)
class Run:
    """A range of a file that is all data, or all hole."""

    offset: int
    length: int
    is_hole: bool

    @property
    def end(self) -> int:
        return self.offset + self.length


class Layout:
    """The runs of a file, in order and without gaps; an empty file has none."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs
        self._ends = [run.end for run in runs]
        self.hole_bytes = sum(run.length for run in runs if run.is_hole)

    def within(self, offset: int, length: int) -> Iterator[Run]:
        """The runs of a range, cut to it."""
        end = offset + length
        for index in range(bisect_right(self._ends, offset), len(self._runs)):
            run = self._runs[index]
            start, stop = max(run.offset, offset), min(run.end, end)
            if start >= end:
                return
            if start < stop:
                yield Run(start, stop - start, run.is_hole)


def may_be_sparse(status: os.stat_result) -> bool:
    """Whether a file takes so much less room on the disk than it has bytes that its holes are worth looking for."""
    blocks = getattr(status, "st_blocks", None)
    return blocks is not None and status.st_size - blocks * BLOCK_BYTES >= SPARSE_BYTES_MIN


def find_layout(file: io.FileIO, size: int) -> Layout:
    """The runs of the first `size` bytes of a file; holes that are short count as data. Moves the file's position."""
    runs: list[Run] = []
    at = 0
    while at < size:
        run = _find_run(file, at, size)
        is_hole = run.is_hole and run.length >= HOLE_BYTES_MIN
        if runs and runs[-1].is_hole is is_hole:
            runs[-1] = Run(runs[-1].offset, runs[-1].length + run.length, is_hole)
        else:
            runs.append(Run(at, run.length, is_hole))
        at = run.end
    return Layout(runs)


def layout_of(file: io.FileIO) -> Layout:
    """The same of a whole open file; cheap for what is not sparse."""
    status = os.fstat(file.fileno())
    if may_be_sparse(status):
        return find_layout(file, status.st_size)
    return Layout([Run(0, status.st_size, is_hole=False)] if status.st_size else [])


def _find_run(file: io.FileIO, at: int, size: int) -> Run:
    """The run that begins at `at`, whatever its length."""
    if sys.platform == "win32" or not hasattr(os, "SEEK_DATA"):
        return Run(at, size - at, is_hole=False)
    try:
        data = min(size, os.lseek(file.fileno(), at, os.SEEK_DATA))
        if data > at:
            return Run(at, data - at, is_hole=True)
        end = min(size, os.lseek(file.fileno(), at, os.SEEK_HOLE))
        return Run(at, max(1, end - at), is_hole=False)
    except OSError as error:  # nothing but a hole follows, or the file system does not know
        return Run(at, size - at, is_hole=error.errno == errno.ENXIO)


class ContentReader(io.RawIOBase):
    """Reads an open file from some place on, without asking the file system for what is in its holes."""

    def __init__(self, file: io.FileIO, start: int = 0) -> None:
        super().__init__()
        self._file = file
        self._file.seek(start)
        status = os.fstat(file.fileno())
        self._size = status.st_size if may_be_sparse(status) else 0  # of another there is nothing to find
        self._run = Run(start, 0, is_hole=False)
        self._at = start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Part of the buffer, nothing at the end."""
        room = memoryview(buffer).cast("B")
        if self._at >= self._run.end and self._at < self._size:
            self._run = _find_run(self._file, self._at, self._size)
            self._file.seek(self._at)
        left = self._run.end - self._at
        if left <= 0:  # what was appended meanwhile, or all of a file without holes
            count = self._file.readinto(room) or 0
        elif self._run.is_hole:
            count = min(left, len(room), len(_ZEROS))
            room[:count] = _ZEROS[:count]
            self._file.seek(self._at + count)
        else:
            count = self._file.readinto(room[:left]) or 0
        self._at += count
        return count
