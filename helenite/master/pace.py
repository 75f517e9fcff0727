"""How fast something gets on: completions of the last seconds. Pure: the time is an argument; used by `repairer`."""

from __future__ import annotations

from collections import deque

WINDOW_S = 10.0
COUNT_MAX = 10_000
"""Remembered: a thousand a second are more than a cluster copies."""


class Pace:
    """A rate. Not thread-safe."""

    def __init__(self) -> None:
        self._done: deque[float] = deque(maxlen=COUNT_MAX)

    def note(self, now: float) -> None:
        """One more is done."""
        self._done.append(now)

    def per_s(self, now: float) -> float:
        """Completions per second of the last ten, or of the time since the first."""
        while self._done and now - self._done[0] > WINDOW_S:
            self._done.popleft()
        return len(self._done) / max(1.0, now - self._done[0]) if self._done else 0.0
