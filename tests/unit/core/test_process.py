"""What every process does once."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time

import pytest

from helenite.core.process import BACKOFF_MAX_S, REPEAT_S, REPEATS_MAX, STEADY_S, Backoff, Repeats

PROGRAM = """
import signal, sys, threading, time
from helenite.core.process import stop_event_on_signals

stopping = stop_event_on_signals()

def take(number):
    time.sleep(0.5)  # the main thread waits by now, or else this test proves nothing
    signal.pthread_kill(threading.get_ident(), number)
    threading.Event().wait()

threading.Thread(target=take, args=(int(sys.argv[1]),), daemon=True).start()
stopping.wait()
"""
IN_THE_MIDDLE = """
import signal, sys
from helenite.core.process import stop_event_on_signals

stopping = stop_event_on_signals()
with stopping._cond:  # as whenever a wait begins or ends
    signal.raise_signal(int(sys.argv[1]))
stopping.wait()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_as_a_wait_begins_ends_the_process(number: signal.Signals) -> None:
    """The thread that runs handlers holds the event's lock then: a handler that sets the event waits for itself."""
    done = subprocess.run([sys.executable, "-c", IN_THE_MIDDLE, str(int(number))], timeout=30, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_another_thread_takes_ends_the_process(number: signal.Signals) -> None:
    """The kernel chooses the thread; one that is just starting may be it, whatever the main thread does."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(int(number))], timeout=30, check=False)
    assert done.returncode == 0


def test_who_ends_again_and_again_rests_longer() -> None:
    backoff = Backoff()
    pauses = [backoff.pause_s(1.0) for _ in range(8)]
    assert pauses[:4] == [0.2, 0.4, 0.8, 1.6]
    assert pauses[-2:] == [BACKOFF_MAX_S, BACKOFF_MAX_S]
    assert backoff.pause_s(STEADY_S) == pauses[0], "who has run for long is started at once again"


def said(repeats: Repeats, line: str, *arguments: object, name: str = "loop") -> str | None:
    record = logging.LogRecord(name, logging.WARNING, "", 0, line, arguments, None)
    return record.getMessage() if repeats.filter(record) else None


def test_the_same_line_passes_once_a_minute_and_says_how_often_it_did_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    repeats = Repeats()
    passed = []
    for _ in range(300):
        passed.append(said(repeats, "Redis at %s does not answer, 100 %% of the time", "h:1"))
        now += 1.0
    lines = [line for line in passed if line is not None]
    assert len(lines) == 300 / REPEAT_S
    assert lines[0] == "Redis at h:1 does not answer, 100 % of the time"
    assert lines[1] == lines[0] + " (and 59 times more since it was last said here)"
    assert said(repeats, "Redis at %s does not answer, 100 %% of the time", "h:2") is not None, "another line"
    assert said(repeats, "Redis at %s does not answer, 100 %% of the time", "h:2", name="other") is not None


def test_lines_that_are_remembered_are_bounded() -> None:
    repeats = Repeats()
    for number in range(2 * REPEATS_MAX):
        assert said(repeats, "%d", number) == str(number)
    assert len(repeats._passed) == REPEATS_MAX
    assert said(repeats, "%d", 2 * REPEATS_MAX - 1) is None, "the newest are kept"
