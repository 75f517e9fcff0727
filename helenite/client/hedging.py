"""When a read has waited long enough for one replica that a second one is asked too.

Used by `pool`. After "The Tail at Scale" (Dean, Barroso 2013): the wait is a multiple of what nearly all recent reads
took, and only a small share of reads may ask twice, so that a cluster that is slow everywhere is not made slower.
Thread-safe: one lock.
"""

from __future__ import annotations

import threading
from collections import deque

RECENT = 256
"""Reads whose times are remembered."""
FEW = 16
"""Below so many the times say nothing yet."""
QUANTILE = 0.95
FACTOR = 3.0
DELAY_MIN_S = 0.03
"""Two processes that share a core make each other wait this long now and then."""
DELAY_MAX_S = 0.5
"""A third of the patience with one replica."""
SHARE = 0.05
"""Reads that may ask twice, of all."""
BURST = 16.0
"""So many more at once: a server that hangs meets all reads that are under way."""


class Hedge:
    """The recent reads of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards everything below
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._allowed = BURST
        self._delay_s = DELAY_MAX_S
        self._noted = 0

    def note(self, elapsed_s: float) -> None:
        """A replica answered after this long."""
        with self._lock:
            self._recent.append(elapsed_s)
            self._allowed = min(BURST, self._allowed + SHARE)
            self._noted += 1
            if self._noted % FEW == 0:
                usual = sorted(self._recent)[int(QUANTILE * len(self._recent))]
                self._delay_s = min(DELAY_MAX_S, max(DELAY_MIN_S, FACTOR * usual))

    def delay_s(self) -> float:
        """How long to wait for one replica before another is asked."""
        with self._lock:
            return self._delay_s

    def take(self) -> bool:
        """Whether one more read may ask twice now."""
        with self._lock:
            if self._allowed < 1:
                return False
            self._allowed -= 1
            return True
