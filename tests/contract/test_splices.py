"""Splices: revisions made of ranges, of new bytes and of zeros."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from helenite.client.chunking import Fresh, Kept, Part, Zeros
from helenite.client.filesystem import FileSystem
from helenite.core import errors
from helenite.core.model import Condition, Entry
from helenite.core.paths import Path
from tests.support.contract import get, put, take_lock


def splice(fs: FileSystem, path: Path, parts: list[Part], fresh: bytes = b"", **options: Any) -> Entry:
    view = fs.lookup(path, with_locations=True)
    condition = Condition.exactly(view.entry)
    with fs.splice(path, view, parts, **({"condition": condition} | options)) as splicer:
        for at in range(0, len(fresh), 100_000):
            splicer.write(fresh[at : at + 100_000])
        return splicer.commit()


def test_a_splice_is_made_of_what_is_there_and_what_comes(fs: FileSystem, home: Path) -> None:
    path = (*home, "f")
    content, fresh = random.Random(1).randbytes(3_000_000), random.Random(2).randbytes(250_000)
    first = put(fs, path, content)
    parts: list[Part] = [Fresh(7), Kept(1_000_000, 2_000_000), Kept(5, 10), Fresh(249_993), Kept(0, 900_000)]
    entry = splice(fs, path, parts, fresh, modified_at_ms=12_345)
    expected = fresh[:7] + content[1_000_000:] + content[5:15] + fresh[7:] + content[:900_000]
    assert (entry.id, entry.size_bytes, entry.modified_at_ms) == (first.id, len(expected), 12_345)
    assert entry.revision > first.revision
    assert fs.stat(path).revision == entry.revision
    assert get(fs, path) == expected
    splice(fs, path, [])
    assert get(fs, path) == b""


def test_a_file_that_is_spliced_again_and_again_is_whole(fs: FileSystem, home: Path) -> None:
    path, chance = (*home, "f"), random.Random(3)
    content = chance.randbytes(1_500_000)
    put(fs, path, content)
    for _ in range(25):
        at, fresh = chance.randrange(len(content)), chance.randbytes(chance.randrange(1, 80_000))
        gone = min(chance.randrange(80_000), len(content) - at)
        splice(fs, path, [Kept(0, at), Fresh(len(fresh)), Kept(at + gone, len(content) - at - gone)], fresh)
        content = content[:at] + fresh + content[at + gone :]
    assert get(fs, path) == content


def test_a_splice_may_take_from_another_file(fs: FileSystem, home: Path) -> None:
    path, other = (*home, "f"), (*home, "other")
    content, taken = random.Random(4).randbytes(1_000_000), random.Random(5).randbytes(2_000_000)
    first = put(fs, path, content)
    put(fs, other, taken)
    parts: list[Part] = [Kept(0, 1_500_000, 1), Kept(100, 200_000), Fresh(3), Kept(1_999_990, 10, 1)]
    entry = splice(fs, path, parts, b"new", source=(other, fs.lookup(other, with_locations=True)))
    assert entry.id == first.id
    fs.remove(other)
    fs.empty_trash()
    assert get(fs, path) == taken[:1_500_000] + content[100:200_100] + b"new" + taken[-10:]


def test_a_splice_takes_only_from_the_revision_that_was_looked_up(fs: FileSystem, home: Path) -> None:
    path, other = (*home, "f"), (*home, "other")
    put(fs, path, b"old")
    put(fs, other, b"x" * 100_000)
    seen = fs.lookup(other, with_locations=True)
    put(fs, other, b"y" * 100_000)
    with pytest.raises(errors.PreconditionFailedError):
        splice(fs, path, [Kept(0, 100_000, 1)], source=(other, seen))
    fs.remove(other)
    with pytest.raises((errors.PreconditionFailedError, errors.EntryNotFoundError)):
        splice(fs, path, [Kept(0, 100_000, 1)], source=(other, seen))
    assert get(fs, path) == b"old"


@pytest.mark.parametrize("fresh", [b"ab", b"abcd"])
def test_a_splice_needs_exactly_its_bytes(fs: FileSystem, home: Path, fresh: bytes) -> None:
    put(fs, (*home, "f"), b"old")
    with pytest.raises(errors.IncompleteBodyError):
        splice(fs, (*home, "f"), [Kept(0, 3), Fresh(3)], fresh)
    assert get(fs, (*home, "f")) == b"old"


def test_a_splice_of_what_was_replaced_is_refused(fs: FileSystem, home: Path) -> None:
    path = (*home, "f")
    put(fs, path, b"old")
    view = fs.lookup(path, with_locations=True)
    with fs.splice(path, view, [Kept(0, 3), Fresh(1)], condition=Condition.exactly(view.entry)) as splicer:
        splicer.write(b"!")
        put(fs, path, b"new")
        with pytest.raises(errors.PreconditionFailedError):
            splicer.commit()
    assert get(fs, path) == b"new"


def test_a_splice_can_be_read_before_it_is_committed(fs: FileSystem, home: Path) -> None:
    chance = random.Random(7)
    old, fresh = chance.randbytes(3_000_000), chance.randbytes(10_000_000)  # more than a chunk
    put(fs, (*home, "f"), old)
    view = fs.lookup((*home, "f"), with_locations=True)
    parts = [Kept(100, 1_000_000), Fresh(9_000_000), Kept(5, 10), Fresh(1_000_000), Kept(2_000_000, 1_000_000)]
    with fs.splice((*home, "f"), view, parts, condition=Condition.exactly(view.entry)) as splicer:
        splicer.write(fresh[:-1])
        with pytest.raises(errors.IncompleteBodyError):
            splicer.read_back()
        splicer.write(fresh[-1:])
        read = b"".join(map(bytes, splicer.read_back().iterate()))
        assert get(fs, (*home, "f")) == old
        splicer.commit()
    assert read == get(fs, (*home, "f"))
    assert read == b"".join((old[100:1_000_100], fresh[:9_000_000], old[5:15], fresh[9_000_000:], old[2_000_000:]))


def test_zeros_need_not_be_sent_and_are_stored_once(fs: FileSystem, home: Path) -> None:
    put(fs, (*home, "f"), b"old")
    mib = 1 << 20
    entry = splice(fs, (*home, "f"), [Kept(0, 3), Zeros(40 * mib), Fresh(4), Zeros(100_001), Kept(1, 2)], b"data")
    assert entry.size_bytes == 40 * mib + 100_010
    assert get(fs, (*home, "f")) == b"old" + bytes(40 * mib) + b"data" + bytes(100_001) + b"ld"
    view = fs.lookup((*home, "f"), with_locations=True)
    assert len({extent.handle for extent in view.entry.extents}) == 2
    parts: list[Part] = [Kept(0, 20 * mib), Fresh(1), Kept(20 * mib + 1, view.entry.size_bytes - 20 * mib - 1)]
    splice(fs, (*home, "f"), parts, b"!")  # and what is made of it is whole
    assert (
        get(fs, (*home, "f"))
        == b"old" + bytes(20 * mib - 3) + b"!" + bytes(20 * mib + 2) + b"data" + bytes(100_001) + b"ld"
    )
    fs.remove((*home, "f"))


def test_a_splice_obeys_locks(fs: FileSystem, home: Path) -> None:
    path = (*home, "f")
    entry = put(fs, path, b"old")
    token = take_lock(fs, path)
    with pytest.raises(errors.LockedError):
        splice(fs, path, [Kept(0, 3), Fresh(1)], b"!")
    splice(fs, path, [Kept(0, 3), Fresh(1)], b"!", condition=replace(Condition.exactly(entry), tokens=(token,)))
    assert get(fs, path) == b"old!"
