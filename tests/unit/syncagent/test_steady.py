"""Threads that begin again, and the small things that threads wait on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from helenite.core.clock import Clock
from helenite.core.errors import UnavailableError
from syncagent import steady
from syncagent.bell import Bell
from syncagent.inbox import CALLS_MAX, DIRTY_MAX, Inbox
from syncagent.steady import SteadyWorker
from tests.support.waiting import wait_until


@contextmanager
def running(function: object) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=function)  # type: ignore[arg-type]
    thread.start()
    yield thread
    thread.join(10)
    assert not thread.is_alive()


def test_a_crashed_thread_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "PAUSE_S", (0.01, 0.04))
    pauses: list[float] = []
    beginnings: list[int] = []
    healthy = threading.Event()

    def body(stopping: threading.Event) -> None:
        beginnings.append(1)
        if len(beginnings) < 6:
            raise ZeroDivisionError
        healthy.set()
        stopping.wait()

    worker = SteadyWorker("steady-test", body, pauses.append, Clock())
    worker.start()
    assert healthy.wait(10)
    assert pauses == [0.01, 0.02, 0.04, 0.04, 0.04]
    worker.stop(10)
    assert "steady-test" not in {thread.name for thread in threading.enumerate()}


def test_who_is_stopped_in_the_pause_does_not_begin_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "PAUSE_S", (60.0, 60.0))
    crashed = threading.Event()
    beginnings: list[int] = []

    def body(_: threading.Event) -> None:
        beginnings.append(1)
        raise ZeroDivisionError

    worker = SteadyWorker("steady-test", body, lambda _: crashed.set(), Clock())
    worker.start()
    assert crashed.wait(10)
    worker.stop(10)
    wait_until(lambda: "steady-test" not in {thread.name for thread in threading.enumerate()})
    assert beginnings == [1]


def test_after_a_long_time_a_crash_counts_as_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "PAUSE_S", (0.01, 10.0))
    clock = SettableClock()
    pauses: list[float] = []
    done = threading.Event()

    def body(stopping: threading.Event) -> None:
        if len(pauses) == 5:
            done.set()
            stopping.wait()
            return
        clock.now += 1_000 if len(pauses) == 3 else 1
        raise ZeroDivisionError

    worker = SteadyWorker("steady-test", body, pauses.append, clock)
    worker.start()
    assert done.wait(10)
    worker.stop(10)
    assert pauses == [0.01, 0.02, 0.04, 0.01, 0.02]


def test_a_bell_misses_no_ring() -> None:
    bell = Bell()
    seen = bell.wait(0, 10)
    bell.ring()
    bell.ring()
    assert bell.wait(seen, 10) == seen + 2
    assert bell.wait(seen + 2, 0) == seen + 2
    heard: list[int] = []
    with running(lambda: heard.append(bell.wait(seen + 2, 10))):
        bell.ring()
    assert heard == [seen + 3]
    with running(lambda: heard.append(bell.wait(seen + 3, 60))):
        bell.end()
    assert bell.wait(seen + 3, 60) == seen + 3


# The inbox


class SettableClock(Clock):
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic_s(self) -> float:
        return self.now


def test_hints_gather_and_are_taken_once() -> None:
    clock = SettableClock()
    inbox = Inbox(clock)
    assert inbox.is_empty
    inbox.hint(("a",), 5)
    inbox.hint(("b",), 9)
    assert not inbox.is_empty
    clock.now += 6
    work = inbox.take(None)
    assert (work.dirty, work.is_everywhere, work.is_due) == ({("a",), ("b",)}, False, True)
    assert inbox.is_empty
    assert inbox.take(clock.now).dirty == set()


def test_too_many_hints_mean_everything() -> None:
    clock = SettableClock()
    inbox = Inbox(clock)
    for number in range(DIRTY_MAX + 10):
        inbox.hint((str(number),), 0)
    work = inbox.take(None)
    assert work.is_everywhere
    assert len(work.dirty) == DIRTY_MAX


def test_a_call_does_not_take_hints_that_are_not_due() -> None:
    clock = SettableClock()
    inbox = Inbox(clock)
    answers: list[object] = []
    inbox.hint(("a",), 1_000)
    with running(lambda: answers.append(inbox.call(lambda: 7))):
        work = inbox.take(None)
        assert not work.is_due
        for function, future in work.calls:
            future.set_result(function())
    assert answers == [7]
    clock.now += 2_000
    assert inbox.take(None).dirty == {("a",)}


def test_waiting_calls_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syncagent.inbox.CALL_S", 0.01)
    inbox = Inbox(SettableClock())
    for _ in range(CALLS_MAX):
        with pytest.raises(UnavailableError, match="busy"):
            inbox.call(lambda: None)
    with pytest.raises(UnavailableError, match="too many"):
        inbox.call(lambda: None)
    assert len(inbox.take(None).calls) == CALLS_MAX


def test_who_waits_when_it_ends_is_told() -> None:
    inbox = Inbox(Clock())
    errors: list[UnavailableError] = []

    def call() -> None:
        with pytest.raises(UnavailableError, match="ends") as caught:
            inbox.call(lambda: None)
        errors.append(caught.value)

    with running(call):
        wait_until(lambda: inbox._work.calls)
        inbox.close()
    call()
    assert len(errors) == 2


def test_a_poke_wakes_who_waits() -> None:
    inbox = Inbox(Clock())
    taken: list[bool] = []
    with running(lambda: taken.append(inbox.take(None).is_everywhere)):
        inbox.poke(everywhere=True)
    assert taken == [True]
