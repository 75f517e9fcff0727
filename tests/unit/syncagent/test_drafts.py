"""What is remembered of uploads that have begun."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from syncagent.drafts import DRAFT_MS_MAX, Draft, Drafts


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b'{"target": "/f", "path": "x", "digest": "0", "state": ""}'])
def test_what_cannot_be_read_is_no_draft(tmp_path: Path, damage: bytes) -> None:
    drafts = Drafts(tmp_path)
    drafts.save(Draft(("f",), ("d",), bytes(32), "s"))
    assert drafts.load(("f",)) == Draft(("f",), ("d",), bytes(32), "s")
    [file] = tmp_path.iterdir()
    file.write_bytes(damage)
    assert drafts.load(("f",)) is None
    os.utime(file, (1, 1))
    assert list(drafts.abandoned(10 * DRAFT_MS_MAX)) == []
    assert not file.exists()
