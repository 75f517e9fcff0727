"""Local files as the sync agent's scan sees them."""

from __future__ import annotations

from pathlib import Path

from syncagent.model import LocalStamp


def stamp_of(file: Path) -> LocalStamp:
    status = file.stat()
    return LocalStamp(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
