"""What this device has begun to bring over: remembered over a crash, bounded, and forgotten when it is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncagent import underway
from syncagent.model import Tree
from syncagent.underway import Carried, Moved, UnderWay


def test_it_survives_the_process(tmp_path: Path) -> None:
    file = tmp_path / "underway"
    first = UnderWay(file, "boot")
    assert first.is_empty
    sent = Carried(Tree.LOCAL, "a\nb", b"\x01", (1 << 64) - 1, "", "urn:d")
    first.note([sent, Carried(Tree.LOCAL, "c", b"\x02", 2, "urn:2")])
    coming = Carried(Tree.REMOTE, "c", b"\x01", 3, "urn:3")
    first.note([coming])
    first.note([Moved("urn:1", "b"), Moved((1 << 64) - 1, "c")])
    with file.open("a") as stream:
        stream.write('["remote", "torn')  # the process died while it wrote this line
    second = UnderWay(file, "boot")
    assert not second.is_empty
    assert second.of_content(b"\x01", "a\nb", "c") == (sent, coming)
    assert second.of_content(b"\x01", 3, "urn:3", "c") == (coming,)
    assert not second.of_content(b"\x01", "b", 2, "urn:2")
    assert not second.of_content(b"\x01")
    assert second.of_inode(3) == (coming,)
    assert second.of_inode((1 << 64) - 1) == (sent,)
    assert not second.of_inode(4)
    assert not second.of_content(b"\x03", "a\nb", "c")
    assert second.has_moved("urn:1", "b")
    assert second.has_moved((1 << 64) - 1, "c")
    assert not second.has_moved("urn:2", "b")
    assert not second.has_moved("urn:1", "c")
    assert not second.has_moved(1, "c")
    second.forget()
    assert second.is_empty
    assert not second.of_content(b"\x01", "a\nb", "c")
    assert not second.of_inode(3)
    assert not second.has_moved("urn:1", "b")
    assert not file.exists()


def test_what_is_written_down_is_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "underway"
    memory = UnderWay(file, "boot")
    one, other = (Carried(Tree.LOCAL, name, b"\x01", 1, "", "urn:d", f"d/{name}") for name in "ab")
    memory.note([one, other, other])
    memory.end([one, other])
    for each in (memory, UnderWay(file, "boot")):
        assert each.of_content(b"\x01", "a", "b") == (other,)
    memory.end([other])
    memory.note([Moved("urn:1", "b"), Moved("urn:1", "c")])
    memory.end([Moved("urn:1", "b"), Moved("urn:2", "never noted")])
    for one in (memory, UnderWay(file, "boot")):
        assert not one.has_moved("urn:1", "b")
        assert one.has_moved("urn:1", "c")
    memory.end([Moved("urn:1", "c")])
    assert memory.is_empty
    assert not file.exists()
    memory.note([other])
    memory.forget()
    assert not file.exists()


def test_what_the_version_before_wrote_is_read(tmp_path: Path) -> None:
    file = tmp_path / "underway"
    carried = '"local", "a", "01", 1, "", "urn:d", "d/a"'
    file.write_text(f'boot\n[{carried}]\n["urn:1", "b"]\n["urn:1", "c"]\n[{carried}]\n[{carried}, "done"]\n')
    with file.open("a") as stream:
        stream.write('["urn:1", "b", "done"]\n')
    memory = UnderWay(file, "boot")
    assert memory.of_content(b"\x01", "a") == (Carried(Tree.LOCAL, "a", b"\x01", 1, "", "urn:d", "d/a"),)
    assert memory.has_moved("urn:1", "c")
    assert not memory.has_moved("urn:1", "b")


def test_trouble_with_the_file_stops_nothing(tmp_path: Path) -> None:
    file = tmp_path / "missing" / "underway"
    memory = UnderWay(file, "boot")
    one, other = Moved("urn:1", "b"), Moved("urn:2", "b")
    memory.note([one])
    memory.note([other])
    memory.end([one])
    assert memory.has_moved("urn:2", "b")
    file.parent.mkdir()
    memory.note([one])
    found = UnderWay(file, "boot")
    assert found.has_moved("urn:1", "b")
    assert found.has_moved("urn:2", "b")
    file.unlink()
    file.mkdir()
    memory.forget()
    assert memory.is_empty
    assert UnderWay(file, "boot").is_empty


def test_an_attempt_again_and_again_takes_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(underway, "KEPT_MAX", 10)
    file = tmp_path / "underway"
    memory = UnderWay(file, "boot")
    for _ in range(100):
        memory.note([Moved("urn:1", "b")])
        assert len(file.read_text().splitlines()) <= 21
    memory.end([Moved("urn:1", "b")])
    for each in (memory, UnderWay(file, "boot")):
        assert each.has_moved("urn:1", "b")
    memory.end([Moved("urn:1", "b")])
    for each in (memory, UnderWay(file, "boot")):
        assert each.is_empty


def test_what_an_earlier_version_wrote_is_nothing(tmp_path: Path) -> None:
    file = tmp_path / "underway"
    file.write_text('boot\n["remote", "a", "01"]\n["local", "a", "no digest", 1, "", ""]\n{}\n')
    assert UnderWay(file, "boot").is_empty


@pytest.mark.parametrize("boot", ["another boot", ""])
def test_after_a_power_cut_it_is_nothing(tmp_path: Path, boot: str) -> None:
    file = tmp_path / "underway"
    carried = Carried(Tree.LOCAL, "a", b"\x01", 1, "")
    UnderWay(file, "boot").note([carried])
    UnderWay(file, "boot").note([Moved("urn:1", "b")])
    later = UnderWay(file, boot)
    assert later.is_empty
    later.note([carried])
    assert later.of_inode(1) == (carried,)
    assert not UnderWay(file, boot).has_moved("urn:1", "b")
    assert UnderWay(file, boot).is_empty is (boot == "")


def test_it_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(underway, "KEPT_MAX", 10)
    file = tmp_path / "underway"
    memory = UnderWay(file, "boot")
    for number in range(100):
        memory.note([Carried(Tree.REMOTE, str(number), bytes([number]), number, "")])
        assert len(file.read_text().splitlines()) <= 21
    for found in (memory, UnderWay(file, "boot")):
        assert found.of_content(bytes([99]), "99")
        assert found.of_inode(90)
        assert not found.of_inode(89)
        assert not found.of_content(bytes([89]), "89")
