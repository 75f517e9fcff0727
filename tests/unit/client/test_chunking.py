from hypothesis import given
from hypothesis import strategies as st

from helenite.client.chunking import Piece, plan_pieces, slice_extents, splice_extents
from helenite.core.model import ChunkHandle, Extent

extent_lists = st.lists(
    st.builds(Extent, st.integers(1, 9).map(ChunkHandle), st.integers(0, 40), st.integers(1, 40)), max_size=8
).map(tuple)


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


@given(extent_lists, extent_lists, st.data())
def test_splice_replaces_only_what_it_covers(
    extents: tuple[Extent, ...], fresh: tuple[Extent, ...], data: st.DataObject
) -> None:
    offset = data.draw(st.integers(0, size_of(extents)))
    expected = bytes_of(extents)
    expected[offset : offset + size_of(fresh)] = bytes_of(fresh)
    assert bytes_of(splice_extents(extents, offset, fresh)) == expected
