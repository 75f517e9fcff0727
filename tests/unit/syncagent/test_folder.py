"""The local disk: nothing is replaced or deleted that is not what was expected, whenever it was saved."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from helenite.core.clock import Clock
from helenite.core.errors import (
    EntryExistsError,
    EntryNotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    UnavailableError,
)
from syncagent import folder as folder_module
from syncagent import renames
from syncagent.folder import LocalFolder
from syncagent.model import Kind, LocalStamp
from syncagent.names import STATE_DIRECTORY
from syncagent.ports import Attributes, Content
from tests.support.sync_world import disturbing

OLD_MS = 1_500_000_000_000


class ClockOfNow(Clock):
    pass


@pytest.fixture
def folder(tmp_path: Path) -> LocalFolder:
    return LocalFolder(tmp_path, ClockOfNow())


def stamp(folder: LocalFolder, *path: str) -> LocalStamp:
    found = folder.see(path)
    assert found is not None
    return found.stamp


def download(folder: LocalFolder, content: bytes, *, executable: bool | None = None) -> Content:
    staged = folder.staging_file("key")
    staged.write_bytes(content)
    return Content(Kind.FILE, staged, hashlib.sha256(content).digest(), Attributes(OLD_MS, executable))


def trash(root: Path) -> list[bytes]:
    return [path.read_bytes() for path in (root / STATE_DIRECTORY / "trash").rglob("*") if path.is_file()]


def nothing_goes_along(_path: tuple[str, ...], _kind: Kind) -> bool:
    return False


def staged(root: Path) -> list[Path]:
    return list((root / STATE_DIRECTORY / "staging").iterdir())


def test_install_a_new_file(folder: LocalFolder, tmp_path: Path) -> None:
    found = folder.install(("a",), download(folder, b"new"), None)
    assert (tmp_path / "a").read_bytes() == b"new"
    assert found == stamp(folder, "a")
    assert found.mtime_ns == OLD_MS * 1_000_000
    assert not staged(tmp_path)


def test_install_never_replaces_what_is_not_known(folder: LocalFolder, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"mine")
    with pytest.raises(EntryExistsError):
        folder.install(("a",), download(folder, b"new"), None)
    assert (tmp_path / "a").read_bytes() == b"mine"
    assert [path.name[:5] for path in staged(tmp_path)] == ["part-"], "kept to go on with"


def test_install_replaces_what_is_known_and_keeps_its_permissions(folder: LocalFolder, tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"old")
    file.chmod(0o640)
    os.utime(file, ns=(0, 0))
    folder.install(("a",), download(folder, b"new"), stamp(folder, "a"))
    assert file.read_bytes() == b"new"
    assert file.stat().st_mode & 0o777 == 0o640
    assert not staged(tmp_path)
    assert not trash(tmp_path), "an old revision that nobody wrote to lately needs no place in the trash"


def test_install_refuses_what_was_saved_since_the_scan(folder: LocalFolder, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    known = stamp(folder, "a")
    (tmp_path / "a").write_bytes(b"mine")
    with pytest.raises(PreconditionFailedError):
        folder.install(("a",), download(folder, b"new"), known)
    assert (tmp_path / "a").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("phase", "save", "can_exchange"),
    [
        ("before", "in place", True),
        ("before", "safe save", True),
        ("after", "in place", True),
        ("after", "safe save", True),
        ("before", "in place", False),  # without an exchange of names, the window of a safe save cannot be closed
    ],
)
def test_an_edit_in_the_last_microsecond_survives(
    phase: str, save: str, can_exchange: bool, folder: LocalFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"old")
    os.utime(file, ns=(0, 0))
    known = stamp(folder, "a")

    def edit(now: str, name: str) -> None:
        if (now, name) == (phase, "exchange"):
            fresh = tmp_path / "a~" if save == "safe save" else file
            fresh.write_bytes(b"saved by a person")
            fresh.replace(file)

    if not can_exchange:

        def refuse(_one: str, _other: str) -> bool:
            edit("before", "exchange")
            return False

        monkeypatch.setattr(folder_module, "exchange", refuse)
    with disturbing(monkeypatch, edit):
        try:
            found = folder.install(("a",), download(folder, b"new"), known)
            assert found != stamp(folder, "a"), "the next scan must see that it was saved"
        except PreconditionFailedError:
            pass
    assert b"saved by a person" in [file.read_bytes(), *trash(tmp_path)]


def test_move_never_replaces(folder: LocalFolder, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    (tmp_path / "d").mkdir()
    (tmp_path / "e").mkdir()
    with pytest.raises(EntryExistsError):
        folder.move(("a",), ("b",), stamp(folder, "a"))
    with pytest.raises(EntryExistsError):
        folder.move(("d",), ("e",), stamp(folder, "d"))
    found = folder.move(("a",), ("d", "a"), stamp(folder, "a"))
    assert (tmp_path / "d" / "a").read_bytes() == b"1"
    assert found == stamp(folder, "d", "a")


def test_moves_without_help_of_the_system(folder: LocalFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renames, "_SYSTEM", None)
    test_move_never_replaces(folder, tmp_path)
    assert not renames.exchange(str(tmp_path / "b"), str(tmp_path / "d"))


def test_a_moved_file_is_the_expected_one(folder: LocalFolder, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    known = stamp(folder, "a")
    (tmp_path / "a").write_bytes(b"22")
    with pytest.raises(PreconditionFailedError):
        folder.move(("a",), ("b",), known)


def test_trash_takes_a_tree_that_is_as_known(folder: LocalFolder, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_bytes(b"1")
    folder.trash(("d",), {("d",): stamp(folder, "d"), ("d", "a"): stamp(folder, "d", "a")}, nothing_goes_along)
    assert not (tmp_path / "d").exists()
    assert trash(tmp_path) == [b"1"]


@pytest.mark.parametrize("change", ["new", "edited"])
def test_trash_puts_back_what_changed_in_between(
    change: str, folder: LocalFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_bytes(b"1")
    known = {("d",): stamp(folder, "d"), ("d", "a"): stamp(folder, "d", "a")}

    def edit(phase: str, _name: str) -> None:
        if phase == "before" and (tmp_path / "d").exists():
            (tmp_path / "d" / ("b" if change == "new" else "a")).write_bytes(b"22")

    with disturbing(monkeypatch, edit), pytest.raises(PreconditionFailedError):
        folder.trash(("d",), known, nothing_goes_along)
    assert b"22" in [path.read_bytes() for path in (tmp_path / "d").iterdir()]


def test_what_is_not_synced_goes_along(folder: LocalFolder, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "ignored").write_bytes(b"1")
    folder.trash(("d",), {("d",): stamp(folder, "d")}, lambda path, _kind: path[-1] == "ignored")
    assert trash(tmp_path) == [b"1"]


def test_links_are_kept_and_not_followed(folder: LocalFolder, tmp_path: Path) -> None:
    outside = tmp_path.parent / "outside"
    outside.mkdir()
    (tmp_path / "out").symlink_to(outside)
    listing = folder.list(())
    assert [(seen.name, seen.kind) for seen in listing.entries] == [("out", Kind.LINK)]
    assert folder.digest(("out",), stamp(folder, "out")) == hashlib.sha256(os.fsencode(outside)).digest()
    with pytest.raises(PreconditionFailedError):
        folder.install(("out", "a"), download(folder, b"escaped"), None)
    with pytest.raises(PreconditionFailedError):
        folder.make_directory(("out", "d"))
    assert not list(outside.iterdir())


def test_installing_a_link(folder: LocalFolder, tmp_path: Path) -> None:
    content = download(folder, b"../somewhere")
    folder.install(("a",), Content(Kind.LINK, content.staged, content.digest, content.attributes), None)
    assert str((tmp_path / "a").readlink()) == "../somewhere"


def test_executable(folder: LocalFolder, tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"#!")
    file.chmod(0o644)
    found = folder.set_attributes(("a",), stamp(folder, "a"), Attributes(None, executable=True))
    assert found.executable
    assert file.stat().st_mode & 0o777 == 0o755
    assert not folder.set_attributes(("a",), found, Attributes(OLD_MS, executable=False)).executable
    assert file.stat().st_mtime_ns == OLD_MS * 1_000_000


def test_what_is_listed(folder: LocalFolder, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / STATE_DIRECTORY).mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff")).write_bytes(b"1")
    listing = folder.list(())
    assert [seen.name for seen in listing.entries] == ["a"]
    assert len(listing.unreadable) == 1
    with pytest.raises(EntryNotFoundError):
        folder.list(("missing",))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_cannot_be_read(folder: LocalFolder, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o000)
    with pytest.raises(PermissionDeniedError):
        folder.list(("d",))


def test_recovery_keeps_what_is_not_a_download(folder: LocalFolder, tmp_path: Path) -> None:
    staging = folder.staging_file("key").parent
    (staging / f"ready-{hashlib.sha256(b'download').hexdigest()}-1").write_bytes(b"download")
    (staging / f"ready-{hashlib.sha256(b'other').hexdigest()}-2").write_bytes(b"swapped out, not looked at yet")
    (staging / "part-1").write_bytes(b"beginning")
    folder.recover()
    assert [path.name for path in staged(tmp_path)] == ["part-1"]
    assert trash(tmp_path) == [b"swapped out, not looked at yet"]


def test_marker(folder: LocalFolder, tmp_path: Path) -> None:
    assert folder.marker() is None
    folder.mark("pair-1")
    assert folder.marker() == "pair-1"
    with pytest.raises(UnavailableError):
        LocalFolder(tmp_path / "missing", ClockOfNow()).marker()


def test_flushing_few_and_many(folder: LocalFolder, tmp_path: Path) -> None:
    paths = [(f"f{number}",) for number in range(20)]
    for path in paths:
        (tmp_path / path[0]).write_bytes(b"1")
    folder.flush(paths[:2])
    folder.flush(paths)
    folder.flush([("gone",)])
