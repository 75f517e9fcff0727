from __future__ import annotations

import random
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from helenite.client.chunking import (
    EXTENTS_MAX,
    SHARED_BYTES_MIN,
    Fresh,
    Kept,
    Piece,
    Shared,
    Slicer,
    plan_pieces,
    plan_splice,
    resolve_splice,
)
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
        st.builds(Kept, st.integers(0, 400 << 10), st.integers(1, 300 << 10)), st.builds(Fresh, st.integers(1, 90_000))
    ),
    max_size=30,
)


def _long_extents(lengths: list[int]) -> tuple[Extent, ...]:
    return tuple(Extent(ChunkHandle(i % 7), 1000 * i, length) for i, length in enumerate(lengths))


def _ranges(extents: Iterable[Extent]) -> list[Extent]:
    """With neighbours that are one range as one: equal for lists that mean the same bytes."""
    found: list[Extent] = []
    for extent in extents:
        if found and found[-1].handle == extent.handle and found[-1].offset + found[-1].length == extent.offset:
            found[-1] = Extent(extent.handle, found[-1].offset, found[-1].length + extent.length)
        elif extent.length:
            found.append(extent)
    return found


@given(st.lists(st.integers(1, 300 << 10), min_size=1, max_size=9), parts_of_files, st.integers(10_000, 200_000))
def test_a_splice_has_every_byte_in_its_place(lengths: list[int], wanted: list[Kept | Fresh], chunk_bytes: int) -> None:
    extents = _long_extents(lengths)
    size = size_of(extents)
    parts = [
        Kept(part.offset % size, min(part.length, size - part.offset % size)) if isinstance(part, Kept) else part
        for part in wanted
    ]
    planned = plan_splice([extents], parts, chunk_bytes)
    # What is not shared is written as one stream; each of its bytes is known by where it comes from.
    stream: list[Extent] = []
    fresh_at = 0
    for part in planned:
        if isinstance(part, Fresh):
            stream.append(Extent(ChunkHandle(99), fresh_at, part.length))
            fresh_at += part.length
        elif isinstance(part, Kept):
            stream += slice_extents(extents, part.offset, part.length)
    written_bytes = size_of(tuple(stream))
    written = tuple(
        Extent(ChunkHandle(1000 + at // chunk_bytes), 0, min(chunk_bytes, written_bytes - at))
        for at in range(0, written_bytes, chunk_bytes)
    )
    found = resolve_splice(planned, written)
    expected: list[Extent] = []
    fresh_at = 0
    for part in parts:
        if isinstance(part, Fresh):
            expected.append(Extent(ChunkHandle(99), fresh_at, part.length))
            fresh_at += part.length
        else:
            expected += slice_extents(extents, part.offset, part.length)
    told: list[Extent] = []
    for extent in found:
        if extent.handle < 1000:
            told.append(extent)
        else:
            at = (extent.handle - 1000) * chunk_bytes + extent.offset
            told += slice_extents(tuple(stream), at, extent.length)
    assert _ranges(told) == _ranges(expected)
    assert all(part.length >= SHARED_BYTES_MIN for part in planned if isinstance(part, Shared))


def test_short_ranges_are_copied_and_long_ones_shared() -> None:
    extents = (Extent(ChunkHandle(1), 0, 8 << 20), Extent(ChunkHandle(2), 0, 8 << 20))
    planned = plan_splice([extents], [Kept(0, 1000), Fresh(50), Kept(1000, 16 << 20)], 8 << 20)
    assert planned == (
        Kept(0, 1000),
        Fresh(50),
        Shared(1000, Extent(ChunkHandle(1), 1000, (8 << 20) - 1000)),
        Shared(8 << 20, Extent(ChunkHandle(2), 0, 8 << 20)),
    )


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
