"""Holds transfers to so many bytes a second.

Used by `session`: one Throttle for what goes up, one for what comes down, shared by all transfers of the agent. Thread-
safe: one lock guards the two numbers.
"""

from __future__ import annotations

import threading

from helenite.core.clock import Clock
from helenite.core.errors import UnavailableError

BURST_S = 0.25
"""Idle time that may be made up for: small files after a pause go at once."""


class Throttle:
    """A rate, which may be changed at any time."""

    def __init__(self, clock: Clock, bytes_per_s: int | None = None) -> None:
        """`bytes_per_s` None: as fast as it goes."""
        self._clock = clock
        self._lock = threading.Lock()
        self._rate = bytes_per_s
        self._free_at = 0.0
        self._stopped = threading.Event()

    def limit(self, bytes_per_s: int | None) -> None:
        """Change the rate, for what follows."""
        with self._lock:
            self._rate = bytes_per_s
            self._free_at = 0.0

    def take(self, count: int) -> None:
        """Wait until so many more bytes may pass; UnavailableError when nothing may any more."""
        wait_s = self._reserve(count)
        if self._stopped.wait(wait_s) if wait_s > 0 else self._stopped.is_set():
            raise UnavailableError("the agent ends; the rest follows when it runs again")

    def stop(self) -> None:
        """The agent ends: break off what is under way."""
        self._stopped.set()

    def _reserve(self, count: int) -> float:
        with self._lock:
            if self._rate is None:
                return 0.0
            now = self._clock.monotonic_s()
            self._free_at = max(self._free_at, now - BURST_S) + count / self._rate
            return self._free_at - now
