"""A thread that begins again when a bug has ended it, after a pause that grows: the others of its pair go on meanwhile.

Used by `runner` and `companion`. Threading: `stop` may be called by any thread but the one that runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from helenite.core.clock import Clock
from helenite.core.process import Worker

PAUSE_S = (1.0, 300.0)
"""Before the second beginning, and the longest; it doubles."""
WELL_S = 600.0
"""Whoever ran for so long has recovered, and its next crash counts as the first."""


class SteadyWorker:
    """Runs a body until it is stopped, whatever happens to it."""

    def __init__(
        self, name: str, body: Callable[[threading.Event], None], on_crash: Callable[[float], None], clock: Clock
    ) -> None:
        """`on_crash` is called on the thread that crashed, with the seconds until it begins again."""
        self._name = name
        self._body = body
        self._on_crash = on_crash
        self._clock = clock
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # guards the one below: nobody begins again after `stop`
        self._worker: Worker | None = None
        self._began_at = 0.0
        self._count = 0

    def start(self) -> None:
        with self._lock:
            if not self._stopping.is_set():
                self._began_at = self._clock.monotonic_s()
                self._worker = Worker(self._name, lambda _: self._body(self._stopping), self._recover).start()

    def stop(self, timeout_s: float) -> None:
        """Ask the body to end, and wait so long for it."""
        self._stopping.set()
        with self._lock:
            worker = self._worker
        if worker is not None:
            worker.stop(timeout_s)

    def _recover(self) -> None:
        if self._clock.monotonic_s() - self._began_at > WELL_S:
            self._count = 0
        first, longest = PAUSE_S
        pause_s = min(first * 2.0 ** min(self._count, 30), longest)
        self._count += 1
        self._on_crash(pause_s)
        if not self._stopping.wait(pause_s):
            self.start()
