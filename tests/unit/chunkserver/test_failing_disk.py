"""A store on a disk that refuses, fails or lies: what is acknowledged, what is condemned, what comes back."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from helenite.chunkserver.bad_replicas import PERSISTS_S, SICK_AT, UNREADABLE_MAX
from helenite.chunkserver.layout import record_bytes
from helenite.chunkserver.recheck import look_again
from helenite.chunkserver.room import REFUSED_S
from helenite.chunkserver.store import ChunkStore
from helenite.core.clock import Clock
from helenite.core.errors import (
    ChunkCorruptError,
    HeleniteError,
    InsufficientStorageError,
    ReplicaUnreadableError,
    UnavailableError,
)
from helenite.core.model import ChunkHandle
from tests.support.chunkstores import LARGE, assert_holds, path_of, put, snapshot

OpenStore = Callable[..., ChunkStore]
BOTH = pytest.mark.parametrize("size", [4096, LARGE])


class FailingDisk:
    """Makes one system call fail, as a disk would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def fail(self, call: str, number: int) -> None:
        def refuse(*_arguments: object) -> None:
            raise OSError(number, os.strerror(number))

        self._monkeypatch.setattr(os, call, refuse)

    def recover(self) -> None:
        self._monkeypatch.undo()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FailingDisk:
    return FailingDisk(monkeypatch)


@pytest.mark.parametrize(
    ("size", "call"),
    [(4096, "pwritev"), (4096, "fdatasync"), (LARGE, "pwritev"), (LARGE, "fdatasync"), (LARGE, "fsync")],
)
@pytest.mark.parametrize(
    ("number", "expected"), [(errno.ENOSPC, InsufficientStorageError), (errno.EIO, UnavailableError)]
)
def test_what_the_disk_refuses_is_not_acknowledged(
    open_store: OpenStore,
    tmp_path: Path,
    disk: FailingDisk,
    size: int,
    call: str,
    number: int,
    expected: type[HeleniteError],
) -> None:
    store = open_store(tmp_path / "a")
    kept = {1: put(store, 1, 4096), 2: put(store, 2, LARGE)}
    disk.fail(call, number)
    with pytest.raises(expected):
        put(store, 3, size)
    assert_holds(store, kept)
    disk.recover()
    assert not any(store.files.unfinished.iterdir())
    kept[4] = put(store, 4, size)
    assert_holds(store, kept)
    snapshot(tmp_path / "a", tmp_path / "b")
    assert_holds(open_store(tmp_path / "b"), kept)


@BOTH
def test_a_disk_that_refuses_writes_is_offered_none_for_a_while(
    open_store: OpenStore, tmp_path: Path, disk: FailingDisk, size: int
) -> None:
    clock = StoppedClock()
    store = open_store(tmp_path, clock=clock)
    assert store.room.offered_bytes() > 0
    disk.fail("fdatasync", errno.ENOSPC)
    with pytest.raises(InsufficientStorageError):
        put(store, 1, size)
    assert store.room.offered_bytes() > 0, "a full disk says itself how full it is"
    disk.fail("fdatasync", errno.EIO)
    with pytest.raises(UnavailableError):
        put(store, 2, size)
    assert store.room.offered_bytes() == 0
    assert store.room.free_bytes() > 0
    disk.recover()
    clock.at_s += REFUSED_S
    assert store.room.offered_bytes() > 0
    put(store, 3, size)


def test_a_disk_that_refuses_small_chunks_together_is_offered_none_either(
    open_store: OpenStore, tmp_path: Path, disk: FailingDisk
) -> None:
    store = open_store(tmp_path)
    disk.fail("fdatasync", errno.EIO)
    with pytest.raises(UnavailableError):
        store.put_small([(ChunkHandle(1), b"one"), (ChunkHandle(2), b"two")])
    assert store.room.offered_bytes() == 0


def test_a_segment_whose_sync_failed_is_not_appended_to_again(store: ChunkStore, disk: FailingDisk) -> None:
    """The kernel marks the pages clean; a second sync would succeed and have written nothing."""
    put(store, 1, 100)
    disk.fail("fdatasync", errno.EIO)
    with pytest.raises(UnavailableError):
        put(store, 2, 100)
    disk.recover()
    put(store, 3, 100)
    first, third = path_of(store, 1)[0], path_of(store, 3)[0]
    assert first != third
    assert first.stat().st_size == record_bytes(100), "what was not acknowledged is cut off"


def test_a_full_disk_still_deletes(store: ChunkStore, disk: FailingDisk) -> None:
    put(store, 1, 100)
    put(store, 2, LARGE)
    disk.fail("pwritev", errno.ENOSPC)
    assert store.delete(ChunkHandle(1))
    assert store.delete(ChunkHandle(2))
    assert_holds(store, {})


@BOTH
@pytest.mark.parametrize("call", ["preadv", "open", "fstat", "posix_fadvise"])
def test_what_the_disk_does_not_give_now_is_not_condemned(
    store: ChunkStore, disk: FailingDisk, size: int, call: str
) -> None:
    data = put(store, 1, size)
    disk.fail(call, errno.EIO)
    with pytest.raises(ReplicaUnreadableError):
        store.check(ChunkHandle(1), is_cold=True)
    assert store.bad.doubtful() == [1]
    disk.recover()
    assert store.bad.reports(10) == []
    assert_holds(store, {1: data})
    assert store.bad.doubtful() == []


class StoppedClock(Clock):
    """Monotonic time as told."""

    at_s = 1_000.0

    def monotonic_s(self) -> float:
        return self.at_s


@BOTH
def test_a_bad_sector_is_reported_once_it_has_lasted_and_its_bytes_are_kept(
    open_store: OpenStore, tmp_path: Path, disk: FailingDisk, size: int
) -> None:
    clock = StoppedClock()
    store = open_store(tmp_path, clock=clock)
    data = put(store, 1, size)
    disk.fail("preadv", errno.EIO)
    for at_s in (1_000.0, 1_000.0 + PERSISTS_S - 1):
        clock.at_s = at_s
        look_again(store, threading.Event())
        with pytest.raises(ReplicaUnreadableError):
            store.verify(ChunkHandle(1))
        assert store.bad.reports(10) == []
    clock.at_s += 2
    look_again(store, threading.Event())
    assert (store.bad.reports(10), store.bad.doubtful()) == ([1], [])
    disk.recover()
    with pytest.raises(ChunkCorruptError), store.open(ChunkHandle(1)):
        pass
    store.verify(ChunkHandle(1))  # as masters order before they enter a replica
    assert_holds(store, {1: data})


def test_a_disk_that_fails_as_a_whole_is_sick_and_nothing_on_it_is_condemned(
    open_store: OpenStore, tmp_path: Path, disk: FailingDisk
) -> None:
    clock = StoppedClock()
    store = open_store(tmp_path, clock=clock)
    kept = {handle: put(store, handle, LARGE if handle % 9 == 0 else 5_000) for handle in range(1, 101)}
    disk.fail("preadv", errno.EIO)
    for _ in range(3):
        for handle in kept:
            with pytest.raises(ReplicaUnreadableError):
                store.verify(ChunkHandle(handle))
            assert store.bad.is_sick == (len(store.bad.doubtful()) >= SICK_AT)
        clock.at_s += PERSISTS_S
    assert len(store.bad.doubtful()) == UNREADABLE_MAX
    look_again(store, threading.Event())
    assert store.bad.is_sick
    disk.recover()
    look_again(store, threading.Event())
    assert not store.bad.is_sick
    assert (store.bad.reports(10), store.bad.doubtful()) == ([], [])
    assert_holds(store, kept)


def test_a_sector_that_stays_bad_when_the_disk_is_well_again_gets_its_time(
    open_store: OpenStore, tmp_path: Path, disk: FailingDisk
) -> None:
    clock = StoppedClock()
    store = open_store(tmp_path, clock=clock)
    for handle in range(1, SICK_AT + 1):
        put(store, handle, 100)
        store.bad.note_unreadable(ChunkHandle(handle))
    assert store.bad.is_sick
    clock.at_s += 10 * PERSISTS_S
    for handle in range(2, SICK_AT + 1):
        store.verify(ChunkHandle(handle))
    assert not store.bad.is_sick
    store.bad.note_unreadable(ChunkHandle(1))
    assert store.bad.reports(10) == []
    clock.at_s += PERSISTS_S
    store.bad.note_unreadable(ChunkHandle(1))
    assert store.bad.reports(10) == [1]


def test_a_failing_disk_costs_no_record_at_a_start_or_in_compaction(
    open_store: OpenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index is rebuilt from a segment with a bad sector in its middle; later the sector reads well again."""
    store = open_store(tmp_path / "a")
    kept = {handle: put(store, handle, 400_000) for handle in range(1, 11)}
    for handle in (1, 2, 3, 4, 5, 9):
        store.delete(ChunkHandle(handle))
        del kept[handle]
    bad_path, bad_at = path_of(store, 7)
    snapshot(tmp_path / "a", tmp_path / "b")
    bad_path = tmp_path / "b" / "segments" / bad_path.name
    real_preadv = os.preadv

    def preadv(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path == bad_path and offset <= bad_at - 10 < offset + len(buffers[0]):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real_preadv(descriptor, buffers, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", preadv)
        limping = open_store(tmp_path / "b")
        assert set(limping.handles()) < set(kept)
        assert 10 in set(limping.handles())
        limping.delete(ChunkHandle(10))
        del kept[10]
        limping.tidy(threading.Event())
        assert bad_path.exists()
        limping.close()
    assert_holds(open_store(tmp_path / "b"), kept)


def test_no_descriptor_left_is_trouble_and_not_corruption(store: ChunkStore, disk: FailingDisk) -> None:
    put(store, 1, 100)
    disk.fail("open", errno.EMFILE)
    with pytest.raises(UnavailableError), store.open(ChunkHandle(1)):
        pass
    disk.recover()
    assert store.bad.reports(10) == []
    store.verify(ChunkHandle(1))


def test_an_index_that_lmdb_has_given_up_ends_the_process_and_is_rebuilt(
    open_store: OpenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails while LMDB writes its meta page; only opening it anew helps."""
    store = open_store(tmp_path)
    data = put(store, 1, 100)
    signals: list[tuple[int, int]] = []

    class GivenUp:
        def begin(self, **_: object) -> None:
            raise lmdb.PanicError("mdb_txn_begin")

    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", lambda *sent: signals.append(sent))
        patch.setattr(store._index, "_env", GivenUp())
        for _ in range(2):
            with pytest.raises(UnavailableError):
                store.has(ChunkHandle(1))
    assert signals == [(os.getpid(), signal.SIGTERM)]
    store.close()
    again = open_store(tmp_path)
    assert not again._index._marker.exists()
    assert_holds(again, {1: data})


@pytest.mark.parametrize("how", ["emptied", "replaced", "gone"])
@pytest.mark.parametrize("size", [4096, LARGE])
def test_nothing_is_acknowledged_when_the_directory_is_no_longer_there(store: ChunkStore, how: str, size: int) -> None:
    """Segments are open: what is appended to them would be told durable and be gone with the process."""
    put(store, 1, 4096)
    directory = Path(store.room._directory)
    aside = directory.with_name("aside")
    directory.rename(aside)
    if how != "gone":
        directory.mkdir()
    if how == "replaced":
        (directory / "lock").touch()
    with pytest.raises(UnavailableError):
        put(store, 2, size)
    with pytest.raises(UnavailableError):
        store.room.offered_bytes()  # so no heartbeat says that all is well
    for each in directory.glob("*"):
        each.unlink()
    if how != "gone":
        directory.rmdir()
    aside.rename(directory)
    put(store, 2, size)
