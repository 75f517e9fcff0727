"""What is remembered of large files: it is of one revision, survives damage, and does not grow without end."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from syncagent.bases import BASES_MAX, Bases, Basis
from syncagent.signature import Signature


@pytest.mark.parametrize(
    "damage", [b"", b"{}", b'{"etag": 1}', b"[1]", pytest.param(random.Random(1).randbytes(100), id="noise")]
)
def test_what_cannot_be_read_is_not_remembered(tmp_path: Path, damage: bytes) -> None:
    bases = Bases(tmp_path)
    bases.save("r", Basis('"1"', bytes(32), ()))
    [file] = tmp_path.iterdir()
    file.write_bytes(damage)
    assert bases.load("r") is None


def test_a_signature_belongs_to_its_revision(tmp_path: Path) -> None:
    bases = Bases(tmp_path)
    bases.save("r", Basis('"2"', bytes(32), ()))
    bases.add_signature("r", '"1"', Signature(65536, ()))
    assert bases.load("r") == Basis('"2"', bytes(32), ())
    bases.add_signature("r", '"2"', Signature(65536, ()))
    assert bases.load("r") == Basis('"2"', bytes(32), (), Signature(65536, ()))
    assert Bases(None).load("r") is None


def test_what_was_written_longest_ago_is_forgotten(tmp_path: Path) -> None:
    bases = Bases(tmp_path)
    for number in range(BASES_MAX + 3):
        bases.save(str(number), Basis('"1"', bytes(32), ()))
        if number < 3:
            [fresh] = [file for file in tmp_path.iterdir() if file.stat().st_mtime > 2]
            os.utime(fresh, (1, 1))
    assert len(list(tmp_path.iterdir())) == BASES_MAX
    assert [bases.load(str(number)) for number in range(3)] == [None] * 3
