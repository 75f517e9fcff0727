"""What a FileSystem promises, whoever implements it: the fake that the gateway's tests stand on, and the real cluster.

Each test works in a directory of its own, so that the real cluster can be shared by all of them.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from helenite.client.chunking import Fresh, Kept, Part, Zeros
from helenite.client.filesystem import FileSystem
from helenite.client.smallfiles import SmallFile
from helenite.core import errors
from helenite.core.model import Condition, Entry, Expect, Kind, LockScope, Sequence
from helenite.core.paths import Path
from tests.support.memory_filesystem import MemoryFileSystem

ABSENT = Condition(Expect.ABSENT)
PRESENT = Condition(Expect.PRESENT)


@pytest.fixture(params=["memory", "real"])
def fs(request: pytest.FixtureRequest) -> Iterator[FileSystem]:
    if request.param == "memory":
        with MemoryFileSystem() as made:
            yield made  # type: ignore[misc]
        return
    yield request.getfixturevalue("real_filesystem")


@pytest.fixture
def home(fs: FileSystem) -> Path:
    path = (f"contract-{uuid.uuid4().hex[:12]}",)
    fs.make_directory(path)
    return path


def put(fs: FileSystem, path: Path, content: bytes = b"x", **options: Any) -> Entry:
    with fs.create(path, **options) as writer:
        writer.write(content)
        return writer.commit()[0]


def get(fs: FileSystem, path: Path) -> bytes:
    with fs.open(path) as reader:
        return b"".join(bytes(piece) for piece in reader.iterate())


def names(fs: FileSystem, path: Path) -> set[str]:
    return {view.entry.name for view in fs.list(path)[1]}


def take_lock(fs: FileSystem, path: Path, principal: str = "", **options: Any) -> str:
    token = uuid.uuid4().urn
    wanted: dict[str, Any] = {"scope": LockScope.EXCLUSIVE, "is_infinite": False, "owner": b"<o/>", "timeout_s": 600}
    fs.lock(path, token=token, condition=Condition(principal=principal), **(wanted | options))
    return token


def holding(*tokens: str, principal: str = "") -> Condition:
    return Condition(tokens=tokens, principal=principal)


# Content


@pytest.mark.parametrize("size", [0, 1, 65_536, 1_500_000])
def test_what_is_written_is_read(fs: FileSystem, home: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    content = content[:size]
    entry = put(fs, (*home, "f"), content)
    assert (entry.name, entry.kind, entry.size_bytes) == ("f", Kind.FILE, size)
    with fs.open((*home, "f")) as reader:
        assert reader.size_bytes == size
        assert b"".join(bytes(piece) for piece in reader.iterate()) == content
        assert reader.read(size // 2, 10) == content[size // 2 : size // 2 + 10]
        assert b"".join(map(bytes, reader.iterate(size // 3, size // 2))) == content[size // 3 :][: size // 2]


def test_nothing_is_visible_before_the_commit(fs: FileSystem, home: Path) -> None:
    path = (*home, "f")
    with fs.create(path) as writer:
        writer.write(b"abc")
        assert not fs.exists(path)
    assert not fs.exists(path)
    put(fs, path, b"old")
    with fs.create(path) as writer:
        writer.write(b"new")
    assert get(fs, path) == b"old"


@pytest.mark.parametrize("size", [2, 4])
def test_an_announced_size_must_be_met(fs: FileSystem, home: Path, size: int) -> None:
    with pytest.raises(errors.IncompleteBodyError):
        put(fs, (*home, "f"), b"x" * size, size_bytes=3)
    assert not fs.exists((*home, "f"))


# Splices


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
    splice(fs, path, [Kept(0, 3), Fresh(1)], b"!", condition=Condition.exactly(entry, (token,)))
    assert get(fs, path) == b"old!"


def test_a_reader_keeps_its_revision(fs: FileSystem, home: Path) -> None:
    path = (*home, "f")
    put(fs, path, b"old content")
    with fs.open(path) as reader:
        put(fs, path, b"new")
        assert reader.read(0, 100) == b"old content"
    with fs.open_view(fs.lookup(path, with_locations=True)) as reader:
        fs.remove(path)
        assert reader.read(0, 100) == b"new"


def test_commit_tells_whether_the_file_is_new(fs: FileSystem, home: Path) -> None:
    for expected in (True, False):
        with fs.create((*home, "f")) as writer:
            assert writer.commit()[1] is expected


def test_overwriting_keeps_the_id_and_changes_the_etag(fs: FileSystem, home: Path) -> None:
    first = put(fs, (*home, "f"), b"a")
    second = put(fs, (*home, "f"), b"a")
    assert first.id == second.id
    assert first.etag != second.etag
    assert first.created_at_ms == second.created_at_ms


def test_times_can_be_given(fs: FileSystem, home: Path) -> None:
    assert put(fs, (*home, "f"), modified_at_ms=1_600_000_000_123).modified_at_ms == 1_600_000_000_123
    made = fs.make_directory((*home, "d"), modified_at_ms=1_500_000_000_000)
    assert made.modified_at_ms == 1_500_000_000_000
    before = fs.stat((*home, "f"))
    after = fs.set_properties((*home, "f"), modified_at_ms=1_000, created_at_ms=2_000)
    assert (after.modified_at_ms, after.created_at_ms) == (1_000, 2_000)
    assert after.etag == before.etag


# Names


def test_small_files_are_stored_together_each_by_itself(fs: FileSystem, home: Path) -> None:
    old = put(fs, (*home, "old"), b"old")
    stale = put(fs, (*home, "stale"), b"1")
    put(fs, (*home, "stale"), b"2")
    fs.make_directory((*home, "directory"))

    def small(name: str, content: bytes, condition: Condition = ABSENT, **options: Any) -> SmallFile:
        return SmallFile((*home, *name.split("/")), content, condition, **options)

    stored = fs.create_small(
        [
            small("new", b"new", modified_at_ms=1_500_000_000_123, sha256=b"d" * 32),
            small("old", b"newer", Condition.exactly(old)),
            small("stale", b"3", Condition.exactly(stale)),
            small("empty", b""),
            small("directory", b"x", Condition()),
            small("none/x", b"x"),
            small("large", b"y" * (1 << 20)),
        ]
    )
    failures = [type(found) for found in stored if isinstance(found, errors.HeleniteError)]
    assert failures == [errors.PreconditionFailedError, errors.WrongKindError, errors.ParentNotFoundError]
    entries = {found[0].name: found for found in stored if isinstance(found, tuple)}
    assert {name: is_new for name, (_, is_new) in entries.items()} == {
        "new": True, "old": False, "empty": True, "large": True,
    }  # fmt: skip
    assert (entries["new"][0].modified_at_ms, entries["new"][0].sha256) == (1_500_000_000_123, b"d" * 32)
    assert entries["old"][0].id == old.id
    contents = {"new": b"new", "old": b"newer", "stale": b"2", "empty": b"", "large": b"y" * (1 << 20)}
    assert {name: get(fs, (*home, name)) for name in contents} == contents
    assert fs.create_small([]) == []


def test_a_digest_belongs_to_one_revision(fs: FileSystem, home: Path) -> None:
    path, digest = (*home, "f"), b"\1" * 32
    with fs.create(path) as writer:
        writer.write(b"told")
        entry, _ = writer.commit(digest)
    assert entry.sha256 == digest
    assert fs.stat(path) == replace(entry, extents=fs.stat(path).extents)
    assert [view.entry.sha256 for view in fs.list(home)[1]] == [digest]
    assert fs.copy(path, (*home, "copy"), overwrite=False)[0].sha256 == digest
    assert fs.move(path, (*home, "g"), overwrite=False)[0].sha256 == digest
    fs.set_properties((*home, "g"), set_values={"{x}p": b"<p xmlns='x'/>"}, modified_at_ms=1)
    assert fs.stat((*home, "g")).sha256 == digest
    assert get(fs, (*home, "g")) == b"told"
    assert put(fs, (*home, "g"), b"untold").sha256 == b""
    assert fs.stat((*home, "copy")).sha256 == digest


def test_a_digest_that_is_told_later(fs: FileSystem, home: Path) -> None:
    path, digest = (*home, "f"), b"\2" * 32
    old = put(fs, path, b"old")
    entry = put(fs, path, b"new")
    fs.set_properties(path, set_values={"{x}p": b"<p xmlns='x'/>"})
    before = fs.stat(home)
    for condition in (Condition.exactly(old), ABSENT):
        with pytest.raises(errors.PreconditionFailedError):
            fs.set_digest(path, sha256=digest, condition=condition)
    told = fs.set_digest(path, sha256=digest, condition=Condition.exactly(entry))
    assert (told.sha256, told.revision) == (digest, entry.revision)
    assert fs.stat(path).sha256 == digest
    assert fs.lookup(path, with_properties=True).properties
    assert get(fs, path) == b"new"
    assert fs.stat(home) == before, "nobody sees it as a change"


def test_what_is_missing_is_not_found(fs: FileSystem, home: Path) -> None:
    for call in (fs.lookup, fs.stat, fs.open, fs.remove, fs.list):
        with pytest.raises(errors.EntryNotFoundError):
            call((*home, "none"))
        with pytest.raises(errors.EntryNotFoundError):
            call((*home, "none", "deeper"))
    with pytest.raises(errors.EntryNotFoundError):
        fs.set_properties((*home, "none"), set_values={"{a}b": b"<b/>"})


def test_a_parent_must_be_a_directory(fs: FileSystem, home: Path) -> None:
    put(fs, (*home, "f"))
    put(fs, (*home, "source"))
    for parent in ("none", "f"):
        with pytest.raises(errors.ParentNotFoundError):
            put(fs, (*home, parent, "x"))
        with pytest.raises(errors.ParentNotFoundError):
            fs.make_directory((*home, parent, "x"))
        for call in (fs.move, fs.copy):
            with pytest.raises(errors.ParentNotFoundError):
                call((*home, "source"), (*home, parent, "x"), overwrite=True)
        with pytest.raises(errors.ParentNotFoundError):
            take_lock(fs, (*home, parent, "x"))


def test_kinds_do_not_mix(fs: FileSystem, home: Path) -> None:
    put(fs, (*home, "f"))
    fs.make_directory((*home, "d"))
    with pytest.raises(errors.WrongKindError):
        put(fs, (*home, "d"))
    with pytest.raises(errors.WrongKindError):
        fs.open((*home, "d"))
    with pytest.raises(errors.WrongKindError):
        fs.list((*home, "f"))
    with pytest.raises(errors.EntryExistsError):
        fs.make_directory((*home, "f"))
    with pytest.raises(errors.EntryExistsError):
        fs.make_directory((*home, "d"))


def test_listing(fs: FileSystem, home: Path) -> None:
    wanted = {f"file {number}" for number in range(50)} | {"NFC \u00e9", "NFD e\u0301", "#?%&+", "\U0001f600"}
    for name in wanted:
        put(fs, (*home, name))
    fs.make_directory((*home, "d"))
    view, members = fs.list(home)
    assert view.entry == fs.stat(home)
    listed = list(members)
    assert {member.entry.name for member in listed} == wanted | {"d"}
    assert {m.entry.name for m in listed if m.entry.is_directory} == {"d"}
    (found,) = (member.entry for member in listed if member.entry.name == "#?%&+")
    assert found == replace(fs.stat((*home, "#?%&+")), extents=())


def test_remove_takes_everything_beneath(fs: FileSystem, home: Path) -> None:
    fs.make_directory((*home, "d"))
    put(fs, (*home, "d", "f"))
    fs.remove((*home, "d"))
    assert names(fs, home) == set()
    with pytest.raises(errors.EntryNotFoundError):
        fs.stat((*home, "d", "f"))


# Move and copy


def test_move(fs: FileSystem, home: Path) -> None:
    entry = put(fs, (*home, "a"), b"content")
    fs.set_properties((*home, "a"), set_values={"{urn:x}p": b"<p/>"})
    moved, is_new = fs.move((*home, "a"), (*home, "b"), overwrite=False)
    assert (moved.id, moved.name, is_new) == (entry.id, "b", True)
    assert names(fs, home) == {"b"}
    assert get(fs, (*home, "b")) == b"content"
    assert fs.lookup((*home, "b"), with_properties=True).properties == {"{urn:x}p": b"<p/>"}


def test_move_of_a_tree(fs: FileSystem, home: Path) -> None:
    fs.make_directory((*home, "d"))
    put(fs, (*home, "d", "f"), b"deep")
    fs.move((*home, "d"), (*home, "e"), overwrite=False)
    assert get(fs, (*home, "e", "f")) == b"deep"
    assert not fs.exists((*home, "d"))


def test_copy(fs: FileSystem, home: Path) -> None:
    fs.make_directory((*home, "d"))
    original = put(fs, (*home, "d", "f"), b"deep", modified_at_ms=1_600_000_000_000)
    fs.set_properties((*home, "d", "f"), set_values={"{urn:x}p": b"<p/>"})
    _, is_new = fs.copy((*home, "d"), (*home, "e"), overwrite=False)
    assert is_new
    copied = fs.lookup((*home, "e", "f"), with_properties=True)
    assert copied.entry.id != original.id
    assert copied.properties == {"{urn:x}p": b"<p/>"}
    put(fs, (*home, "d", "f"), b"changed")
    assert get(fs, (*home, "e", "f")) == b"deep"
    fs.remove((*home, "d"))
    assert get(fs, (*home, "e", "f")) == b"deep"
    fs.copy((*home, "e"), (*home, "g"), overwrite=False, is_shallow=True)
    assert names(fs, (*home, "g")) == set()


@pytest.mark.parametrize("verb", ["move", "copy"])
def test_overwriting(fs: FileSystem, home: Path, verb: str) -> None:
    put(fs, (*home, "a"), b"a")
    fs.make_directory((*home, "b"))
    put(fs, (*home, "b", "inside"))
    call = getattr(fs, verb)
    with pytest.raises(errors.PreconditionFailedError):
        call((*home, "a"), (*home, "b"), overwrite=False)
    assert fs.exists((*home, "b", "inside"))
    entry, is_new = call((*home, "a"), (*home, "b"), overwrite=True)
    assert (is_new, entry.kind) == (False, Kind.FILE)
    assert get(fs, (*home, "b")) == b"a"


@pytest.mark.parametrize("verb", ["move", "copy"])
def test_cycles(fs: FileSystem, home: Path, verb: str) -> None:
    fs.make_directory((*home, "d"))
    put(fs, (*home, "d", "f"), b"kept")
    call = getattr(fs, verb)
    for source, target in (("d",), ("d",)), (("d",), ("d", "e")), (("d",), ("d", "e", "f")):
        with pytest.raises((errors.CycleError, errors.ParentNotFoundError)):
            call((*home, *source), (*home, *target), overwrite=True)
    with pytest.raises(errors.HeleniteError):  # the target holds the source
        call((*home, "d", "f"), (*home, "d"), overwrite=True)
    assert get(fs, (*home, "d", "f")) == b"kept"


# Conditions


def test_conditions_of_a_commit(fs: FileSystem, home: Path) -> None:
    path = (*home, "f")
    for condition in (PRESENT, Condition(Expect.EXACT, fs.stat(home).id, Sequence(1))):
        with pytest.raises(errors.PreconditionFailedError):
            put(fs, path, condition=condition)
    first = put(fs, path, b"1", condition=ABSENT)
    with pytest.raises(errors.PreconditionFailedError):
        put(fs, path, b"2", condition=ABSENT)
    second = put(fs, path, b"2", condition=Condition.exactly(first))
    with pytest.raises(errors.PreconditionFailedError):
        put(fs, path, b"3", condition=Condition.exactly(first))
    assert get(fs, path) == b"2"
    put(fs, path, b"3", condition=PRESENT)
    with pytest.raises(errors.PreconditionFailedError):
        fs.remove(path, condition=Condition.exactly(second))
    fs.remove(path, condition=Condition.exactly(fs.stat(path)))


def test_conditions_of_other_mutations(fs: FileSystem, home: Path) -> None:
    stale = put(fs, (*home, "a"), b"1")
    put(fs, (*home, "a"), b"2")
    put(fs, (*home, "b"))
    wrong = Condition.exactly(stale)
    with pytest.raises(errors.PreconditionFailedError):
        fs.move((*home, "a"), (*home, "c"), overwrite=True, condition=wrong)
    with pytest.raises(errors.PreconditionFailedError):
        fs.copy((*home, "a"), (*home, "c"), overwrite=True, condition=wrong)
    with pytest.raises(errors.PreconditionFailedError):
        fs.move((*home, "a"), (*home, "b"), overwrite=True, target_condition=ABSENT)
    with pytest.raises(errors.PreconditionFailedError):
        fs.set_properties((*home, "a"), set_values={"{a}b": b"<b/>"}, condition=wrong)
    with pytest.raises(errors.PreconditionFailedError):
        take_lock_with(fs, (*home, "a"), ABSENT)
    assert names(fs, home) == {"a", "b"}


def take_lock_with(fs: FileSystem, path: Path, condition: Condition) -> None:
    fs.lock(
        path,
        token=uuid.uuid4().urn,
        scope=LockScope.EXCLUSIVE,
        is_infinite=False,
        owner=b"",
        timeout_s=60,
        condition=condition,
    )


def test_of_many_conditional_writers_one_wins(fs: FileSystem, home: Path) -> None:
    path = (*home, "f")
    base = Condition.exactly(put(fs, path, b"base"))

    def try_it(number: int) -> int:
        try:
            put(fs, path, str(number).encode(), condition=base)
        except errors.PreconditionFailedError:
            return -1
        return number

    with ThreadPoolExecutor(8) as pool:
        winners = [number for number in pool.map(try_it, range(8)) if number >= 0]
    assert len(winners) == 1
    assert get(fs, path) == str(winners[0]).encode()


def test_a_directorys_etag_follows_everything_beneath(fs: FileSystem, home: Path) -> None:
    fs.make_directory((*home, "d"))
    fs.make_directory((*home, "d", "e"))

    def etags() -> list[str]:
        return [fs.stat(path).etag for path in ((), home, (*home, "d"), (*home, "d", "e"))]

    for change in (
        lambda: put(fs, (*home, "d", "e", "f")),
        lambda: put(fs, (*home, "d", "e", "f"), b"again"),
        lambda: fs.set_properties((*home, "d", "e", "f"), set_values={"{a}b": b"<b/>"}),
        lambda: fs.copy((*home, "d", "e", "f"), (*home, "d", "e", "g"), overwrite=False),
        lambda: fs.move((*home, "d", "e", "g"), (*home, "d", "e", "h"), overwrite=False),
        lambda: fs.remove((*home, "d", "e", "f")),
    ):
        before = etags()
        change()
        assert all(old != new for old, new in zip(before, etags(), strict=True))


def test_moving_away_changes_both_parents(fs: FileSystem, home: Path) -> None:
    fs.make_directory((*home, "a"))
    fs.make_directory((*home, "b"))
    put(fs, (*home, "a", "f"))
    before = fs.stat((*home, "a")).etag, fs.stat((*home, "b")).etag
    fs.move((*home, "a", "f"), (*home, "b", "f"), overwrite=False)
    after = fs.stat((*home, "a")).etag, fs.stat((*home, "b")).etag
    assert before[0] != after[0]
    assert before[1] != after[1]


# Properties


def test_properties(fs: FileSystem, home: Path) -> None:
    path = (*home, "f")
    put(fs, path)
    fs.set_properties(path, set_values={"{urn:x}a": b"<a>1</a>", "{urn:x}b": b"<b/>"})
    fs.set_properties(path, set_values={"{urn:x}a": b"<a>2</a>"}, remove=("{urn:x}b", "{urn:x}none"))
    assert fs.lookup(path, with_properties=True).properties == {"{urn:x}a": b"<a>2</a>"}
    assert fs.lookup(path).properties == {}
    listed = next(iter(fs.list(home, with_properties=True)[1]))
    assert listed.properties == {"{urn:x}a": b"<a>2</a>"}
    put(fs, path, b"new content")
    assert fs.lookup(path, with_properties=True).properties == {"{urn:x}a": b"<a>2</a>"}
    fs.remove(path)
    put(fs, path)
    assert fs.lookup(path, with_properties=True).properties == {}


# Locks


def test_a_lock_protects_its_entry(fs: FileSystem, home: Path) -> None:
    path = (*home, "f")
    put(fs, path, b"old")
    token = take_lock(fs, path, "ann")
    mutations = (
        lambda condition: put(fs, path, b"new", condition=condition),
        lambda condition: fs.set_properties(path, set_values={"{a}b": b"<b/>"}, condition=condition),
        lambda condition: (
            fs.copy(path, (*home, "c"), overwrite=True, condition=condition)
            and fs.move((*home, "c"), path, overwrite=True, condition=condition)
        ),
    )
    for wrong in (holding(), holding("urn:uuid:none", principal="ann"), holding(token, principal="bob")):
        for mutate in mutations:
            with pytest.raises(errors.LockedError):
                mutate(wrong)
        with pytest.raises(errors.LockedError):
            fs.remove(path, condition=wrong)
        with pytest.raises(errors.LockedError):
            fs.move(path, (*home, "g"), overwrite=True, condition=wrong)
    assert get(fs, path) == b"old"
    for mutate in mutations[:2]:
        mutate(holding(token, principal="ann"))
    assert get(fs, path) == b"new"
    fs.remove(path, condition=holding(token, principal="ann"))
    put(fs, path)
    assert fs.lookup(path, with_locks=True).locks == ()


def test_what_a_lock_looks_like(fs: FileSystem, home: Path) -> None:
    path = (*home, "f")
    put(fs, path)
    token = uuid.uuid4().urn
    lock, entry, is_new = fs.lock(
        path,
        token=token,
        scope=LockScope.SHARED,
        is_infinite=True,
        owner=b"<owner/>",
        timeout_s=77,
        condition=Condition(principal="ann"),
    )
    assert (lock.token, lock.scope, lock.owner, lock.principal, lock.timeout_s) == (
        token,
        LockScope.SHARED,
        b"<owner/>",
        "ann",
        77,
    )
    assert (lock.path, entry.name, is_new) == ("/" + "/".join(path), "f", False)
    assert fs.lookup(path, with_locks=True).locks == (lock,)
    assert next(iter(fs.list(home, with_locks=True)[1])).locks == (lock,)


def test_deep_and_shallow_locks_of_a_directory(fs: FileSystem, home: Path) -> None:
    fs.make_directory((*home, "d"))
    put(fs, (*home, "d", "f"))
    for is_infinite in (False, True):
        token = take_lock(fs, (*home, "d"), is_infinite=is_infinite)
        for change in (
            lambda c: put(fs, (*home, "d", "new"), condition=c),
            lambda c: fs.make_directory((*home, "d", "new"), condition=c),
            lambda c: fs.remove((*home, "d", "f"), condition=c),
            lambda c: fs.move((*home, "d", "f"), (*home, "away"), overwrite=False, condition=c),
        ):
            with pytest.raises(errors.LockedError):
                change(holding())
        if is_infinite:
            with pytest.raises(errors.LockedError):
                put(fs, (*home, "d", "f"), b"y")
            assert [k.token for k in fs.lookup((*home, "d", "f"), with_locks=True).locks] == [token]
        else:
            put(fs, (*home, "d", "f"), b"y")
            assert fs.lookup((*home, "d", "f"), with_locks=True).locks == ()
        put(fs, (*home, "d", "new"), condition=holding(token))
        fs.remove((*home, "d", "new"), condition=holding(token))
        fs.unlock((*home, "d"), token=token, principal="")


def test_a_listing_shows_what_its_entries_inherit_however_large(fs: FileSystem, home: Path) -> None:
    fs.make_directory((*home, "d"))
    fs.make_directory((*home, "d", "e"))
    for i in range(1200):
        fs.make_directory((*home, "d", "e", f"{i}"))
    owner = b"<owner>" + b"x" * 16_000 + b"</owner>"
    deep, shallow = uuid.uuid4().urn, uuid.uuid4().urn
    for path, token, is_infinite in (((*home, "d"), deep, True), ((*home, "d", "e"), shallow, False)):
        fs.lock(path, token=token, scope=LockScope.SHARED, is_infinite=is_infinite, owner=owner, timeout_s=60)
    own = take_lock(fs, (*home, "d", "e", "7"), scope=LockScope.SHARED)
    directory, views = fs.list((*home, "d", "e"), with_locks=True)
    assert {lock.token for lock in directory.locks} == {deep, shallow}
    seen = {view.entry.name: [lock.token for lock in view.locks] for view in views}
    assert len(seen) == 1200
    assert sorted(seen.pop("7")) == sorted([own, deep])
    assert all(tokens == [deep] for tokens in seen.values())


def test_a_locked_child_protects_its_ancestors(fs: FileSystem, home: Path) -> None:
    fs.make_directory((*home, "d"))
    put(fs, (*home, "d", "f"))
    token = take_lock(fs, (*home, "d", "f"))
    for change in (
        lambda c: fs.remove((*home, "d"), condition=c),
        lambda c: fs.move((*home, "d"), (*home, "e"), overwrite=False, condition=c),
    ):
        with pytest.raises(errors.LockedError):
            change(holding())
    fs.move((*home, "d"), (*home, "e"), overwrite=False, condition=holding(token))
    assert fs.lookup((*home, "e", "f"), with_locks=True).locks == ()  # a MOVE leaves locks behind (RFC 4918 7.6)


def test_conflicting_locks(fs: FileSystem, home: Path) -> None:
    fs.make_directory((*home, "d"))
    put(fs, (*home, "d", "f"))
    token = take_lock(fs, (*home, "d", "f"), scope=LockScope.SHARED)
    other = take_lock(fs, (*home, "d", "f"), scope=LockScope.SHARED)
    with pytest.raises(errors.LockedError):
        take_lock(fs, (*home, "d", "f"))
    with pytest.raises(errors.LockedError):
        take_lock(fs, (*home, "d"), is_infinite=True)
    take_lock(fs, (*home, "d"), is_infinite=False)
    put(fs, (*home, "d", "f"), b"y", condition=holding(token))
    with pytest.raises(errors.LockedError):
        put(fs, (*home, "d", "f"), b"y")
    put(fs, (*home, "d", "f"), b"y", condition=holding(other))


def test_a_lock_of_a_free_name_makes_an_empty_file(fs: FileSystem, home: Path) -> None:
    token = uuid.uuid4().urn
    _, entry, is_new = fs.lock(
        (*home, "new"), token=token, scope=LockScope.EXCLUSIVE, is_infinite=False, owner=b"", timeout_s=60
    )
    assert (is_new, entry.size_bytes) == (True, 0)
    assert get(fs, (*home, "new")) == b""
    deep = take_lock(fs, home, is_infinite=False)
    with pytest.raises(errors.LockedError):
        take_lock(fs, (*home, "refused"))
    assert names(fs, home) == {"new"}
    fs.unlock(home, token=deep, principal="")


def test_refreshing_and_unlocking(fs: FileSystem, home: Path) -> None:
    fs.make_directory((*home, "d"))
    put(fs, (*home, "d", "f"))
    put(fs, (*home, "other"))
    token = take_lock(fs, (*home, "d"), "ann", is_infinite=True, timeout_s=60)
    refreshed = fs.refresh_lock((*home, "d", "f"), token=token, timeout_s=900, principal="ann")
    assert (refreshed.timeout_s, refreshed.token) == (900, token)
    for call in (
        lambda: fs.refresh_lock((*home, "other"), token=token, timeout_s=60, principal="ann"),
        lambda: fs.unlock((*home, "other"), token=token, principal="ann"),
        lambda: fs.unlock((*home, "d"), token="urn:uuid:none", principal="ann"),
    ):
        with pytest.raises(errors.LockNotFoundError):
            call()
    with pytest.raises(errors.PermissionDeniedError):
        fs.unlock((*home, "d"), token=token, principal="bob")
    fs.unlock((*home, "d", "f"), token=token, principal="ann")
    assert fs.lookup((*home, "d"), with_locks=True).locks == ()


def test_locks_end(fs: FileSystem, home: Path) -> None:
    put(fs, (*home, "f"))
    take_lock(fs, (*home, "f"), timeout_s=1)
    _wait_until(lambda: fs.lookup((*home, "f"), with_locks=True).locks == ())
    put(fs, (*home, "f"), b"y")


def _wait_until(holds: Any) -> None:
    deadline = time.monotonic() + 10
    pause = threading.Event()
    while not holds():
        assert time.monotonic() < deadline, "nothing happened in time"
        pause.wait(0.05)


# Trash, feed, usage


def test_trash(fs: FileSystem, home: Path) -> None:
    fs.make_directory((*home, "d"))
    put(fs, (*home, "d", "f"), b"precious")
    principal = uuid.uuid4().hex
    fs.remove((*home, "d"), condition=Condition(principal=principal))
    (item,) = fs.list_trash(principal=principal)
    assert (item.path, item.kind, item.principal) == ("/" + "/".join((*home, "d")), Kind.DIRECTORY, principal)
    put(fs, (*home, "d"))
    with pytest.raises(errors.EntryExistsError):
        fs.restore(item.id)
    fs.restore(item.id, (*home, "back"))
    assert get(fs, (*home, "back", "f")) == b"precious"
    assert fs.list_trash(principal=principal) == ()
    with pytest.raises(errors.EntryNotFoundError):
        fs.restore(item.id)
    fs.remove((*home, "back"), condition=Condition(principal=principal))
    (item,) = fs.list_trash(principal=principal)
    fs.empty_trash((item.id,))
    assert fs.list_trash(principal=principal) == ()


def test_feed(fs: FileSystem, home: Path) -> None:
    start = fs.stat(()).revision
    put(fs, (*home, "f"))
    fs.move((*home, "f"), (*home, "g"), overwrite=False)
    put(fs, (*home, "f"))
    fs.copy((*home, "f"), (*home, "g"), overwrite=True)
    fs.move((*home, "f"), (*home, "g"), overwrite=True)
    fs.remove((*home, "g"))
    changes, last = fs.read_feed(start)
    mine = [change for change in changes if change.path.startswith("/" + home[0])]
    assert [change.verb for change in mine] == ["commit", "move", "commit", "copy", "move", "remove"]
    assert [change.replaced for change in mine] == [None, None, None, Kind.FILE, Kind.FILE, None]
    assert mine[1].source.endswith("/f")
    assert [c.sequence for c in mine] == sorted(c.sequence for c in mine)
    assert last >= mine[-1].sequence
    assert fs.read_feed(last)[0] == ()


def test_usage(fs: FileSystem, home: Path) -> None:
    before = fs.usage()
    put(fs, (*home, "f"), b"x" * 1000)
    fs.make_directory((*home, "d"))
    after = fs.usage()
    assert after.file_count == before.file_count + 1
    assert after.directory_count == before.directory_count + 1
    assert after.file_bytes == before.file_bytes + 1000
