"""Waiting in tests: for a condition, never for a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def wait_until(holds: Callable[[], object], within_s: float = 10.0) -> None:
    """Return as soon as the condition holds; fail when the deadline passes first."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"it did not come about within {within_s} s"
        threading.Event().wait(0.01)
