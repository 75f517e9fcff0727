"""Content: written, read, small files together, digests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from helenite.client.filesystem import FileSystem
from helenite.client.smallfiles import SmallFile
from helenite.core import errors
from helenite.core.model import Condition, Kind
from helenite.core.paths import Path
from tests.support.contract import ABSENT, get, put


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
