"""What this device has begun to send: remembered over a crash, bounded, and forgotten when it is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncagent import sendings
from syncagent.sendings import Sendings


def test_it_survives_the_process(tmp_path: Path) -> None:
    file = tmp_path / "sendings"
    first = Sendings(file)
    assert first.is_empty
    first.note([(("d", "a\nb"), b"\x01"), (("c",), b"\x02")])
    with file.open("a") as stream:
        stream.write('[["torn')  # the process died while it wrote this line
    second = Sendings(file)
    assert second.has(("d", "a\nb"), b"\x01")
    assert second.has(("c",), b"\x02")
    assert not second.has(("c",), b"\x01")
    assert not second.is_empty
    second.forget()
    assert second.is_empty
    assert not file.exists()
    assert Sendings(file).is_empty


def test_it_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sendings, "KEPT_MAX", 10)
    file = tmp_path / "sendings"
    memory = Sendings(file)
    for number in range(100):
        memory.note([((str(number),), bytes([number]))])
        assert len(file.read_text().splitlines()) <= 20
    for found in (memory, Sendings(file)):
        assert found.has(("99",), bytes([99]))
        assert found.has(("90",), bytes([90]))
        assert not found.has(("89",), bytes([89]))
