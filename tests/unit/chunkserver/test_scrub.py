"""The scrub finds rot that nobody reads, keeps its pace, and goes on after a restart where it stopped."""

from __future__ import annotations

import errno
import json
import os
import random
import threading
import time
from pathlib import Path

import pytest

from helenite.chunkserver.bad_replicas import SICK_AT
from helenite.chunkserver.recheck import look_again
from helenite.chunkserver.scrub import BAD_IN_A_ROW_MAX, HEADROOM, RATE_MIN, Progress, Scrub, rate
from helenite.chunkserver.store import ChunkStore
from helenite.core.clock import Clock
from helenite.core.model import MIB, ChunkHandle
from tests.support.chunkstores import LARGE, put
from tests.support.waiting import wait_until


class SetClock(Clock):
    """Wall time as told; real monotonic time."""

    def __init__(self, now_ms: int) -> None:
        self.at_ms = now_ms

    def now_ms(self) -> int:
        return self.at_ms


def damage(store: ChunkStore, handle: int, rng: random.Random) -> None:
    """Flip one bit of a replica on its disk."""
    with store.open(ChunkHandle(handle)) as replica:
        path = Path(f"/proc/self/fd/{replica.descriptor}").readlink()
        at = replica.offset + rng.randrange(replica.length)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << rng.randrange(8)]))


def running(store: ChunkStore, directory: Path, clock: Clock, limit: int = 1 << 40, period_s: float = 3600.0) -> Scrub:
    return Scrub(store, directory, period_s, limit, clock)


def test_a_pass_finds_what_rotted_and_nothing_else(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    rng = random.Random(7)
    store = ChunkStore(tmp_path)
    request.addfinalizer(store.close)
    for handle in range(1, 41):
        put(store, handle, LARGE if handle % 8 == 0 else rng.randrange(1, 200_000))
    bad = sorted(rng.sample(range(1, 41), 12))
    for handle in bad:
        damage(store, handle, rng)
    scrub = Scrub(store, tmp_path, 0.5, 1 << 40, Clock()).start()
    request.addfinalizer(scrub.stop)
    wait_until(lambda: scrub.progress.verified_since_ms > 0, 20)
    assert store.bad.reports(100) == bad
    assert store.chunk_count() == 40 - len(bad)
    assert [handle for handle in range(1, 41) if not store.has(ChunkHandle(handle))] == bad


def test_an_interrupted_pass_goes_on_where_it_stopped(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    store = ChunkStore(tmp_path)
    request.addfinalizer(store.close)
    for handle in range(1, 21):
        put(store, handle, 100_000)
    clock = SetClock(1_000_000)
    slow = running(store, tmp_path, clock, limit=500_000).start()
    wait_until(lambda: slow.progress.cursor >= 3, 10)
    slow.stop()
    stopped_at = slow.progress
    assert not stopped_at.is_done
    assert 3 <= stopped_at.cursor < 20
    checked: list[int] = []
    real_check = store.check

    def check(handle: ChunkHandle, *args: object, **options: object) -> object:
        checked.append(handle)
        return real_check(handle, *args, **options)  # type: ignore[arg-type]

    store.check = check  # type: ignore[method-assign, assignment]
    fast = running(store, tmp_path, clock).start()
    wait_until(lambda: fast.progress.is_done, 10)
    fast.stop()
    assert checked == list(range(stopped_at.cursor + 1, 21))
    assert fast.progress == Progress(1_000_000, is_done=True, verified_since_ms=1_000_000)


def test_the_next_pass_begins_when_it_is_due(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    store = ChunkStore(tmp_path)
    request.addfinalizer(store.close)
    put(store, 1, 1_000)
    clock = SetClock(1_000_000)
    scrub = running(store, tmp_path, clock)
    scrub._pass(threading.Event())
    assert scrub.progress.verified_since_ms == 1_000_000
    damage(store, 1, random.Random(1))
    clock.at_ms += 3_599_000
    scrub._pass(threading.Event())
    assert store.bad.reports(100) == [], "not due yet"
    clock.at_ms += 2_000
    scrub._pass(threading.Event())
    assert store.bad.reports(100) == [1]


def test_it_rests_when_everything_seems_bad(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A controller gone mad must not have all replicas condemned before repair or a person can do anything."""
    store = ChunkStore(tmp_path)
    request.addfinalizer(store.close)
    for handle in range(1, 4 * BAD_IN_A_ROW_MAX):
        put(store, handle, 1_000)
        damage(store, handle, random.Random(handle))
    scrub = running(store, tmp_path, Clock()).start()
    request.addfinalizer(scrub.stop)
    wait_until(lambda: scrub.progress.cursor == BAD_IN_A_ROW_MAX)
    with pytest.raises(AssertionError):
        wait_until(lambda: scrub.progress.cursor > BAD_IN_A_ROW_MAX, 0.5)
    assert store.bad.reports(100) == list(range(1, BAD_IN_A_ROW_MAX + 1))


def test_a_pass_stops_on_a_sick_disk_and_goes_on_when_it_is_well(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ChunkStore(tmp_path)
    request.addfinalizer(store.close)
    for handle in range(1, 101):
        put(store, handle, 1_000)

    def preadv(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    scrub = Scrub(store, tmp_path, 1.0, 1 << 40, SetClock(1_000_000))
    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", preadv)
        scrub._pass(threading.Event())
        scrub._pass(threading.Event())
    assert not scrub.progress.is_done
    assert scrub.progress.cursor < SICK_AT
    assert store.bad.is_sick
    look_again(store, threading.Event())
    scrub._pass(threading.Event())
    assert scrub.progress.is_done
    assert store.bad.reports(100) == []


def test_a_clock_set_back_does_not_stop_scrubbing(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    store = ChunkStore(tmp_path)
    request.addfinalizer(store.close)
    clock = SetClock(10_000_000)
    scrub = running(store, tmp_path, clock)
    scrub._pass(threading.Event())
    clock.at_ms = 5_000_000
    assert scrub._rest_s() == 0.0
    scrub._pass(threading.Event())
    assert scrub.progress.started_at_ms == 5_000_000


def test_a_pass_keeps_to_its_rate(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    store = ChunkStore(tmp_path)
    request.addfinalizer(store.close)
    for handle in range(1, 6):
        put(store, handle, 200_000)
    scrub = running(store, tmp_path, SetClock(1), limit=2_000_000)
    # A period so short that only the limit counts.
    scrub._period_s = 0.001
    started = time.monotonic()
    scrub._pass(threading.Event())
    assert time.monotonic() - started > 0.8 * 1_000_000 / 2_000_000


def test_rates() -> None:
    week = 604_800.0
    assert rate(0, week, 32 * MIB) == RATE_MIN
    assert rate(4 * 2**40, week, 32 * MIB) == pytest.approx(HEADROOM * 4 * 2**40 / week)
    assert rate(1000 * 2**40, week, 32 * MIB) == 32 * MIB


def test_a_damaged_note_means_from_the_start(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    store = ChunkStore(tmp_path)
    request.addfinalizer(store.close)
    for text in ("", "[1", json.dumps({"cursor": 5, "unknown": 1})):
        (tmp_path / "scrub.json").write_text(text)
        assert running(store, tmp_path, Clock()).progress == Progress()
