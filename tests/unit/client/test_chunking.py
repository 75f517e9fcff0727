from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helenite.client import chunking
from helenite.client.chunking import (
    EXTENTS_MAX,
    SHARED_BYTES_MIN,
    Fresh,
    Kept,
    Part,
    Piece,
    Planned,
    Repeated,
    Shared,
    Slicer,
    Zeros,
    find_run,
    plan_pieces,
    plan_splice,
    resolve_splice,
)
from helenite.core.errors import InvalidRequestError
from helenite.core.model import ChunkHandle, Extent

extent_lists = st.lists(
    st.builds(Extent, st.integers(1, 9).map(ChunkHandle), st.integers(0, 40), st.integers(1, 40)), max_size=8
).map(tuple)


def slice_extents(extents: tuple[Extent, ...], offset: int, length: int) -> tuple[Extent, ...]:
    return tuple(extent for _, extent in Slicer(extents).slices(offset, length))


def bytes_of(extents: tuple[Extent, ...]) -> list[tuple[int, int]]:
    return [(e.handle, e.offset + i) for e in extents for i in range(e.length)]


def size_of(extents: tuple[Extent, ...]) -> int:
    return sum(e.length for e in extents)


@given(extent_lists, st.data(), st.integers(1, 50))
def test_pieces_are_exactly_the_range(extents: tuple[Extent, ...], data: st.DataObject, piece: int) -> None:
    size = size_of(extents)
    offset = data.draw(st.integers(0, size))
    length = data.draw(st.integers(0, size - offset))
    pieces = list(plan_pieces(extents, offset, length, piece))
    got = [(extents[p.extent].handle, p.offset + i) for p in pieces for i in range(p.length)]
    assert got == bytes_of(extents)[offset : offset + length]
    assert all(0 < p.length <= piece for p in pieces)


def test_pieces_fall_on_block_borders() -> None:
    extents = (Extent(ChunkHandle(1), 0, 100),)
    assert list(plan_pieces(extents, 10, 90, 64)) == [Piece(0, 10, 54), Piece(0, 64, 36)]


@given(extent_lists, st.data())
def test_slice_is_the_range(extents: tuple[Extent, ...], data: st.DataObject) -> None:
    size = size_of(extents)
    offset, length = data.draw(st.integers(0, size)), data.draw(st.integers(0, size + 5))
    assert bytes_of(slice_extents(extents, offset, length)) == bytes_of(extents)[offset : offset + length]


parts_of_files = st.lists(
    st.one_of(
        st.builds(Kept, st.integers(0, 400 << 10), st.integers(1, 300 << 10)),
        st.builds(Fresh, st.integers(1, 90_000)),
        st.builds(Zeros, st.integers(1, 400_000)),
    ),
    max_size=30,
)


def _long_extents(lengths: list[int]) -> tuple[Extent, ...]:
    return tuple(Extent(ChunkHandle(i % 7), 1000 * i, length) for i, length in enumerate(lengths))


ZERO = ChunkHandle(98)
"""Every byte of it is the same."""


def _ranges(extents: Iterable[Extent]) -> list[Extent]:
    """With neighbours that are one range as one: equal for lists that mean the same bytes."""
    found: list[Extent] = []
    for extent in extents:
        if extent.handle == ZERO:
            start = found.pop().length if found and found[-1].handle == ZERO else 0
            found.append(Extent(ZERO, 0, start + extent.length))
            continue
        if found and found[-1].handle == extent.handle and found[-1].offset + found[-1].length == extent.offset:
            found[-1] = Extent(extent.handle, found[-1].offset, found[-1].length + extent.length)
        elif extent.length:
            found.append(extent)
    return found


def _meant(extents: tuple[Extent, ...], parts: Iterable[Planned]) -> list[Extent]:
    """The bytes of parts that are not shared, by where they come from: 99 is the body."""
    found: list[Extent] = []
    fresh_at = 0
    for part in parts:
        match part:
            case Fresh(length):
                found.append(Extent(ChunkHandle(99), fresh_at, length))
                fresh_at += length
            case Zeros(length):
                found.append(Extent(ZERO, 0, length))
            case Kept(offset, length):
                found += slice_extents(extents, offset, length)
    return found


@given(st.lists(st.integers(1, 300 << 10), min_size=1, max_size=9), parts_of_files, st.integers(10_000, 200_000))
def test_a_splice_has_every_byte_in_its_place(lengths: list[int], wanted: list[Part], chunk_bytes: int) -> None:
    extents = _long_extents(lengths)
    size = size_of(extents)
    parts = [
        Kept(part.offset % size, min(part.length, size - part.offset % size)) if isinstance(part, Kept) else part
        for part in wanted
    ]
    planned = plan_splice([extents], parts, chunk_bytes)
    # What is not shared is written as one stream; each of its bytes is known by where it comes from.
    run = find_run(planned)
    stream = [Extent(ZERO, 0, run)] * (run > 0) + _meant(extents, planned)
    written_bytes = size_of(tuple(stream))
    written = tuple(
        Extent(ChunkHandle(1000 + at // chunk_bytes), 0, min(chunk_bytes, written_bytes - at))
        for at in range(0, written_bytes, chunk_bytes)
    )
    found = resolve_splice(planned, written)
    told: list[Extent] = []
    for extent in found:
        if extent.handle < 1000:
            told.append(extent)
        else:
            at = (extent.handle - 1000) * chunk_bytes + extent.offset
            told += slice_extents(tuple(stream), at, extent.length)
    assert _ranges(told) == _ranges(_meant(extents, parts))
    assert all(part.length >= SHARED_BYTES_MIN for part in planned if isinstance(part, Shared | Repeated))


def test_short_ranges_are_copied_and_long_ones_shared() -> None:
    extents = (Extent(ChunkHandle(1), 0, 8 << 20), Extent(ChunkHandle(2), 0, 8 << 20))
    planned = plan_splice([extents], [Kept(0, 1000), Fresh(50), Kept(1000, 16 << 20)], 8 << 20)
    assert planned == (
        Kept(0, 1000),
        Fresh(50),
        Shared(1000, Extent(ChunkHandle(1), 1000, (8 << 20) - 1000)),
        Shared(8 << 20, Extent(ChunkHandle(2), 0, 8 << 20)),
    )


def test_of_many_zeros_few_are_stored() -> None:
    chunk_bytes, island = 8 << 20, 1 << 20
    parts = [Fresh(island), Zeros(5 << 30), Fresh(island), Zeros(100), Fresh(island), Zeros(5 << 30)]
    planned = plan_splice([()], parts, chunk_bytes)
    assert find_run(planned) == chunk_bytes
    assert sum(part.length for part in planned if not isinstance(part, Repeated)) == 3 * island + 100
    zeros, data = Extent(ChunkHandle(1), 0, chunk_bytes), Extent(ChunkHandle(2), 0, 3 * island + 100)
    found = resolve_splice(planned, (zeros, data))
    assert found == (
        Extent(ChunkHandle(2), 0, island),
        *[zeros] * 640,
        Extent(ChunkHandle(2), island, 2 * island + 100),
        *[zeros] * 640,
    )


def test_a_short_run_of_zeros_is_one_extent_of_what_is_written() -> None:
    planned = plan_splice([()], [Fresh(10), Zeros(200_000), Fresh(5), Zeros(100_000)], 8 << 20)
    run, data = Extent(ChunkHandle(1), 0, 200_000), Extent(ChunkHandle(1), 200_000, 15)
    assert resolve_splice(planned, (Extent(ChunkHandle(1), 0, 200_015),)) == (
        Extent(run.handle, data.offset, 10),
        run,
        Extent(run.handle, data.offset + 10, 5),
        Extent(run.handle, 0, 100_000),
    )


@pytest.mark.parametrize("parts", [[Zeros(10**15 - 1)], [Kept(0, 4 << 20)] * 4096 * 100])
def test_no_splice_makes_a_file_that_fills_a_memory(parts: list[Part], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunking, "GROWTH_EXTENTS_MAX", 100_000)
    extents = tuple(Extent(ChunkHandle(number), 0, 1 << 20) for number in range(4))
    with pytest.raises(InvalidRequestError):
        plan_splice([extents], parts, 8 << 20)


def test_ranges_of_two_files_are_told_apart() -> None:
    first, second = (Extent(ChunkHandle(1), 0, 1 << 20),), (Extent(ChunkHandle(2), 0, 1 << 20),)
    planned = plan_splice([first, second], [Kept(0, 1 << 19), Kept(1 << 19, 1 << 19, 1), Kept(5, 10, 1)], 8 << 20)
    assert planned == (
        Shared(0, Extent(ChunkHandle(1), 0, 1 << 19)),
        Shared(1 << 19, Extent(ChunkHandle(2), 1 << 19, 1 << 19), 1),
        Kept(5, 10, 1),
    )


def test_a_file_that_is_edited_for_ever_keeps_a_bounded_number_of_extents() -> None:
    chunk_bytes, size = 8 << 20, 64 << 20
    extents = tuple(Extent(ChunkHandle(i + 1), 0, chunk_bytes) for i in range(size // chunk_bytes))
    chance, handle, copied = random.Random(1), 100, 0
    for _ in range(3000):
        at = chance.randrange(size - 70_000)
        parts = [Kept(0, at), Fresh(70_000), Kept(at + 70_000, size - at - 70_000)]
        planned = plan_splice([extents], parts, chunk_bytes)
        written_bytes = sum(part.length for part in planned if not isinstance(part, Shared))
        copied += written_bytes - 70_000
        handle += 10
        written = tuple(
            Extent(ChunkHandle(handle + i), 0, min(chunk_bytes, written_bytes - i * chunk_bytes))
            for i in range(-(-written_bytes // chunk_bytes))
        )
        extents = resolve_splice(planned, written)
        assert size_of(extents) == size
        assert len(extents) <= EXTENTS_MAX
    assert copied < 3000 * (2 << 20)
