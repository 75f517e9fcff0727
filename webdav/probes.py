"""Finder's probes: `._NAME` and `.DS_Store` beside every name it sees, nearly all of them for nothing.

Used by `requests` and `propfind`. A listing that Finder has just had tells which of these names exist, so for a moment
the others are answered with 404 without asking the cluster. Writing them works like writing anything. The workers of
one gateway share a stamp that changes with every write that could bring such a name, so that what one worker wrote is
never denied by another; other gateways are noticed when the moment is over. Thread-safe: one lock guards the listings.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from helenite.core.clock import Clock
from helenite.core.model import EntryView
from helenite.core.paths import Path

FINDER = ("WebDAVFS/", "WebDAVLib/")
"""How macOS' file system and its prober begin their User-Agent."""
LISTING_S = 2.0
"""How long a listing counts: Finder probes right after it; this is also how late another gateway's write is seen."""
LISTINGS_MAX = 1024
"""Directories remembered in each worker."""
STAMP_BYTES = 8


def is_probe_name(name: str) -> bool:
    """Whether Finder asks for such a name on its own."""
    return name.startswith("._") or name == ".DS_Store"


class Stamp:
    """A number that changes with every relevant write of any worker."""

    def __init__(self, descriptor: int = -1) -> None:
        """Over a shared file, or with -1 for this process alone."""
        self._map = mmap.mmap(descriptor, STAMP_BYTES)

    def read(self) -> bytes:
        return self._map[:]

    def change(self) -> None:
        """Random, so that two workers at once cannot agree on a value by accident, as two counters could."""
        self._map[:] = os.urandom(STAMP_BYTES)


@dataclass(frozen=True, slots=True)
class _Listing:
    stamp: bytes
    until: float
    names: frozenset[str]


class Probes:
    """What recent listings say about such names."""

    def __init__(self, stamp: Stamp, clock: Clock) -> None:
        self._stamp = stamp
        self._clock = clock
        self._lock = threading.Lock()  # guards _listings
        self._listings: OrderedDict[Path, _Listing] = OrderedDict()

    def is_absent(self, path: Path) -> bool:
        """Whether it is known that nothing has this path."""
        if not path or not is_probe_name(path[-1]):
            return False
        with self._lock:
            listing = self._listings.get(path[:-1])
        if listing is None or listing.until < self._clock.monotonic_s() or listing.stamp != self._stamp.read():
            return False
        return path[-1] not in listing.names

    def stamp(self) -> bytes:
        """To be read before the listing that is then observed."""
        return self._stamp.read()

    def observe(self, directory: Path, members: Iterator[EntryView], stamp: bytes) -> Iterator[EntryView]:
        """Pass a listing through and remember it when it was complete."""
        names: set[str] = set()
        for member in members:
            if is_probe_name(member.entry.name):
                names.add(member.entry.name)
            yield member
        listing = _Listing(stamp, self._clock.monotonic_s() + LISTING_S, frozenset(names))
        with self._lock:
            self._listings[directory] = listing
            self._listings.move_to_end(directory)
            while len(self._listings) > LISTINGS_MAX:
                self._listings.popitem(last=False)

    def forget(self) -> None:
        """Something was written that may have brought such a name: no worker trusts its listings any more."""
        self._stamp.change()
