"""Which of a gateway's cached answers still hold: stamps of paths in memory that its worker processes share.

Used by `caching`, and by the gateway for what it has rendered. Each path has two cells in a table: one changes with its
entry, one with anything beneath it. Whoever is about to fetch notes the cells that the answer depends on; the answer
holds as long as none has changed. A worker changes the cells of a mutation after it has happened and before its client
hears of it; mutations of others arrive by the feed (`follower`). Paths share cells by chance, which only costs a fetch.
Thread-safe and process-safe: a cell is one aligned word, and its values are random, so that no two writers agree.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from operator import itemgetter
from typing import Any

from helenite.core.paths import Path

CELLS = 1 << 15
"""Cells of each kind; a few thousand paths in use seldom share one."""
_ALL = 1
"""The cell that everything depends on."""
_ENTRIES = 8
_BENEATH = _ENTRIES + CELLS
TABLE_BYTES = 8 * (_BENEATH + CELLS)
_FRESH = struct.Struct("d")

Observed = tuple["itemgetter[Any]", Any]
"""Cells, and what they held."""


class Coherence:
    """The table."""

    def __init__(self, descriptor: int = -1, *, vouches: bool = True) -> None:
        """Over a shared file of TABLE_BYTES, or with -1 for this process alone.

        `vouches`: whether it may say of an answer that it still holds; else it only tells that something has changed.
        """
        self._vouches = vouches
        self._map = mmap.mmap(descriptor, TABLE_BYTES)
        self._cells = memoryview(self._map).cast("Q")

    def observe(self, path: Path) -> Observed:
        """What an answer about the entry at `path` depends on, to be noted before it is fetched.

        That is the entry and all above it, and everything beneath it: a directory's ETag changes with that.
        """
        indices = [_ALL, *_above(path)]
        cells = itemgetter(*indices, indices[-1] - _ENTRIES + _BENEATH)
        return cells, cells(self._cells)

    def holds(self, observed: Observed) -> bool:
        """Whether nothing has changed that an answer depends on."""
        cells, values = observed
        return bool(cells(self._cells) == values)

    def touch(self, path: Path) -> None:
        """The entry at `path` may have changed, or all that lies beneath it may have come or gone."""
        value = int.from_bytes(os.urandom(8))
        indices = _above(path)
        self._cells[indices[-1]] = value
        for index in indices:
            self._cells[index - _ENTRIES + _BENEATH] = value

    def touch_all(self) -> None:
        """Anything may have changed."""
        self._cells[_ALL] = int.from_bytes(os.urandom(8))

    def keep_fresh(self, until_s: float) -> None:
        """Changes of others are known up to now; the table may be relied on until then (monotonic seconds)."""
        _FRESH.pack_into(self._map, 0, until_s)

    def is_fresh(self, now_s: float) -> bool:
        """Whether the feed is followed: whoever waits for a change hears of it."""
        return bool(_FRESH.unpack_from(self._map, 0)[0] > now_s)

    def vouches(self, now_s: float) -> bool:
        """Whether an answer that `holds` may be given instead of asking."""
        return self._vouches and self.is_fresh(now_s)


def _above(path: Path) -> list[int]:
    """Indices of the entry cells of the root and of each path down to `path`."""
    indices, at = [_ENTRIES], 0
    for name in path:
        at = zlib.crc32(b"/" + name.encode(), at)
        indices.append(_ENTRIES + at % CELLS)
    return indices
