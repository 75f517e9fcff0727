"""Hedged reads: a replica that is slower than usual costs a short wait; a slow cluster is not asked twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from helenite.client.hedging import BURST, DELAY_MAX_S, DELAY_MIN_S, FACTOR, FEW, SHARE, Hedge
from helenite.client.pool import ChunkPool
from helenite.client.rpc import MasterRpc
from helenite.core.errors import ChunkCorruptError, ContentLostError, DeadlineExceededError
from helenite.core.model import ChunkHandle, Location, ServerId

FIRST, SECOND, THIRD = (ServerId(number) for number in (1, 2, 3))
PLACE = Location(ChunkHandle(7), (FIRST, SECOND, THIRD), b"")
Answer = Callable[[], memoryview]


@pytest.fixture
def pool() -> Iterator[ChunkPool]:
    rpc = MasterRpc(("127.0.0.1:1",), 0.2)  # nobody listens there; only a relocation would ask
    made = ChunkPool(rpc, deadline_s=10.0)
    yield made
    made.close()
    rpc.close()


def answering(pool: ChunkPool, monkeypatch: pytest.MonkeyPatch, answers: dict[ServerId, Answer]) -> list[ServerId]:
    """Let replicas answer so, tried in the order 1, 2, 3; who was asked."""
    asked: list[ServerId] = []

    def read_once(server: ServerId, *_: object) -> memoryview:
        asked.append(server)
        return answers[server]()

    monkeypatch.setattr(pool, "_read_once", read_once)
    monkeypatch.setattr(pool, "_ordered", lambda location: list(location.servers))
    return asked


def good() -> memoryview:
    return memoryview(b"good")


def corrupt() -> memoryview:
    raise ChunkCorruptError("rotten")


def test_a_hung_replica_costs_the_usual_wait_only(pool: ChunkPool, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hang() -> memoryview:
        released.wait(20)
        raise DeadlineExceededError("no answer")

    asked = answering(pool, monkeypatch, {FIRST: hang, SECOND: good, THIRD: good})
    started = time.monotonic()
    try:
        assert pool.read_chunk(PLACE, 0, 4) == b"good"
    finally:
        elapsed = time.monotonic() - started
        released.set()
    assert asked == [FIRST, SECOND]
    assert elapsed < 5.0


def test_who_lost_a_race_is_read_from_last(pool: ChunkPool, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def slow() -> memoryview:
        released.wait(20)
        return good()

    answering(pool, monkeypatch, {FIRST: slow, SECOND: good, THIRD: good})
    pool.read_chunk(PLACE, 0, 4)
    released.set()
    monkeypatch.undo()
    assert all(pool._ordered(PLACE)[-1] == FIRST for _ in range(6))


def test_the_loser_of_a_race_is_suspected(pool: ChunkPool, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hang() -> memoryview:
        released.wait(20)
        raise DeadlineExceededError("no answer")

    answering(pool, monkeypatch, {FIRST: hang, SECOND: good, THIRD: good})
    pool.read_chunk(PLACE, 0, 4)
    assert FIRST not in pool._connections.suspects()
    released.set()
    deadline = time.monotonic() + 5
    while FIRST not in pool._connections.suspects():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_slow_first_answer_still_counts(pool: ChunkPool, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def slow() -> memoryview:
        released.wait(20)
        return good()

    def fail() -> memoryview:
        released.set()
        return corrupt()

    asked = answering(pool, monkeypatch, {FIRST: slow, SECOND: fail, THIRD: fail})
    assert pool.read_chunk(PLACE, 0, 4) == b"good"
    assert asked[:2] == [FIRST, SECOND]


def test_no_second_replica_is_asked_when_the_first_is_quick(pool: ChunkPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quick is what is quicker than the wait, which this machine must not exceed by itself."""
    monkeypatch.setattr(pool._hedge, "delay_s", lambda: 10.0)
    asked = answering(pool, monkeypatch, {FIRST: good, SECOND: good, THIRD: good})
    for _ in range(100):
        pool.read_chunk(PLACE, 0, 4)
    assert set(asked) == {FIRST}


def test_when_all_are_bad_the_content_is_lost(pool: ChunkPool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(pool, monkeypatch, {FIRST: corrupt, SECOND: corrupt, THIRD: corrupt})
    monkeypatch.setattr(pool, "_note_read_failure", lambda *_: None)
    monkeypatch.setattr("helenite.client.pool.ROUND_PAUSE_S", 0.001)
    with pytest.raises(ContentLostError):
        pool.read_chunk(PLACE, 0, 4)
    assert set(asked) == {FIRST, SECOND, THIRD}


def test_the_wait_follows_what_reads_take() -> None:
    hedge = Hedge()
    assert hedge.delay_s() == DELAY_MAX_S, "nothing is known yet"
    for _ in range(FEW):
        hedge.note(0.0005)
    assert hedge.delay_s() == DELAY_MIN_S
    for _ in range(256):
        hedge.note(0.05)
    assert hedge.delay_s() == pytest.approx(FACTOR * 0.05)
    for _ in range(256):
        hedge.note(2.0)
    assert hedge.delay_s() == DELAY_MAX_S


def test_only_a_share_of_reads_asks_twice() -> None:
    hedge = Hedge()
    assert sum(hedge.take() for _ in range(1000)) == BURST
    granted = 0
    for _ in range(1000):
        hedge.note(0.01)
        granted += hedge.take()
    assert granted == pytest.approx(1000 * SHARE, abs=1)
