"""Holds transfers to so many bytes a second.

Used by `session`: one Throttle for what goes up, one for what comes down, shared by all transfers of the agent. Thread-
safe: one condition guards everything.
"""

from __future__ import annotations

import threading

from helenite.core.clock import Clock
from helenite.core.errors import UnavailableError

BURST_S = 0.25
"""Idle time that may be made up for: small files after a pause go at once."""
RATE_MIN = 10_000
"""Of a rate that a person chooses: slower, and a server takes us for dead between two pieces."""


class Throttle:
    """A rate, which may be changed at any time."""

    def __init__(self, clock: Clock, bytes_per_s: int | None = None) -> None:
        """`bytes_per_s` None: as fast as it goes."""
        self._clock = clock
        self._condition = threading.Condition()
        self._rate = bytes_per_s
        self._free_at = 0.0
        self._changes = 0
        self._is_over = False

    def limit(self, bytes_per_s: int | None) -> None:
        """Change the rate, for what follows; who waits has waited enough."""
        with self._condition:
            if bytes_per_s != self._rate:
                self._rate = bytes_per_s
                self._free_at = 0.0
                self._changes += 1
                self._condition.notify_all()

    def take(self, count: int) -> None:
        """Wait until so many more bytes may pass; UnavailableError when nothing may any more."""
        with self._condition:
            if self._rate is not None:
                now, changes = self._clock.monotonic_s(), self._changes
                self._free_at = max(self._free_at, now - BURST_S) + count / self._rate
                self._condition.wait_for(lambda: self._is_over or self._changes != changes, self._free_at - now)
            if self._is_over:
                raise UnavailableError("the agent ends; the rest follows when it runs again")

    def stop(self) -> None:
        """The agent ends: break off what is under way."""
        with self._condition:
            self._is_over = True
            self._condition.notify_all()
