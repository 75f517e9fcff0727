"""Tells those who wait that something about the agent is not as it was.

Used by `runner`, which rings it, and by `daemon`, whose tray waits. One condition guards the count.
"""

from __future__ import annotations

import threading


class Bell:
    """Counts its rings, so that nobody misses one between two waits."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._count = 1
        self._is_over = False

    def ring(self) -> None:
        with self._condition:
            self._count += 1
            self._condition.notify_all()

    def wait(self, seen: int, within_s: float) -> int:
        """The count of rings, as soon as it is not `seen`, or after so many seconds."""
        with self._condition:
            self._condition.wait_for(lambda: self._count != seen or self._is_over, within_s)
            return self._count

    def end(self) -> None:
        """Nobody waits any more."""
        with self._condition:
            self._is_over = True
            self._condition.notify_all()
