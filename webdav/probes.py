"""Finder's probes: `._NAME` and `.DS_Store` beside every name it sees, nearly all of them for nothing.

Used by `requests` and `propfind`. A listing that Finder has just had tells which of these names exist, so as long as it
holds (`client.coherence`) the others are answered with 404 without asking the cluster. Writing them works like writing
anything. Thread-safe: one lock guards the listings.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from helenite.client.coherence import Coherence, Observed
from helenite.core.model import EntryView
from helenite.core.paths import Path

FINDER = ("WebDAVFS/", "WebDAVLib/")
"""How macOS' file system and its prober begin their User-Agent."""
LISTINGS_MAX = 1024
"""Directories remembered in each worker."""


def is_probe_name(name: str) -> bool:
    """Whether Finder asks for such a name on its own."""
    return name.startswith("._") or name == ".DS_Store"


@dataclass(frozen=True, slots=True)
class _Listing:
    observed: Observed
    names: frozenset[str]


class Probes:
    """What recent listings say about such names."""

    def __init__(self, coherence: Coherence) -> None:
        self._coherence = coherence
        self._lock = threading.Lock()  # guards _listings
        self._listings: OrderedDict[Path, _Listing] = OrderedDict()

    def is_absent(self, path: Path) -> bool:
        """Whether it is known that nothing has this path."""
        if not path or not is_probe_name(path[-1]):
            return False
        with self._lock:
            listing = self._listings.get(path[:-1])
        if listing is None or path[-1] in listing.names or not self._coherence.vouches(time.monotonic()):
            return False
        return self._coherence.holds(listing.observed)

    def observe(self, directory: Path, members: Iterator[EntryView], observed: Observed) -> Iterator[EntryView]:
        """Pass a listing through and remember it when it was complete; `observed` was noted before it was fetched."""
        names: set[str] = set()
        for member in members:
            if is_probe_name(member.entry.name):
                names.add(member.entry.name)
            yield member
        with self._lock:
            self._listings[directory] = _Listing(observed, frozenset(names))
            self._listings.move_to_end(directory)
            while len(self._listings) > LISTINGS_MAX:
                self._listings.popitem(last=False)
