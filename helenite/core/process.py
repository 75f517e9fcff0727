"""What every long-running process does once: logging, signals, threads that may not die silently; how it is restarted.

Used by the `__main__` of each service and by what supervises them. It decides nothing about chunks or names. Threads
start only here.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

CONFIGURATION_EXIT = 2
"""The status of a process that a person must change something for: whoever supervises it does not start it again."""
BACKOFF_MIN_S = 0.2
BACKOFF_MAX_S = 5.0
STEADY_S = 10.0
"""A process that lived this long is started again nearly at once."""
STOPPING = frozenset({signal.SIGINT, signal.SIGTERM})
REPEAT_S = 60.0
REPEATS_MAX = 1_000
"""Lines that are remembered, some hundred kilobytes."""


class Worker:
    """A named thread that logs its crash and reports it; `stop` asks it to end and waits.

    `body` gets the stop event and returns when it is set.
    """

    def __init__(
        self, name: str, body: Callable[[threading.Event], None], on_crash: Callable[[], None] | None = None
    ) -> None:
        self._stopping = threading.Event()
        self._on_crash = on_crash
        self._body = body
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> Worker:
        self._thread.start()
        return self

    def stop(self, timeout_s: float = 5.0) -> None:
        """Ask the body to end and wait for it."""
        self._stopping.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self._body(self._stopping)
        except BaseException:
            log.exception("thread %s crashed", self._thread.name)
            if self._on_crash is not None:
                self._on_crash()


class Backoff:
    """Pauses before one process is started again, however often it ends."""

    def __init__(self) -> None:
        self._pause_s = BACKOFF_MIN_S

    def pause_s(self, lived_s: float) -> float:
        """The pause after it has lived so long: twice the one before, unless it was steady."""
        if lived_s >= STEADY_S:
            self._pause_s = BACKOFF_MIN_S
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, BACKOFF_MAX_S)
        return pause_s


class Repeats(logging.Filter):
    """Lets the same line pass once a minute, with how often it was held back.

    Loops try again every second while Redis, a master or a disk is away: for days, that would fill a disk.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()  # guards the one below
        self._passed: dict[tuple[str, str], tuple[float, int]] = {}
        """Logger and line -> when it last passed, and how often it was held back since. The oldest comes first."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info:
            return True
        line = record.getMessage()
        with self._lock:
            held_back = self._hold_back((record.name, line), time.monotonic())
        if held_back is None:
            return False
        if held_back:
            record.msg, record.args = "%s (and %d times more since it was last said here)", (line, held_back)
        return True

    def _hold_back(self, key: tuple[str, str], now: float) -> int | None:
        """None when the line is to be held back, else how often it was."""
        passed_at, held_back = self._passed.get(key, (float("-inf"), 0))
        if now - passed_at < REPEAT_S:
            self._passed[key] = passed_at, held_back + 1
            return None
        self._passed.pop(key, None)
        if len(self._passed) >= REPEATS_MAX:
            del self._passed[next(iter(self._passed))]
        self._passed[key] = now, 0
        return held_back


def start_logging(level: str) -> None:
    """Log to stderr, one line an event; SIGUSR1 prints all stacks."""
    logging.basicConfig(
        stream=sys.stderr, level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    for handler in logging.getLogger().handlers:
        handler.addFilter(Repeats())
    if sys.platform != "win32":
        faulthandler.register(signal.SIGUSR1, all_threads=True)


def stop_event_on_signals() -> threading.Event:
    """An event that SIGINT or SIGTERM sets. Called once, by the main thread.

    The kernel may hand a signal to any thread, and does when one is just starting, as those of gRPC often are. Then the
    handler waits for the main thread, and that for the event: so a thread waits for what Python writes to a socket. It
    alone sets the event: a handler would run in the main thread, which may hold the event's lock at that moment.
    """
    stopping = threading.Event()
    told, telling = socket.socketpair()
    telling.settimeout(0)
    signal.set_wakeup_fd(telling.detach(), warn_on_full_buffer=False)  # stays open
    for number in STOPPING:
        signal.signal(number, lambda *_: None)

    def listen(_ending: threading.Event) -> None:
        while True:
            if not STOPPING.isdisjoint(told.recv(64)):
                stopping.set()

    Worker("signals", listen).start()
    return stopping


def die_with_parent(parent_pid: int | None = None) -> None:
    """End this process when the supervisor that started it is gone (HELENITE_SUPERVISED), however it died.

    A supervisor that passes its own id is noticed even when it died before this call.
    """
    parent = os.getppid() if parent_pid is None else parent_pid

    def watch(stopping: threading.Event) -> None:
        while not stopping.wait(1.0):
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    Worker("parent-watch", watch).start()


def tell_ready(ready_fd: int) -> None:
    """Tell the supervisor, if there is one, that this process serves requests (HELENITE_READY_FD)."""
    if ready_fd >= 0:
        os.write(ready_fd, b"ready\n")
        os.close(ready_fd)
