"""What two revisions have in common, by the chunks they consist of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helenite.core.errors import ProtocolError
from helenite.core.model import ChunkHandle, Extent
from syncagent.recipes import NEAR_BYTES, Source, parse_recipe, plan_sources

recipes = st.lists(
    st.builds(Extent, st.integers(1, 4).map(ChunkHandle), st.integers(0, 30), st.integers(1, 30)), max_size=8
)


def bytes_of(extents: list[Extent]) -> list[tuple[int, int]]:
    return [(extent.handle, extent.offset + i) for extent in extents for i in range(extent.length)]


@given(recipes, recipes)
def test_every_byte_comes_from_where_it_is(held: list[Extent], wanted: list[Extent]) -> None:
    local, remote = bytes_of(held), bytes_of(wanted)
    found: list[tuple[int, int]] = []
    for source in plan_sources(held, wanted):
        assert source.length > 0
        if source.at is None:
            found += remote[len(found) : len(found) + source.length]
        else:
            found += local[source.at : source.at + source.length]
    assert found == remote


@given(recipes)
def test_what_is_held_is_not_fetched(held: list[Extent]) -> None:
    assert all(source.at is not None for source in plan_sources(held, held))
    assert all(source.at is not None for source in plan_sources(held, held[::-1]))


def test_ranges_are_as_long_as_they_can_be() -> None:
    mib = 1 << 20
    held = [Extent(ChunkHandle(1), 0, 8 * mib), Extent(ChunkHandle(2), 0, 8 * mib)]
    wanted = [
        Extent(ChunkHandle(1), 0, mib),
        Extent(ChunkHandle(3), 0, 4096),
        Extent(ChunkHandle(1), mib + 4096, 7 * mib - 4096),
        Extent(ChunkHandle(2), 0, 8 * mib),
    ]
    assert plan_sources(held, wanted) == [
        Source(0, mib),
        Source(None, 4096),
        Source(mib + 4096, 15 * mib - 4096),
    ]


def test_near_ranges_are_fetched_in_one() -> None:
    held = [Extent(ChunkHandle(1), 0, NEAR_BYTES - 1)]
    wanted = [Extent(ChunkHandle(2), 0, 10), *held, Extent(ChunkHandle(3), 0, 10)]
    assert plan_sources(held, wanted) == [Source(None, NEAR_BYTES + 19)]


def test_recipes_are_understood() -> None:
    assert parse_recipe(b"ff 0 10\n1a 5 7\n", 17) == (Extent(ChunkHandle(255), 0, 10), Extent(ChunkHandle(26), 5, 7))
    assert parse_recipe(b"", 0) == ()


@pytest.mark.parametrize(
    "text", [b"ff 0 10\n", b"<html>", b"ff 0\n", b"ff 0 17 1\n", b"ff -1 17\n", b"ff 0 27\nff 0 -10\n"]
)
def test_what_is_no_recipe(text: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_recipe(text, 17)
