"""The one reader of the clock. Drivers take a Clock and pass `now` to the pure modules; tests pass their own."""

from __future__ import annotations

import threading
import time


class Clock:
    """Wall time for records, monotonic time for deadlines and liveness."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch; may jump."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Seconds that only ever rise; means nothing outside this process."""
        return time.monotonic()


class RunningClock(Clock):
    """Monotonic time that stands still while this process does (SIGSTOP, a paused machine).

    So silences are not counted that only this process did not hear. A worker with `keep_asking` has to run:
    a time longer than PAUSE_S between two questions counts as a pause. Thread-safe.
    """

    PAUSE_S = 1.5

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the two below
        self._asked_at = super().monotonic_s()
        self._paused_s = 0.0

    def monotonic_s(self) -> float:
        """Seconds during which this process ran; means nothing outside it."""
        with self._lock:
            now = super().monotonic_s()
            if now - self._asked_at > self.PAUSE_S:
                self._paused_s += now - self._asked_at
            self._asked_at = now
            return now - self._paused_s

    def keep_asking(self, stopping: threading.Event) -> None:
        """The body of a worker that asks often enough."""
        while not stopping.wait(self.PAUSE_S / 3):
            self.monotonic_s()
