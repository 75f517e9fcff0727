"""What calls for the next cycle of a pair: hints of the watcher, pushes of the server, transfers that are over, time.

Used by `runner`, whose thread takes from it what all others put in. A hint waits a moment for those that follow. The
set of dirty directories is bounded: beyond DIRTY_MAX everything is looked at. One condition guards everything.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from helenite.core.clock import Clock
from helenite.core.errors import UnavailableError
from helenite.core.paths import Path

DIRTY_MAX = 10_000
"""A scan of everything costs no more than one of so many directories."""
CALLS_MAX = 16
"""Questions of commands that wait for the pair's thread."""
CALL_S = 30.0


@dataclass(slots=True)
class Work:
    """What came in."""

    dirty: set[Path] = field(default_factory=set)
    is_everywhere: bool = False
    has_news: bool = False
    """The server says that something changed there."""
    is_due: bool = False
    calls: list[tuple[Callable[[], Any], Future[Any]]] = field(default_factory=list)


class Inbox:
    """The inbox of one pair."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._condition = threading.Condition()
        self._work = Work()
        self._due_at: float | None = None
        self._is_closed = False

    def hint(self, directory: Path, delay_s: float) -> None:
        """A directory is dirty; go and look after a moment, together with what follows."""
        with self._condition:
            if len(self._work.dirty) < DIRTY_MAX:
                self._work.dirty.add(directory)
            else:
                self._work.is_everywhere = True
            self._wake(delay_s)

    def poke(self, delay_s: float = 0.0, *, everywhere: bool = False, has_news: bool = False) -> None:
        """There is something to do."""
        with self._condition:
            self._work.is_everywhere = self._work.is_everywhere or everywhere
            self._work.has_news = self._work.has_news or has_news
            self._wake(delay_s)

    def call(self, function: Callable[[], Any]) -> Any:
        """Run a function on the pair's thread, between two cycles, and wait for what it gives or raises."""
        future: Future[Any] = Future()
        with self._condition:
            if self._is_closed:
                raise UnavailableError("the agent ends")
            if len(self._work.calls) >= CALLS_MAX:
                raise UnavailableError("too many commands are waiting already")
            self._work.calls.append((function, future))
            self._condition.notify_all()
        try:
            return future.result(CALL_S)
        except TimeoutError as error:
            raise UnavailableError("the agent is busy; try again in a moment") from error

    def close(self) -> None:
        """Nobody takes anything from here any more: let nobody wait for it."""
        with self._condition:
            self._is_closed = True
            calls, self._work.calls = self._work.calls, []
        for _, future in calls:
            future.set_exception(UnavailableError("the agent ends"))

    @property
    def is_empty(self) -> bool:
        """Whether nothing has come in that is still to be looked at."""
        with self._condition:
            return self._due_at is None

    def take(self, until: float | None) -> Work:
        """Wait until something is due, there is a call, or the time has come (monotonic; None: never)."""
        with self._condition:
            while not self._work.calls:
                now = self._clock.monotonic_s()
                times = [at for at in (self._due_at, until) if at is not None]
                left = min(times, default=now + 3600.0) - now
                if left <= 0:
                    break
                self._condition.wait(left)
            work, self._work = self._work, Work()
            now = self._clock.monotonic_s()
            work.is_due = any(at is not None and at <= now for at in (self._due_at, until))
            if work.is_due:
                self._due_at = None
            else:
                self._work = replace(work, dirty=set(work.dirty), calls=[])
            return work

    def _wake(self, delay_s: float) -> None:
        at = self._clock.monotonic_s() + delay_s
        if self._due_at is None or at < self._due_at:
            self._due_at = at
            self._condition.notify_all()
