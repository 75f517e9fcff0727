"""What this device has begun to bring over: remembered over a crash, bounded, and forgotten when it is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncagent import underway
from syncagent.model import Tree
from syncagent.underway import UnderWay


def test_it_survives_the_process(tmp_path: Path) -> None:
    file = tmp_path / "underway"
    first = UnderWay(file)
    first.note(Tree.REMOTE, [(("d", "a\nb"), b"\x01"), (("c",), b"\x02")])
    first.note(Tree.LOCAL, [(("c",), b"\x03")])
    first.note_move(("d", "b"), "urn:1")
    with file.open("a") as stream:
        stream.write('["remote", "torn')  # the process died while it wrote this line
    second = UnderWay(file)
    assert second.has(Tree.REMOTE, ("renamed by now", "a\nb"), b"\x01")
    assert second.has(Tree.REMOTE, ("c",), b"\x02")
    assert second.has(Tree.LOCAL, ("c",), b"\x03")
    assert not second.has(Tree.REMOTE, ("c",), b"\x01")
    assert not second.has(Tree.LOCAL, ("c",), b"\x02")
    assert second.has_moved(("elsewhere", "b"), "urn:1")
    assert not second.has_moved(("d", "b"), "urn:2")
    assert not second.has_moved(("d", "c"), "urn:1")
    second.forget()
    assert not second.has(Tree.LOCAL, ("c",), b"\x03")
    assert not second.has_moved(("d", "b"), "urn:1")
    assert not file.exists()


def test_it_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(underway, "KEPT_MAX", 10)
    file = tmp_path / "underway"
    memory = UnderWay(file)
    for number in range(100):
        memory.note(Tree.LOCAL, [((str(number),), bytes([number]))])
        assert len(file.read_text().splitlines()) <= 20
    for found in (memory, UnderWay(file)):
        assert found.has(Tree.LOCAL, ("99",), bytes([99]))
        assert found.has(Tree.LOCAL, ("90",), bytes([90]))
        assert not found.has(Tree.LOCAL, ("89",), bytes([89]))
