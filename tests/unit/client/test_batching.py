"""Batches: everybody gets the own answer, nobody waits alone, errors reach all of a batch and no other."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from helenite.client.batching import BATCH_MAX, Batches
from helenite.core.errors import UnavailableError
from tests.support.waiting import wait_until


class Server:
    """Doubles numbers; `gate` holds answers back, `failing` numbers break their whole batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.failing: set[int] = set()

    def ask(self, questions: Sequence[int]) -> list[int]:
        self.batches.append(list(questions))
        assert self.gate.wait(10)
        if self.failing & set(questions):
            raise UnavailableError("no master answers")
        return [2 * question for question in questions]


def test_a_single_caller_goes_alone() -> None:
    server = Server()
    batches = Batches(server.ask)
    assert [batches.call(number) for number in range(3)] == [0, 2, 4]
    assert server.batches == [[0], [1], [2]]


def test_those_who_come_meanwhile_go_together() -> None:
    server = Server()
    batches = Batches(server.ask)
    server.gate.clear()
    with ThreadPoolExecutor(BATCH_MAX + 10) as pool:
        first = pool.submit(batches.call, 0)
        wait_until(lambda: server.batches)
        others = [pool.submit(batches.call, number) for number in range(1, BATCH_MAX + 6)]
        wait_until(lambda: len(batches._waiting) == len(others))
        server.gate.set()
        assert first.result(10) == 0
        assert [other.result(10) for other in others] == [2 * number for number in range(1, BATCH_MAX + 6)]
    assert list(map(len, server.batches)) == [1, BATCH_MAX, 5]


def test_an_error_reaches_its_batch_only() -> None:
    server = Server()
    batches = Batches(server.ask)
    server.gate.clear()
    server.failing = {1}
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(batches.call, 0)
        wait_until(lambda: server.batches)
        others = [pool.submit(batches.call, number) for number in (1, 2)]
        wait_until(lambda: len(batches._waiting) == 2)
        server.gate.set()
        assert first.result(10) == 0
        for other in others:
            with pytest.raises(UnavailableError):
                other.result(10)
    server.failing.clear()
    assert batches.call(3) == 6


def test_many_threads_under_load() -> None:
    server = Server()
    batches = Batches(server.ask)
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(batches.call, range(5_000))) == [2 * number for number in range(5_000)]
    assert sum(map(len, server.batches)) == 5_000
