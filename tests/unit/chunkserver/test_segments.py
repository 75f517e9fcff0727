"""Segments: what was acknowledged survives every kill, torn tail and compaction; damage costs the damaged only."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helenite.chunkserver.appender import AHEAD_BYTES, SMALL_BYTES
from helenite.chunkserver.compaction import REWRITE_BELOW, SMALL_MAX, choose_victims
from helenite.chunkserver.index import Index
from helenite.chunkserver.layout import ChunkHeader, encode_header, record_bytes
from helenite.chunkserver.segment_file import scan
from helenite.chunkserver.segments import Fill
from helenite.chunkserver.store import ChunkStore
from helenite.core.errors import ChunkCorruptError, UnavailableError
from helenite.core.model import ChunkHandle
from tests.support.chunkstores import assert_holds, put, read, snapshot

OpenStore = Callable[..., ChunkStore]
GO_ON = threading.Event()
SMALL = 30_000
"""Size of a test's segments."""


def segment_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in (directory / "segments").glob("*.seg"))


def tidy_up(store: ChunkStore) -> None:
    while store.tidy(GO_ON):
        pass


def test_after_a_kill_the_index_is_rebuilt(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store(tmp_path / "a", segment_bytes=SMALL)
    kept = {handle: put(store, handle, 1000 + handle) for handle in range(1, 200)}
    for handle in range(1, 200, 3):
        store.delete(ChunkHandle(handle))
        del kept[handle]
    for handle in (1, 4, 7):  # deleted and put back: the tombstone is for the old record only
        kept[handle] = put(store, handle, 1000 + handle)
    snapshot(tmp_path / "a", tmp_path / "scanned")
    store.segments.list_closed()
    snapshot(tmp_path / "a", tmp_path / "listed")
    for found in (open_store(tmp_path / "scanned"), open_store(tmp_path / "listed")):
        assert_holds(found, kept)
        assert found.used_bytes() == store.used_bytes()


def test_zeros_written_ahead_are_nobodys_and_do_not_stay(
    open_store: OpenStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(tmp_path / "a")
    kept = {handle: put(store, handle, 1000 + handle) for handle in range(1, 20)}
    kept[20] = put(store, 20, SMALL_BYTES * 2)  # replaces zeros and goes beyond where they end
    kept |= {handle: put(store, handle, 50_000) for handle in range(21, 50)}
    written = sum(record_bytes(len(data)) for data in kept.values())
    assert written < segment_bytes(tmp_path / "a") <= written + AHEAD_BYTES
    snapshot(tmp_path / "a", tmp_path / "killed")
    store.close()
    assert segment_bytes(tmp_path / "a") == written

    again = open_store(tmp_path / "killed")
    assert_holds(again, kept)
    assert segment_bytes(tmp_path / "killed") == written
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_disk_too_full_for_zeros_still_takes_records(
    open_store: OpenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr("helenite.chunkserver.appender.os.pwrite", no_room)
    store = open_store(tmp_path / "a")
    assert_holds(store, {handle: put(store, handle, 1000) for handle in range(1, 20)})


def test_a_listing_is_believed_only_if_it_fits(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store(tmp_path / "a", segment_bytes=SMALL)
    kept = {handle: put(store, handle, 1000) for handle in range(1, 100)}
    store.segments.list_closed()
    snapshot(tmp_path / "a", tmp_path / "b")
    first, second, third = sorted((tmp_path / "b" / "segments").glob("*.list"))[:3]
    first.write_bytes(first.read_bytes()[:-20])
    second.write_bytes(b"")
    third.write_bytes(first.read_bytes())
    assert_holds(open_store(tmp_path / "b"), kept)


def test_an_index_that_cannot_be_read_is_rebuilt(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store(tmp_path)
    kept = {handle: put(store, handle, 1000) for handle in range(1, 50)}
    store.close()
    (tmp_path / "index" / "clean").write_text("nonsense")
    (tmp_path / "index" / "data.mdb").write_bytes(b"nonsense" * 1000)
    assert_holds(open_store(tmp_path), kept)


@given(st.integers(0, 3 * record_bytes(1000)), st.binary(max_size=200))
@settings(max_examples=40, deadline=None)
def test_a_torn_tail_loses_only_what_was_torn(tmp_path_factory: pytest.TempPathFactory, cut: int, noise: bytes) -> None:
    directory = tmp_path_factory.mktemp("torn")
    store = ChunkStore(directory / "a")
    data = {handle: put(store, handle, 1000) for handle in (1, 2, 3)}
    snapshot(directory / "a", directory / "b")
    store.close()
    segment = next((directory / "b" / "segments").glob("*.seg"))
    os.truncate(segment, cut)
    with segment.open("ab") as file:
        file.write(noise)
    again = ChunkStore(directory / "b")
    whole = [1, 2, 3][: cut // record_bytes(1000)]
    found = list(again.handles())
    assert found[: len(whole)] == whole
    for torn in found[len(whole) :]:  # noise made up for the bytes that were cut: found out when it is read
        with pytest.raises(ChunkCorruptError):
            again.verify(torn)
        again.delete(torn)
    data[9] = put(again, 9, 1000)  # goes to a segment of its own
    assert_holds(again, {handle: data[handle] for handle in [*whole, 9]})
    again.close()


def test_damage_in_a_segment_costs_the_damaged_record_only(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store(tmp_path / "a")
    impostor = encode_header(ChunkHeader(ChunkHandle(666), 10)) + bytes(100)
    kept = {handle: put(store, handle, 70_000) for handle in (1, 2)}
    sink = store.begin(ChunkHandle(3), len(impostor))
    sink.write(memoryview(impostor))
    sink.seal()
    kept |= {handle: put(store, handle, 1000) for handle in (4, 5)}
    snapshot(tmp_path / "a", tmp_path / "b")
    segment = next((tmp_path / "b" / "segments").glob("*.seg"))
    with segment.open("r+b") as file:
        for start in (record_bytes(70_000), 2 * record_bytes(70_000)):  # the headers of 2 and 3
            file.seek(start + 20)
            file.write(b"rot!")
    del kept[2]
    assert_holds(open_store(tmp_path / "b"), kept)


def test_scanning_stops_where_a_record_is_longer_than_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.seg"
    path.write_bytes(encode_header(ChunkHeader(ChunkHandle(1), 5000)) + bytes(100))
    with path.open("rb") as file:
        assert scan(file.fileno(), path.stat().st_size).records == []


# Compaction


def fill_and_kill_most(store: ChunkStore) -> dict[int, bytes]:
    """Some segments, most of it dead."""
    kept = {handle: put(store, handle, 1000) for handle in range(1, 100)}
    for handle in list(kept):
        if handle % 10:
            store.delete(ChunkHandle(handle))
            del kept[handle]
    return kept


def test_compaction_gives_space_back_and_loses_nothing(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store(tmp_path / "a", segment_bytes=SMALL)
    kept = fill_and_kill_most(store)
    with store.open(ChunkHandle(10)) as opened_before:
        size = segment_bytes(tmp_path / "a")
        tidy_up(store)
        assert os.pread(opened_before.descriptor, 1000, opened_before.offset) == kept[10]
    assert segment_bytes(tmp_path / "a") < size / 2
    snapshot(tmp_path / "a", tmp_path / "b")
    for found in (store, open_store(tmp_path / "b")):
        assert_holds(found, kept)


def test_compaction_killed_at_any_step_loses_nothing(
    open_store: OpenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files are copied before each step that changes something; from every copy a start finds all that lived."""
    store = open_store(tmp_path / "a", segment_bytes=SMALL)
    kept = fill_and_kill_most(store)
    copies: list[Path] = []

    def kill_before(owner: Any, step: str) -> None:
        original = getattr(owner, step)

        def interrupted(*arguments: Any, **options: Any) -> Any:
            copies.append(tmp_path / f"copy-{len(copies)}")
            snapshot(tmp_path / "a", copies[-1])
            return original(*arguments, **options)

        monkeypatch.setattr(owner, step, interrupted)

    for owner, step in ((os, "pwritev"), (os, "fdatasync"), (os, "fsync"), (Path, "unlink"), (Index, "move")):
        kill_before(owner, step)
    tidy_up(store)
    monkeypatch.undo()
    assert len(copies) > 20
    for copy in copies:
        again = open_store(copy, segment_bytes=SMALL)
        assert_holds(again, kept)
        tidy_up(again)
        assert_holds(again, kept)
        again.close()


def test_compaction_can_be_stopped(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store(tmp_path, segment_bytes=SMALL)
    kept = fill_and_kill_most(store)
    stop = threading.Event()
    stop.set()
    with pytest.raises(UnavailableError):
        store.tidy(stop)
    store.close()
    again = open_store(tmp_path, segment_bytes=SMALL)
    tidy_up(again)
    assert_holds(again, kept)


def test_writers_and_deleters_go_on_during_compaction(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store(tmp_path / "a", segment_bytes=SMALL, is_durable=False)

    def churn(first: int) -> dict[int, bytes]:
        kept = {}
        for handle in range(first, first + 300):
            kept[handle] = put(store, handle, 500)
            if handle % 5:
                store.delete(ChunkHandle(handle))
                del kept[handle]
            assert all(read(store, known) == data for known, data in list(kept.items())[-3:])
        return kept

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(churn, 1000 * (1 + number)) for number in range(4)]
        while not all(future.done() for future in running):
            store.tidy(GO_ON)
    expected = {handle: data for future in running for handle, data in future.result().items()}
    tidy_up(store)
    assert_holds(store, expected)
    assert segment_bytes(tmp_path / "a") < 3 * store.used_bytes() + 2 * SMALL
    snapshot(tmp_path / "a", tmp_path / "b")
    assert_holds(open_store(tmp_path / "b"), expected)


def test_numbers_of_segments_are_never_used_again(open_store: OpenStore, tmp_path: Path) -> None:
    """Else a tombstone would hit a record that took the place of the one that it is for."""
    kept: dict[int, bytes] = {}
    for generation in range(6):
        store = open_store(tmp_path, segment_bytes=2_000)
        for handle in range(10):
            kept[generation * 10 + handle] = put(store, generation * 10 + handle, 500)
            if handle % 3:
                store.delete(ChunkHandle(generation * 10 + handle))
                del kept[generation * 10 + handle]
        tidy_up(store)
        assert_holds(store, kept)
        store.close()
        (tmp_path / "index" / "clean").unlink()  # so that the next start rebuilds the index
    assert_holds(open_store(tmp_path), kept)


@pytest.mark.parametrize(
    ("fills", "expected"),
    [
        ({}, []),
        ({1: Fill(1000, 900), 2: Fill(1000, 600)}, []),
        ({1: Fill(1000, 900), 2: Fill(1000, 400), 3: Fill(1000, 0)}, [3, 2]),
        ({1: Fill(1000, 450), 2: Fill(1000, 400), 3: Fill(1000, 300)}, [3, 2]),
        ({1: Fill(0, 0)}, [1]),
        ({number: Fill(50, 50) for number in range(SMALL_MAX - 1)}, []),
        ({number: Fill(50, 50) for number in range(SMALL_MAX)}, list(range(SMALL_MAX))),
        ({1: Fill(50, 50), 2: Fill(1000, 100)}, [2, 1]),
        ({1: Fill(5000, 2000)}, [1]),
    ],
)
def test_which_segments_are_rewritten(fills: dict[int, Fill], expected: list[int]) -> None:
    assert choose_victims(fills, REWRITE_BELOW, 1000) == expected
