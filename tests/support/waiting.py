"""Waiting in tests: for a condition, never for a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

SHORTEST_S, LONGEST_S = 0.01, 1.0
"""The pause between two looks."""


def wait_until(holds: Callable[[], object], within_s: float = 60.0, tell: Callable[[], object] = str) -> None:
    """Return as soon as the condition holds; fail when the deadline passes first, and `tell` how things are.

    A look may start a process or read a tree. What is waited for happens on the same processors, so looking gets at
    most half of the time; one that hangs is no load.
    """
    deadline = time.monotonic() + within_s
    while True:
        began = time.monotonic()
        if holds():
            return
        now = time.monotonic()
        assert now < deadline, f"it did not come about within {within_s} s {tell()}"
        threading.Event().wait(min(max(SHORTEST_S, now - began), LONGEST_S))
