"""Requests that are held back until something changes (`Prefer: wait`, RFC 7240): how many may, and for how long.

Used by `syncing`. A request that waits looks at the shared table of `client.coherence` every TICK_S and asks nobody, so
it costs a thread and next to no time. When the feed is not followed the table says nothing, and nobody waits.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from helenite.client.coherence import Coherence, Observed

TICK_S = 0.03
"""Between two looks: what a change waits until its client hears of it, beside the feed's own milliseconds."""
WAIT_S_MAX = 60
"""A connection that is silent for longer may be cut by what stands between."""

_WAIT = re.compile(r"(?:^|[,\s])wait\s*=\s*\"?([0-9]{1,9})\"?\s*(?:$|[,;])", re.IGNORECASE)


def parse_wait(prefer: str | None) -> int:
    """The seconds of a `Prefer` header's `wait`, at most WAIT_S_MAX; 0 without one."""
    match = _WAIT.search(prefer or "")
    return 0 if match is None else min(int(match[1]), WAIT_S_MAX)


class WaitingRoom:
    """Where requests of one process wait."""

    def __init__(self, coherence: Coherence, places: int) -> None:
        """`places`: how many may wait at the same time; each holds one of the server's threads."""
        self._coherence = coherence
        self._free = threading.Semaphore(places)

    @contextmanager
    def place(self) -> Iterator[bool]:
        """Whether there is a place; it is taken meanwhile."""
        has_place = self._free.acquire(blocking=False)
        try:
            yield has_place
        finally:
            if has_place:
                self._free.release()

    def is_fresh(self) -> bool:
        """Whether waiting means anything: changes are heard of."""
        return self._coherence.is_fresh(time.monotonic())

    def wait(self, observed: Observed, deadline: float, is_unwanted: Callable[[float], bool]) -> bool:
        """Wait until `observed` may have changed; False when that does not happen, or nobody would hear of it.

        `is_unwanted` waits for the given seconds, or until the answer is no longer wanted, and tells which.
        """
        while self.is_fresh():
            if not self._coherence.holds(observed):
                return True
            left = deadline - time.monotonic()
            if left <= 0 or is_unwanted(min(TICK_S, left)):
                return False
        return False
