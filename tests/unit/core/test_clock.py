"""A clock that stands still while its process does."""

from __future__ import annotations

import pytest

from helenite.core.clock import Clock, RunningClock


def test_a_pause_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(Clock, "monotonic_s", lambda _: now)
    clock = RunningClock()
    began = clock.monotonic_s()
    for _ in range(10):
        now += 0.5
        clock.monotonic_s()
    assert clock.monotonic_s() == pytest.approx(began + 5.0)
    now += 3600.0
    assert clock.monotonic_s() == pytest.approx(began + 5.0), "nobody asked for an hour: it was paused"
    now += 1.0
    assert clock.monotonic_s() == pytest.approx(began + 6.0)
