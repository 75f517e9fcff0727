"""The one reader of the clock. Drivers take a Clock and pass `now` to the pure modules; tests pass their own."""

from __future__ import annotations

import time


class Clock:
    """Wall time for records, monotonic time for deadlines and liveness."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch; may jump."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Seconds that only ever rise; means nothing outside this process."""
        return time.monotonic()
