from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webdav.ranges import RANGES_MAX, ByteRange, parse_ranges


def spans(*pairs: tuple[int, int]) -> tuple[ByteRange, ...]:
    return tuple(ByteRange(*pair) for pair in pairs)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", spans((0, 1))),
        ("bytes=2-4", spans((2, 3))),
        ("bytes=8-99", spans((8, 2))),
        ("bytes=9-", spans((9, 1))),
        ("bytes=-3", spans((7, 3))),
        ("bytes=-99", spans((0, 10))),
        ("Bytes = 1-2", spans((1, 2))),
        ("bytes=0-0,3-4", spans((0, 1), (3, 2))),
        ("bytes=3-4, 0-0", spans((3, 2), (0, 1))),
        ("bytes=0-0,,5-5", spans((0, 1), (5, 1))),
        ("bytes=0-0,20-30", spans((0, 1))),
        ("bytes=10-", ()),
        ("bytes=20-30,40-", ()),
        ("bytes=-0", ()),
        ("bytes=99999999999999999999999999-", ()),
        ("bytes=0-99999999999999999999999999", spans((0, 10))),
        ("bytes=4-1", None),
        ("bytes=0-1,4-1", None),
        ("bytes=", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=1", None),
        ("bytes=--1", None),
        ("bytes=\uff11-\uff12", None),
        ("lines=0-1", None),
        ("0-1", None),
        ("bytes=0-9,0-9", None),
        ("bytes=" + ",".join(["0-0"] * (RANGES_MAX + 1)), None),
        ("bytes=" + ",".join(f"{n}-{n}" for n in range(10)), spans(*((n, 1) for n in range(10)))),
    ],
)
def test_a_file_of_ten_bytes(header: str, expected: tuple[ByteRange, ...] | None) -> None:
    assert parse_ranges(header, 10) == expected


def test_an_empty_file_has_no_ranges() -> None:
    assert parse_ranges("bytes=0-0", 0) is None
    assert parse_ranges("bytes=-1", 0) is None


def test_content_range() -> None:
    assert ByteRange(2, 3).content_range(10) == "bytes 2-4/10"


@given(st.text(alphabet="bytes=0123456789-, ", max_size=60), st.integers(0, 50))
def test_ranges_lie_inside(header: str, size: int) -> None:
    found = parse_ranges(header, size) or ()
    assert all(part.start >= 0 and part.length > 0 and part.start + part.length <= size for part in found)
    assert len(found) <= 1 or sum(part.length for part in found) <= size
