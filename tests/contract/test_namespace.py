"""Names, directories, conditions, properties, the trash and the feed."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from helenite.client.filesystem import FileSystem
from helenite.core import errors
from helenite.core.model import Condition, Expect, Kind, LockScope, Sequence
from helenite.core.paths import Path
from tests.support.contract import ABSENT, PRESENT, get, names, put, take_lock


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
