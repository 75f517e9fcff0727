"""What two revisions have in common, by the chunks they consist of."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helenite.core.errors import ProtocolError
from helenite.core.model import ChunkHandle, Extent
from syncagent.recipes import NEAR_BYTES, Origin, Source, parse_recipe, plan_sources

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
        origin = {Origin.SERVER: remote, Origin.LOCAL: local, Origin.ITSELF: list(found)}[source.origin]
        assert source.origin is not Origin.SERVER or source.at == len(found)
        found += origin[source.at : source.at + source.length]
    assert found == remote


@given(recipes)
def test_nothing_is_fetched_twice(wanted: list[Extent]) -> None:
    with patch("syncagent.recipes.NEAR_BYTES", 0):
        fetched = [source for source in plan_sources([], wanted) if source.origin is Origin.SERVER]
    assert sum(source.length for source in fetched) == len(set(bytes_of(wanted)))


def test_a_hole_is_fetched_as_the_chunk_that_it_is_made_of() -> None:
    mib = 1 << 20
    zeros, data = Extent(ChunkHandle(1), 0, 8 * mib), Extent(ChunkHandle(2), 0, mib)
    assert plan_sources([], [data, *[zeros] * 100, Extent(ChunkHandle(1), 0, mib)]) == [
        Source(Origin.SERVER, 0, 9 * mib),
        *[Source(Origin.ITSELF, mib, 8 * mib)] * 99,
        Source(Origin.ITSELF, mib, mib),
    ]


@given(recipes)
def test_what_is_held_is_not_fetched(held: list[Extent]) -> None:
    assert all(source.origin is Origin.LOCAL for source in plan_sources(held, held))
    assert all(source.origin is Origin.LOCAL for source in plan_sources(held, held[::-1]))


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
        Source(Origin.LOCAL, 0, mib),
        Source(Origin.SERVER, mib, 4096),
        Source(Origin.LOCAL, mib + 4096, 15 * mib - 4096),
    ]


def test_near_ranges_are_fetched_in_one() -> None:
    held = [Extent(ChunkHandle(1), 0, NEAR_BYTES - 1)]
    wanted = [Extent(ChunkHandle(2), 0, 10), *held, Extent(ChunkHandle(3), 0, 10)]
    assert plan_sources(held, wanted) == [Source(Origin.SERVER, 0, NEAR_BYTES + 19)]


def test_recipes_are_understood() -> None:
    assert parse_recipe(b"ff 0 10\n1a 5 7\n", 17) == (Extent(ChunkHandle(255), 0, 10), Extent(ChunkHandle(26), 5, 7))
    assert parse_recipe(b"", 0) == ()


@pytest.mark.parametrize(
    "text", [b"ff 0 10\n", b"<html>", b"ff 0\n", b"ff 0 17 1\n", b"ff -1 17\n", b"ff 0 27\nff 0 -10\n"]
)
def test_what_is_no_recipe(text: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_recipe(text, 17)
