"""Holes of local files: where they are, that reading goes round them, and how they are named to the server."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncagent.holes import ContentReader, Layout, Run, find_layout, layout_of, may_be_sparse
from syncagent.partwise import choose_part, write_runs
from syncagent.signature import Fresh, Kept, Part, Zeros
from syncagent.uploads import leave_out_holes, write_head

MIB = 1 << 20


@pytest.fixture
def sparse(tmp_path: Path) -> Iterator[io.FileIO]:
    """A hole of 8 MiB, data of 1 MiB, a hole of 16 MiB, data, a hole too small to matter, data, and a hole."""
    data = random.Random(1).randbytes(MIB)
    with (tmp_path / "sparse").open("w+b", buffering=0) as file:
        for at in (8 * MIB, 25 * MIB, 26 * MIB + 32_768):
            file.seek(at)
            file.write(data)
        file.truncate(40 * MIB)
        file.seek(0)
        yield file


def test_holes_are_found(sparse: io.FileIO) -> None:
    layout = find_layout(sparse, 40 * MIB)
    end = 27 * MIB + 32_768
    assert list(layout.within(0, 40 * MIB)) == [
        Run(0, 8 * MIB, is_hole=True),
        Run(8 * MIB, MIB, is_hole=False),
        Run(9 * MIB, 16 * MIB, is_hole=True),
        Run(25 * MIB, end - 25 * MIB, is_hole=False),
        Run(end, 40 * MIB - end, is_hole=True),
    ]
    assert list(layout.within(8 * MIB + 5, MIB)) == [
        Run(8 * MIB + 5, MIB - 5, is_hole=False),
        Run(9 * MIB, 5, is_hole=True),
    ]
    assert list(layout.within(41 * MIB, MIB)) == []
    assert layout.hole_bytes == 37 * MIB - 32_768


def test_dense_files_have_none(tmp_path: Path) -> None:
    file = tmp_path / "dense"
    for content in (b"", b"x", bytes(5 * MIB)):  # zeros that were written are data
        file.write_bytes(content)
        assert not may_be_sparse(file.stat())
        with file.open("rb", buffering=0) as raw:
            assert [run.is_hole for run in layout_of(raw).within(0, len(content))] == [False] * (len(content) > 0)


def test_where_the_system_cannot_say_all_is_data(sparse: io.FileIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.SEEK_DATA")
    assert list(find_layout(sparse, 40 * MIB).within(0, 40 * MIB)) == [Run(0, 40 * MIB, is_hole=False)]


def test_what_is_read_is_the_content(sparse: io.FileIO) -> None:
    content = Path(sparse.name).read_bytes()
    reader = ContentReader(sparse)
    buffer = bytearray(3 * MIB + 1)
    found = bytearray()
    while count := reader.readinto(buffer):
        found += buffer[:count]
    assert found == content
    assert reader.readinto(buffer) == 0  # also after a hole at the end
    with Path(sparse.name).open("ab") as longer:
        longer.write(b"appended")
    assert reader.readinto(buffer) == 8
    for start in (5, 8 * MIB, 25 * MIB - 1, 27 * MIB, 40 * MIB):
        with Path(sparse.name).open("rb", buffering=0) as again:
            assert ContentReader(again, start).readall() == content[start:] + b"appended"
    with Path(sparse.name).open("rb", buffering=0) as again:
        digest = hashlib.file_digest(ContentReader(again), "sha256").digest()
    assert digest == hashlib.sha256(content + b"appended").digest()


def test_holes_are_not_asked_for(sparse: io.FileIO) -> None:
    reads: list[int] = []

    class Counting(io.FileIO):
        def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
            count = super().readinto(buffer)
            reads.append(count or 0)
            return count or 0

    with Counting(sparse.name) as file:
        hashlib.file_digest(ContentReader(file), "sha256")
    assert sum(reads) <= 3 * MIB + 32_768


layouts = st.lists(st.tuples(st.integers(1, 50), st.booleans()), min_size=1, max_size=12)


def layout(lengths: list[tuple[int, bool]]) -> tuple[Layout, int]:
    runs, at = [], 0
    for length, is_hole in lengths:
        runs.append(Run(at, length, is_hole))
        at += length
    return Layout(runs), at


@given(layouts, st.integers(1, 60), st.integers(1, 5))
def test_parts_are_all_of_a_file_in_order(lengths: list[tuple[int, bool]], data_max: int, runs_max: int) -> None:
    found, size = layout(lengths)
    at = 0
    while at < size:
        part = choose_part(found.within(at, size - at), data_max, runs_max)
        assert 0 < len(part) <= runs_max
        assert sum(run.length for run in part if not run.is_hole) <= data_max
        for run in part:
            assert (run.offset, run.length > 0) == (at, True)
            assert {each.is_hole for each in found.within(at, run.length)} == {run.is_hole}
            at = run.end
    assert at == size


@given(layouts, st.lists(st.tuples(st.integers(1, 40), st.none() | st.integers(0, 99)), max_size=12))
def test_a_splice_without_holes_means_the_same(
    lengths: list[tuple[int, bool]], wanted: list[tuple[int, int | None]]
) -> None:
    """Each byte of the new content is told by where it comes from: the file, the server, or nowhere."""
    found, size = layout(lengths)
    parts: list[Kept | Fresh] = []
    at = 0
    for length, kept in wanted:
        cut = min(length, size - at)
        if cut > 0:
            parts.append(Fresh(at, cut) if kept is None else Kept(kept, cut))
            at += cut
    is_hole = [run.is_hole for run in found.within(0, size) for _ in range(run.length)]
    before, after = _bytes_of(parts), _bytes_of(leave_out_holes(parts, found))
    assert len(after) == len(before)
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        assert new == old or (new is None and is_hole[index])
        assert new is None or new[0] == "keep" or not is_hole[index]


def _bytes_of(parts: list[Kept | Fresh] | list[Part]) -> list[tuple[str, int] | None]:
    found: list[tuple[str, int] | None] = []
    for part in parts:
        match part:
            case Kept(offset, length):
                found += [("keep", offset + i) for i in range(length)]
            case Fresh(offset, length):
                found += [("new", offset + i) for i in range(length)]
            case Zeros(length):
                found += [None] * length
    return found


def test_long_ranges_that_the_server_has_are_not_cut() -> None:
    """Else each edit of a sparse file would have its zeros made anew."""
    found, _ = layout([(10, False), (100, True), (10, False)])
    assert leave_out_holes([Kept(0, 120)], found) == [Kept(0, 120)]
    assert leave_out_holes([Kept(0, 10), Kept(50, 60), Fresh(70, 50)], found) == [
        Kept(0, 10),
        Zeros(100),
        Fresh(110, 10),
    ]


def test_how_parts_are_written() -> None:
    assert write_head([Kept(1, 2), Fresh(3, 4), Zeros(5)]) == b"keep 1 2\nnew 4\nzero 5\n\n"
    assert write_runs([Run(0, 5, is_hole=True), Run(5, 6, is_hole=False)]) == b"zero 5\nnew 6\n\n"
    assert write_runs([]) == b"\n"
