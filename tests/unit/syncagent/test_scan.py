"""Who is who after a look at the local disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from helenite.core.clock import Clock
from helenite.core.errors import PermissionDeniedError, UnavailableError
from syncagent.folder import LocalFolder
from syncagent.journal import Journal, open_journal
from syncagent.model import NodeId, Tree, path_of
from syncagent.names import NameRules
from syncagent.scan import LocalLook, scan
from syncagent.selection import Selection


class Disk:
    """A folder, its journal, and who was who at the last look."""

    def __init__(self, root: Path, journal: Journal) -> None:
        self.root = root
        self.journal = journal
        self.folder = LocalFolder(root, Clock())

    def look(self, *dirty: str, rules: NameRules | None = None) -> LocalLook:
        paths = [tuple(path.split("/")) if path else () for path in dirty] if dirty else None
        return scan(self.folder, self.journal, Selection(), rules or NameRules(), paths)

    def nodes(self) -> dict[str, NodeId]:
        """Path -> node."""
        found = {}
        stack = [NodeId(0)]
        while stack:
            for child in self.journal.children(Tree.LOCAL, stack.pop()):
                found["/".join(path_of(self.journal, Tree.LOCAL, child))] = child
                stack.append(child)
        return found

    def write(self, path: str, content: str = "1") -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        return file


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    root = tmp_path / "folder"
    root.mkdir()
    return Disk(root, open_journal(tmp_path / "journal", "damaged"))


def test_a_look_finds_everything_once(disk: Disk) -> None:
    disk.write("d/e/a")
    disk.write("b")
    look = disk.look()
    assert look.entry_count == 4
    assert set(disk.nodes()) == {"d", "d/e", "d/e/a", "b"}
    before = disk.nodes()
    assert not disk.look().gone
    assert disk.nodes() == before


@pytest.mark.parametrize("dirty", [(), ("", "d", "e")])
def test_a_moved_file_and_a_moved_directory(disk: Disk, dirty: tuple[str, ...]) -> None:
    disk.write("d/a")
    disk.write("d/sub/b")
    disk.write("e/x")
    disk.look()
    before = disk.nodes()
    (disk.root / "d" / "a").rename(disk.root / "e" / "a2")
    (disk.root / "d" / "sub").rename(disk.root / "e" / "sub2")
    look = disk.look(*dirty)
    after = disk.nodes()
    assert after["e/a2"] == before["d/a"]
    assert after["e/sub2"] == before["d/sub"]
    assert after["e/sub2/b"] == before["d/sub/b"]
    assert not look.gone


def test_a_move_of_which_only_the_arrival_is_known_to_be_dirty(disk: Disk) -> None:
    disk.write("d/a")
    disk.write("e/x")
    disk.look()
    before = disk.nodes()
    (disk.root / "d" / "a").rename(disk.root / "e" / "a")
    disk.look("e")
    assert disk.nodes()["e/a"] == before["d/a"]
    assert "d/a" not in disk.nodes()


def test_a_dirty_directory_that_was_moved_with_the_one_around_it(disk: Disk) -> None:
    disk.write("d/e/a")
    disk.look()
    before = disk.nodes()
    (disk.root / "d").rename(disk.root / "x")
    disk.write("x/e/b")
    look = disk.look("", "d/e")
    assert not look.gone
    after = disk.nodes()
    assert (after["x/e"], after["x/e/a"]) == (before["d/e"], before["d/e/a"])
    assert "x/e/b" in after


def test_exchanged_directories(disk: Disk) -> None:
    disk.write("a/x")
    disk.write("b/y")
    disk.look()
    before = disk.nodes()
    (disk.root / "a").rename(disk.root / "t")
    (disk.root / "b").rename(disk.root / "a")
    (disk.root / "t").rename(disk.root / "b")
    assert not disk.look().gone
    after = disk.nodes()
    assert (after["a"], after["b"], after["a/y"], after["b/x"]) == (
        before["b"],
        before["a"],
        before["b/y"],
        before["a/x"],
    )


def test_a_hierarchy_turned_around(disk: Disk) -> None:
    disk.write("a/b/x")
    disk.look()
    before = disk.nodes()
    (disk.root / "a" / "b").rename(disk.root / "b")
    (disk.root / "a").rename(disk.root / "b" / "a")
    assert not disk.look().gone
    after = disk.nodes()
    assert (after["b"], after["b/a"], after["b/x"]) == (before["a/b"], before["a"], before["a/b/x"])


def test_a_safe_save_is_the_same_file(disk: Disk) -> None:
    file = disk.write("a", "old")
    disk.look()
    before = disk.nodes()
    disk.write("a~", "new").replace(file)
    disk.look("")
    assert disk.nodes() == before


def test_a_hard_link_is_another_file(disk: Disk) -> None:
    disk.write("a")
    disk.look()
    before = disk.nodes()
    os.link(disk.root / "a", disk.root / "b")
    disk.look()
    assert disk.nodes()["a"] == before["a"]
    assert disk.nodes()["b"] != before["a"]


def test_a_reused_inode_is_another_file(disk: Disk) -> None:
    first = disk.write("a", "old content")
    disk.look()
    before = disk.nodes()["a"]
    inode = first.stat().st_ino
    first.unlink()
    for number in range(50):  # until the file system gives the inode out again
        if disk.write(f"b{number}", "new").stat().st_ino == inode:
            break
    look = disk.look()
    assert look.gone == [before]
    assert before not in disk.nodes().values()


def test_a_conflict_copy_is_never_the_file_moved(disk: Disk) -> None:
    disk.write("a")
    disk.look()
    before = disk.nodes()["a"]
    copy = "a (conflicted copy 2026-11-24 anna)"
    (disk.root / "a").rename(disk.root / copy)
    assert disk.look().gone == [before]
    assert disk.nodes()[copy] != before


def test_what_comes_back_is_the_same_node(disk: Disk) -> None:
    disk.write("d/a")
    disk.look()
    shutil.rmtree(disk.root / "d")
    assert len(disk.look().gone) == 2
    assert disk.nodes() == {}


def test_a_directory_that_cannot_be_read_is_not_gone(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.write("d/a")
    disk.look()
    before = disk.nodes()
    honest = disk.folder.list

    def refuse(path: tuple[str, ...]) -> object:
        if path == ("d",):
            raise PermissionDeniedError("no")
        return honest(path)

    monkeypatch.setattr(disk.folder, "list", refuse)
    look = disk.look()
    assert [trouble.path for trouble in look.troubles] == [("d",)]
    assert disk.nodes() == before


def test_a_look_that_breaks_off_leaves_no_trace(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.write("d/a")
    disk.write("e/b")
    disk.look()
    before = disk.nodes()
    honest = disk.folder.list

    def fail(path: tuple[str, ...]) -> object:
        if path == ("e",):
            raise UnavailableError("the disk is gone")
        return honest(path)

    (disk.root / "d" / "a").unlink()
    monkeypatch.setattr(disk.folder, "list", fail)
    with pytest.raises(UnavailableError):
        disk.look()
    assert disk.nodes() == before


def test_a_rename_of_case_only_where_the_disk_takes_no_notice_of_it(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.write("foo")
    disk.look()
    before = disk.nodes()
    (disk.root / "foo").rename(disk.root / "Foo")
    honest = disk.folder.see
    monkeypatch.setattr(disk.folder, "see", lambda path: honest(("Foo",)) if path == ("foo",) else honest(path))
    disk.look(rules=NameRules(ignores_case=True))
    assert disk.nodes() == {"Foo": before["foo"]}


def test_spellings_that_the_disk_takes_for_one(disk: Disk) -> None:
    rules = NameRules(ignores_normalization=True)
    disk.write("e\u0301")
    disk.look(rules=rules)
    before = disk.nodes()
    assert set(before) == {"é"}
    (disk.root / "e\u0301").rename(disk.root / "é")
    disk.look(rules=rules)
    assert disk.nodes() == before


def test_dirty_directories_that_are_gone_or_unknown(disk: Disk) -> None:
    disk.write("d/e/a")
    disk.look()
    shutil.rmtree(disk.root / "d")
    disk.look("d/e", "d", "never/was", "")
    assert disk.nodes() == {}


@pytest.mark.parametrize("is_replaced", [True, False])
def test_a_directory_that_went_away_is_looked_for_and_not_emptied(disk: Disk, *, is_replaced: bool) -> None:
    """Another one of its name says nothing of what was in it."""
    disk.write("a/d/f")
    disk.write("a/d/e/g")
    disk.look()
    before = disk.nodes()
    (disk.root / "a" / "d").rename(disk.root / "a" / "moved")
    if is_replaced:
        (disk.root / "a" / "d").mkdir()
    look = disk.look("a/d/e", "a/d")
    assert look.gone == []
    after = disk.nodes()
    assert [after[path] for path in ("a/moved", "a/moved/f", "a/moved/e", "a/moved/e/g")] == [
        before[path] for path in ("a/d", "a/d/f", "a/d/e", "a/d/e/g")
    ]
    assert ("a/d" in after) is is_replaced
