"""Replicas on disk: what goes in comes out, nothing corrupt is believed, trouble with the disk is told."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from helenite.chunkserver.layout import record_bytes
from helenite.chunkserver.store import ChunkStore
from helenite.core.checksum import block_checksums, digest
from helenite.core.errors import (
    ChunkCorruptError,
    ChunkExistsError,
    ChunkNotFoundError,
    ConfigurationError,
    ForeignClusterError,
    InsufficientStorageError,
    UnavailableError,
)
from helenite.core.model import SEGMENT_CHUNK_BYTES_MAX, ChunkHandle, ServerId
from tests.support.chunkstores import LARGE, assert_holds, path_of, put, read, snapshot

OpenStore = Callable[..., ChunkStore]
BOTH = pytest.mark.parametrize("size", [4096, LARGE])


@pytest.mark.parametrize("size", [1, 4096, 65536, 65537, SEGMENT_CHUNK_BYTES_MAX, LARGE])
def test_what_goes_in_comes_out_also_after_a_restart(open_store: OpenStore, tmp_path: Path, size: int) -> None:
    store = open_store(tmp_path)
    data = put(store, 7, size)
    assert_holds(store, {7: data})
    store.close()
    again = open_store(tmp_path)
    assert_holds(again, {7: data})
    assert again.used_bytes() == record_bytes(size)


@BOTH
def test_chunks_are_written_once(store: ChunkStore, size: int) -> None:
    put(store, 1, size)
    with pytest.raises(ChunkExistsError):
        store.begin(ChunkHandle(1), size)


def test_small_chunks_go_in_together(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store(tmp_path)
    held = put(store, 3, 100)
    sink = store.begin(ChunkHandle(4), 50)
    data = {number: bytes([number]) * size for number, size in ((1, 1), (2, 70_000), (3, 100), (4, 50), (5, 5))}
    syncs = store.segments.sync_count
    digests = store.put_small([(ChunkHandle(number), content) for number, content in data.items()])
    assert store.segments.sync_count == syncs + 1
    assert digests == [digest(block_checksums(data[n])) if n in {1, 2, 5} else b"" for n in data]
    sink.abort()
    expected = {1: data[1], 2: data[2], 3: held, 5: data[5]}
    assert_holds(store, expected)
    store.close()
    again = open_store(tmp_path)
    assert_holds(again, expected)
    assert again.used_bytes() == sum(record_bytes(len(content)) for content in expected.values())
    assert again.put_small([(ChunkHandle(4), data[4])]) == [digest(block_checksums(data[4]))]


def test_a_bad_replica_is_replaced_together_with_others(store: ChunkStore) -> None:
    data = put(store, 1, 4096)
    store.bad.note_corrupt(ChunkHandle(1))
    assert not store.has(ChunkHandle(1))
    assert all(store.put_small([(ChunkHandle(2), b"other"), (ChunkHandle(1), data)]))
    assert_holds(store, {1: data, 2: b"other"})
    assert store.used_bytes() == record_bytes(4096) + record_bytes(5)


def test_small_chunks_that_do_not_fit_are_refused_together(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store(tmp_path, capacity_bytes=10_000)
    chunks = [(ChunkHandle(number), bytes(4_000)) for number in (1, 2, 3)]
    with pytest.raises(InsufficientStorageError):
        store.put_small(chunks)
    assert store.chunk_count() == 0
    assert all(store.put_small(chunks[:2]))


@BOTH
def test_a_chunk_that_is_being_written_is_not_written_twice(store: ChunkStore, size: int) -> None:
    first = store.begin(ChunkHandle(1), size)
    with pytest.raises(UnavailableError, match="being written"):
        store.begin(ChunkHandle(1), size)
    first.abort()
    put(store, 1, size)
    first.abort()


@BOTH
def test_an_aborted_chunk_leaves_nothing(store: ChunkStore, size: int) -> None:
    sink = store.begin(ChunkHandle(1), size)
    sink.write(memoryview(bytes(size // 2)))
    sink.abort()
    assert store.chunk_count() == 0
    with pytest.raises(ChunkNotFoundError), store.open(ChunkHandle(1)):
        pass
    assert not any(store.files.unfinished.iterdir())


@BOTH
def test_deleting(store: ChunkStore, size: int) -> None:
    put(store, 1, size)
    with store.open(ChunkHandle(1)) as replica:
        assert store.delete(ChunkHandle(1))
        assert len(os.pread(replica.descriptor, size, replica.offset)) == size, "whoever has it open keeps it"
    assert not store.delete(ChunkHandle(1))
    assert (store.chunk_count(), store.used_bytes()) == (0, 0)


def test_handles_are_listed_in_pages(store: ChunkStore) -> None:
    for handle in (5, 2, 2**63, 9):
        put(store, handle, LARGE if handle in {2, 9} else 10)
    assert store.handles_after(0, 3) == [2, 5, 9]
    assert store.handles_after(9, 3) == [2**63]
    assert list(store.handles()) == [2, 5, 9, 2**63]


def flip_bit(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 4]))


@pytest.mark.parametrize("size", [100_000, LARGE])
@pytest.mark.parametrize("where", [-10, 0, 0.3, 0.999999, 1.0])
def test_a_flipped_bit_is_found_refused_reported_and_replaced(store: ChunkStore, size: int, where: float) -> None:
    """In the header, the data, the checksums. The bytes stay until a good copy comes."""
    data = put(store, 1, size)
    path, offset = path_of(store, 1)
    flip_bit(path, offset + (where if isinstance(where, int) else int(where * size)))
    with pytest.raises(ChunkCorruptError):
        store.verify(ChunkHandle(1))
    assert store.bad.reports(10) == [1]
    with pytest.raises(ChunkCorruptError), store.open(ChunkHandle(1)):
        pass
    store.bad.heard([ChunkHandle(1)])
    assert store.bad.reports(10) == []
    assert store.chunk_count() == 0
    assert not store.has(ChunkHandle(1))
    assert path.stat().st_size >= record_bytes(size)
    assert put(store, 1, size) == data
    assert_holds(store, {1: data})
    assert store.used_bytes() == record_bytes(size)


@BOTH
def test_a_replica_that_proves_good_after_all_counts_again(store: ChunkStore, size: int) -> None:
    """A controller gone mad, a bad cable: what was read wrong is right on the disk."""
    data = put(store, 1, size)
    path, offset = path_of(store, 1)
    flip_bit(path, offset)
    with pytest.raises(ChunkCorruptError):
        store.verify(ChunkHandle(1))
    flip_bit(path, offset)
    store.verify(ChunkHandle(1))
    assert_holds(store, {1: data})
    assert store.bad.reports(10) == []


@BOTH
def test_what_replaces_a_bad_replica_is_what_a_rebuilt_index_finds(
    open_store: OpenStore, tmp_path: Path, size: int
) -> None:
    store = open_store(tmp_path / "a")
    put(store, 1, size)
    flip_bit(*path_of(store, 1))
    with pytest.raises(ChunkCorruptError):
        store.verify(ChunkHandle(1))
    data = put(store, 1, size)
    snapshot(tmp_path / "a", tmp_path / "b")
    assert_holds(open_store(tmp_path / "b"), {1: data})


@BOTH
def test_a_bad_replica_goes_when_a_master_orders_it(store: ChunkStore, size: int) -> None:
    put(store, 1, size)
    store.bad.note_corrupt(ChunkHandle(1))
    assert store.delete(ChunkHandle(1))
    assert (store.chunk_count(), store.used_bytes(), store.bad.reports(10)) == (0, 0, [])


@pytest.mark.parametrize("damage", ["truncate", "empty", "delete"])
def test_a_damaged_file_is_corrupt(open_store: OpenStore, tmp_path: Path, damage: str) -> None:
    store = open_store(tmp_path)
    put(store, 1, LARGE)
    path, _ = path_of(store, 1)
    if damage == "delete":
        path.unlink()
    else:
        os.truncate(path, 0 if damage == "empty" else LARGE // 2)
    if damage != "delete":
        store.close()
        store = open_store(tmp_path)  # its size is all that a start looks at
    with pytest.raises(ChunkCorruptError), store.open(ChunkHandle(1)):
        pass
    assert store.bad.reports(10) == [1]


def test_a_segment_that_is_gone_is_corruption(store: ChunkStore) -> None:
    put(store, 1, 10)
    path_of(store, 1)[0].unlink()
    with pytest.raises(ChunkCorruptError):
        store.verify(ChunkHandle(1))
    assert store.bad.reports(10) == [1]


def test_stray_and_unfinished_files_do_no_harm(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store(tmp_path)
    data = put(store, 1, LARGE)
    store.close()
    (tmp_path / "chunks" / "00" / "README").touch()
    (tmp_path / "chunks" / "unfinished" / "0000000000000001").write_bytes(bytes(10))
    again = open_store(tmp_path)
    assert_holds(again, {1: data})
    assert not any(again.files.unfinished.iterdir())


def test_waiting_appends_share_their_syncs(store: ChunkStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one sync is on its way all others write, and wait for the next one."""
    threads = 16
    written = threading.Semaphore(0)
    write, sync, is_first = os.pwritev, os.fdatasync, threading.Lock()

    def write_and_tell(*arguments: Any) -> int:
        count = write(*arguments)
        written.release()
        return count

    def sync_when_all_have_written(descriptor: int) -> None:
        if is_first.acquire(blocking=False):
            assert all(written.acquire(timeout=30) for _ in range(threads))
        sync(descriptor)

    monkeypatch.setattr("os.pwritev", write_and_tell)
    monkeypatch.setattr("os.fdatasync", sync_when_all_have_written)
    before = store.segments.sync_count
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda handle: put(store, handle, 4096), range(1, 1 + threads)))
    assert store.chunk_count() == threads
    assert store.segments.sync_count - before <= 2


def test_relaxed_mode_does_not_sync(open_store: OpenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int) -> None:
        raise AssertionError("synced")

    store = open_store(tmp_path, is_durable=False)
    monkeypatch.setattr(os, "fdatasync", refuse)
    monkeypatch.setattr(os, "fsync", refuse)
    put(store, 1, 4096)
    put(store, 2, LARGE)


def test_the_reserve_and_the_capacity_stay_free(open_store: OpenStore, tmp_path: Path) -> None:
    full = open_store(tmp_path / "a", reserve_bytes=1 << 60)
    with pytest.raises(InsufficientStorageError, match="reserve"):
        full.begin(ChunkHandle(1), 10)
    small = open_store(tmp_path / "b", capacity_bytes=10_000)
    first = small.begin(ChunkHandle(1), 6_000)
    with pytest.raises(InsufficientStorageError):
        small.begin(ChunkHandle(2), 6_000)  # chunks that are on their way count
    first.abort()
    put(small, 1, 6_000)
    with pytest.raises(InsufficientStorageError):
        small.begin(ChunkHandle(2), 6_000)
    small.delete(ChunkHandle(1))
    put(small, 2, 6_000)


def test_a_directory_has_one_owner_and_one_cluster(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with pytest.raises(ForeignClusterError, match="another chunkserver"):
        open_store(tmp_path)
    store.adopt("aa" * 16, ServerId(3))
    store.adopt("aa" * 16, ServerId(3))
    uuid = store.identity.uuid
    with pytest.raises(ForeignClusterError):
        store.adopt("bb" * 16, ServerId(3))
    with pytest.raises(ForeignClusterError):
        store.adopt("aa" * 16, ServerId(4))
    store.close()
    again = open_store(tmp_path)
    assert (again.identity.uuid, again.identity.server_id) == (uuid, 3)


def test_a_directory_that_cannot_be_used_is_a_wrong_setting(open_store: OpenStore, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError):
        open_store(tmp_path / "file")
    open_store(tmp_path / "a").close()
    (tmp_path / "a" / "identity.json").write_text("{")
    with pytest.raises(ConfigurationError, match="damaged"):
        open_store(tmp_path / "a")


class StoreMachine(RuleBasedStateMachine):
    """Random puts, deletes, clean and unclean reopenings and compactions against a dict."""

    @initialize()
    def start(self) -> None:
        self.directory = Path(os.environ.get("TMPDIR", "/tmp")) / f"helenite-store-{os.getpid()}-{id(self)}"
        self.generation = 0
        self.model: dict[int, bytes] = {}
        self.open()

    def open(self) -> None:
        self.store = ChunkStore(self.directory / str(self.generation), is_durable=False, segment_bytes=5_000)

    @rule(handle=st.integers(1, 30), size=st.sampled_from([1, 500, 2_000, LARGE]))
    def put(self, handle: int, size: int) -> None:
        if handle in self.model:
            with pytest.raises(ChunkExistsError):
                self.store.begin(ChunkHandle(handle), size)
        else:
            self.model[handle] = put(self.store, handle, size)

    @rule(handle=st.integers(1, 30))
    def delete(self, handle: int) -> None:
        assert self.store.delete(ChunkHandle(handle)) == (self.model.pop(handle, None) is not None)

    @rule()
    def tidy(self) -> None:
        self.store.tidy(threading.Event())

    @rule(is_clean=st.booleans())
    def reopen(self, is_clean: bool) -> None:
        old = self.directory / str(self.generation)
        self.generation += 1
        if is_clean:
            self.store.close()
        snapshot(old, self.directory / str(self.generation))
        self.store.close()
        shutil.rmtree(old)
        self.open()

    @invariant()
    def is_as_the_model_says(self) -> None:
        assert self.store.handles_after(0, 100) == sorted(self.model)
        assert self.store.used_bytes() == sum(record_bytes(len(data)) for data in self.model.values())
        for handle, data in self.model.items():
            assert read(self.store, handle) == data

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.directory)


StoreMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
test_store_machine = StoreMachine.TestCase


def test_a_full_server_gives_back_what_was_deleted_from_the_open_segment(
    tmp_path: Path, open_store: Callable[..., ChunkStore]
) -> None:
    """Nearly full, all in the one segment that is still appended to: compaction must get at it."""
    store = open_store(tmp_path, capacity_bytes=12_000_000)
    kept = {handle: put(store, handle, 100_000) for handle in range(1, 101)}
    for handle in range(1, 98):
        store.delete(ChunkHandle(handle))
        del kept[handle]
    while store.tidy(threading.Event()):
        pass
    on_disk = sum(path.stat().st_size for path in (tmp_path / "segments").glob("*.seg"))
    assert on_disk < 1_000_000
    assert_holds(store, kept)
    kept[200] = put(store, 200, 100_000)
    store.close()
    assert_holds(open_store(tmp_path, capacity_bytes=12_000_000), kept)
