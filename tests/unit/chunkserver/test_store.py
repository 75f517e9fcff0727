"""Replicas on disk: nothing acknowledged is lost, nothing corrupt is believed, space comes back."""

from __future__ import annotations

import errno
import os
import random
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from helenite.chunkserver import segments as segments_module
from helenite.chunkserver.layout import Header, RecordKind, encode_header, parse_header, record_bytes
from helenite.chunkserver.segments import scan
from helenite.chunkserver.store import ChunkStore, receive
from helenite.core.checksum import block_checksums, digest
from helenite.core.errors import (
    ChunkCorruptError,
    ChunkExistsError,
    ChunkNotFoundError,
    ForeignClusterError,
    HeleniteError,
    InsufficientStorageError,
    UnavailableError,
)
from helenite.core.model import SEGMENT_CHUNK_BYTES_MAX, ChunkHandle, ServerId

LARGE = SEGMENT_CHUNK_BYTES_MAX + 12_345


opened: list[ChunkStore] = []


def open_store(directory: Path, **options: Any) -> ChunkStore:
    """A store that is closed when the test ends, if it has not been before."""
    opened.append(ChunkStore(directory, **options))
    return opened[-1]


@pytest.fixture(autouse=True)
def close_stores() -> Iterator[None]:
    yield
    while opened:
        opened.pop().close()


def content(handle: int, size: int) -> bytes:
    return random.Random(handle).randbytes(size)


def put(store: ChunkStore, handle: int, size: int) -> bytes:
    data = content(handle, size)
    assert receive(store.begin(ChunkHandle(handle), size), data) == digest(block_checksums(data))
    return data


def read(store: ChunkStore, handle: int) -> bytes:
    with store.open(ChunkHandle(handle)) as replica:
        return os.pread(replica.descriptor, replica.length, replica.offset)


@pytest.fixture
def store(tmp_path: Path) -> ChunkStore:
    return open_store(tmp_path / "data")


@given(st.sampled_from(RecordKind), st.integers(0, 2**64 - 1), st.integers(0, 2**26))
def test_headers_survive(kind: RecordKind, handle: int, length: int) -> None:
    header = Header(kind, ChunkHandle(handle), length)
    assert parse_header(encode_header(header)) == header


@given(st.binary(min_size=40, max_size=40))
def test_no_other_bytes_are_a_header(packed: bytes) -> None:
    with pytest.raises(ChunkCorruptError):
        parse_header(packed)


@pytest.mark.parametrize("size", [1, 4096, 65536, 65537, SEGMENT_CHUNK_BYTES_MAX, LARGE])
def test_what_goes_in_comes_out_also_after_a_restart(tmp_path: Path, size: int) -> None:
    store = open_store(tmp_path)
    data = put(store, 7, size)
    assert read(store, 7) == data
    start, checksums, blocks = store.read(ChunkHandle(7), size - 1, 1)
    assert bytes(blocks) == data[start : start + len(blocks)]
    assert block_checksums(blocks) == checksums
    store.close()
    again = open_store(tmp_path)
    assert read(again, 7) == data
    assert (again.chunk_count(), again.used_bytes()) == (1, record_bytes(size))
    assert again.verify(ChunkHandle(7)) == (size, digest(block_checksums(data)))
    again.close()


@pytest.mark.parametrize("size", [4096, LARGE])
def test_chunks_are_written_once(store: ChunkStore, size: int) -> None:
    put(store, 1, size)
    with pytest.raises(ChunkExistsError):
        store.begin(ChunkHandle(1), size)


@pytest.mark.parametrize("size", [4096, LARGE])
def test_an_aborted_chunk_leaves_nothing(store: ChunkStore, size: int) -> None:
    sink = store.begin(ChunkHandle(1), size)
    sink.write(memoryview(bytes(size // 2)))
    sink.abort()
    assert store.chunk_count() == 0
    with pytest.raises(ChunkNotFoundError), store.open(ChunkHandle(1)):
        pass
    assert not any((store._directory / "chunks" / "unfinished").iterdir())


@pytest.mark.parametrize("size", [100_000, LARGE])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.999999])
def test_a_flipped_bit_is_found_set_aside_and_reported(store: ChunkStore, size: int, where: float) -> None:
    put(store, 1, size)
    with store.open(ChunkHandle(1)) as replica:
        path = Path(f"/proc/self/fd/{replica.descriptor}").readlink()
        at = replica.offset + int(where * size)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 4]))
    with pytest.raises(ChunkCorruptError):
        store.verify(ChunkHandle(1))
    assert store.corrupt() == [1]
    with pytest.raises(ChunkNotFoundError), store.open(ChunkHandle(1)):
        pass
    store.forget_corrupt([ChunkHandle(1)])
    assert store.corrupt() == []
    put(store, 1, size)  # repair can put it back
    store.verify(ChunkHandle(1))


@pytest.mark.parametrize("damage", ["truncate", "delete"])
def test_a_damaged_file_is_corrupt(store: ChunkStore, damage: str) -> None:
    put(store, 1, LARGE)
    path = store.files.path(ChunkHandle(1))
    if damage == "delete":
        path.unlink()
    else:
        os.truncate(path, LARGE // 2)
    with pytest.raises(ChunkCorruptError):
        store.verify(ChunkHandle(1))
    assert store.corrupt() == [1]


def test_waiting_appends_share_their_syncs(store: ChunkStore) -> None:
    before = store.segments.sync_count
    threads, each = 16, 20
    barrier = threading.Barrier(threads)

    def write(number: int) -> None:
        barrier.wait()
        for i in range(each):
            put(store, 1 + number * each + i, 4096)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(write, range(threads)))
    syncs = store.segments.sync_count - before
    assert store.chunk_count() == threads * each
    assert syncs < threads * each / 2, f"{syncs} syncs for {threads * each} chunks"


def test_relaxed_mode_does_not_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int) -> None:
        raise AssertionError("synced")

    store = open_store(tmp_path, is_durable=False)
    monkeypatch.setattr(os, "fdatasync", refuse)
    put(store, 1, 4096)
    put(store, 2, LARGE)


def kill(directory: Path, into: Path) -> ChunkStore:
    """What the next process finds when this one is killed now: the files as they are, nothing closed."""
    shutil.copytree(directory, into)
    return open_store(into)


def test_after_a_kill_the_index_is_rebuilt_from_the_segments(tmp_path: Path) -> None:
    store = open_store(tmp_path / "a")
    kept = {handle: put(store, handle, 1000 + handle) for handle in range(1, 200)}
    for handle in range(1, 200, 3):
        store.delete(ChunkHandle(handle))
        del kept[handle]
    again = kill(tmp_path / "a", tmp_path / "b")
    assert again.handles_after(ChunkHandle(0), 1000) == sorted(kept)
    assert all(read(again, handle) == data for handle, data in kept.items())
    assert again.used_bytes() == store.used_bytes()


@given(st.integers(0, 3 * record_bytes(1000)), st.binary(max_size=200))
@settings(max_examples=40, deadline=None)
def test_a_torn_tail_loses_only_what_was_torn(tmp_path_factory: pytest.TempPathFactory, cut: int, noise: bytes) -> None:
    directory = tmp_path_factory.mktemp("torn")
    store = open_store(directory / "a")
    data = {handle: put(store, handle, 1000) for handle in (1, 2, 3)}
    segment = next((directory / "a" / "segments").glob("*.seg"))
    os.truncate(segment, cut)
    with segment.open("ab") as file:
        file.write(noise)
    again = kill(directory / "a", directory / "b")
    whole = [1, 2, 3][: cut // record_bytes(1000)]
    found = again.handles_after(ChunkHandle(0), 10)
    assert found[: len(whole)] == whole
    for torn in found[len(whole) :]:  # noise made up for the bytes that were cut: found out when it is read
        with pytest.raises(ChunkCorruptError):
            again.verify(torn)
    put(again, 9, 1000)  # goes to a segment of its own
    for handle in whole:
        assert read(again, handle) == data[handle]
    store.close()
    again.close()


def fill_and_kill_most(store: ChunkStore) -> dict[int, bytes]:
    """Three segments, most of it dead."""
    kept = {handle: put(store, handle, 1000) for handle in range(1, 100)}
    for handle in list(kept):
        if handle % 10:
            store.delete(ChunkHandle(handle))
            del kept[handle]
    return kept


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        segments_module.Segments.__init__, "__kwdefaults__", {"is_durable": True, "segment_bytes": 30_000}
    )


@pytest.mark.usefixtures("small_segments")
def test_compaction_gives_space_back_and_loses_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path / "a")
    kept = fill_and_kill_most(store)
    with store.open(ChunkHandle(10)) as reader_from_before:
        size = sum(path.stat().st_size for path in (tmp_path / "a" / "segments").iterdir())
        while store.segments.compact():
            pass
        assert os.pread(reader_from_before.descriptor, 1000, reader_from_before.offset) == kept[10]
    assert sum(path.stat().st_size for path in (tmp_path / "a" / "segments").iterdir()) < size / 2
    again = kill(tmp_path / "a", tmp_path / "b")
    for found in (store, again):
        assert found.handles_after(ChunkHandle(0), 1000) == sorted(kept)
        assert all(read(found, handle) == data for handle, data in kept.items())
        assert found.chunk_count() == len(kept)


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("step", ["_append", "_sync_all", "unlink"])
def test_compaction_killed_at_any_step_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    store = open_store(tmp_path / "a")
    kept = fill_and_kill_most(store)
    owner = Path if step == "unlink" else segments_module.Segments
    copies: list[ChunkStore] = []
    original = getattr(owner, step)

    def kill_before(self: object, *arguments: object, **options: object) -> object:
        monkeypatch.setattr(owner, step, original)
        copies.append(kill(tmp_path / "a", tmp_path / "b"))
        return original(self, *arguments, **options)

    monkeypatch.setattr(owner, step, kill_before)
    assert store.segments.compact()
    (again,) = copies
    assert again.handles_after(ChunkHandle(0), 1000) == sorted(kept)
    assert all(read(again, handle) == data for handle, data in kept.items())


@pytest.mark.parametrize("size", [4096, LARGE])
@pytest.mark.parametrize(
    ("number", "expected"), [(errno.ENOSPC, InsufficientStorageError), (errno.EIO, UnavailableError)]
)
def test_a_failing_sync_is_never_acknowledged(
    store: ChunkStore, monkeypatch: pytest.MonkeyPatch, size: int, number: int, expected: type[HeleniteError]
) -> None:
    put(store, 1, 4096)
    real = os.fdatasync

    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(expected):
        put(store, 2, size)
    with pytest.raises(ChunkNotFoundError), store.open(ChunkHandle(2)):
        pass
    monkeypatch.setattr(os, "fdatasync", real)
    put(store, 3, size)
    numbers = sorted(path.name for path in (store._directory / "segments").iterdir())
    assert len(numbers) == (2 if size == 4096 else 1), "a segment whose sync failed is not appended to again"
    assert store.verify(ChunkHandle(1))
    assert store.verify(ChunkHandle(3))


def test_the_reserve_and_the_capacity_stay_free(tmp_path: Path) -> None:
    full = open_store(tmp_path / "a", reserve_bytes=1 << 60)
    with pytest.raises(InsufficientStorageError, match="reserve"):
        full.begin(ChunkHandle(1), 10)
    small = open_store(tmp_path / "b", capacity_bytes=10_000)
    put(small, 1, 6_000)
    with pytest.raises(InsufficientStorageError):
        small.begin(ChunkHandle(2), 6_000)
    small.delete(ChunkHandle(1))
    put(small, 2, 6_000)


def test_a_directory_has_one_owner_and_one_cluster(tmp_path: Path) -> None:
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


class StoreMachine(RuleBasedStateMachine):
    """Random puts, deletes, reopenings and compactions against a dict."""

    @initialize()
    def start(self) -> None:
        self.directory = Path(os.environ.get("TMPDIR", "/tmp")) / f"helenite-store-{os.getpid()}-{id(self)}"
        self.generation = 0
        self.model: dict[int, bytes] = {}
        self.store = open_store(self.directory / "0", is_durable=False)
        self.store.segments._segment_bytes = 5_000

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
    def compact(self) -> None:
        self.store.segments.compact()

    @rule(is_clean=st.booleans())
    def reopen(self, *, is_clean: bool) -> None:
        self.generation += 1
        if is_clean:
            self.store.close()
        shutil.copytree(self.directory / str(self.generation - 1), self.directory / str(self.generation))
        if not is_clean:
            self.store.close()
        shutil.rmtree(self.directory / str(self.generation - 1))
        self.store = open_store(self.directory / str(self.generation), is_durable=False)
        self.store.segments._segment_bytes = 5_000

    @invariant()
    def is_as_the_model_says(self) -> None:
        assert self.store.handles_after(ChunkHandle(0), 100) == sorted(self.model)
        assert self.store.used_bytes() == sum(record_bytes(len(data)) for data in self.model.values())
        for handle, data in self.model.items():
            assert read(self.store, handle) == data

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.directory)


StoreMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
test_store_machine = StoreMachine.TestCase


def test_scan_stops_where_a_record_is_longer_than_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.seg"
    path.write_bytes(encode_header(Header(RecordKind.CHUNK, ChunkHandle(1), 5000)) + bytes(100))
    with path.open("rb") as file:
        assert scan(file.fileno(), path.stat().st_size) == []
