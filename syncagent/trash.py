"""Empties the local trash of a pair by and by: what was deleted elsewhere, or replaced here, stays for some weeks.

Used by `daemon`, each hour. `folder` puts each thing into a directory of its own that tells when; whatever else lies in
the trash is a person's, and stays. Which go is decided by a pure function. One thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path as FilePath

log = logging.getLogger(__name__)

DAY_MS = 24 * 3600 * 1000
DISK_SHARE = 0.1
"""Of the disk, for a trash that nobody gave another limit."""
SHORT_SHARE = 0.05
"""With less than this of the disk free, also what was deleted today may have to go."""
_NAME = re.compile(r"(\d{10,15})-\d+")


@dataclass(frozen=True, slots=True)
class Trashed:
    """One thing in the trash."""

    name: str
    at_ms: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long and how much is kept. `is_short`: the disk is nearly full."""

    keep_ms: int
    bytes_max: int
    is_short: bool = False


def choose_expired(trashed: Iterable[Trashed], now_ms: int, keeping: Keeping) -> list[Trashed]:
    """What is to go: what is too old, and of the rest the oldest until it is not too much.

    Nothing goes on its first day for being too much, so that a large deletion by mistake can be taken back; unless the
    disk is short.
    """
    by_age = sorted(trashed, key=lambda item: item.at_ms)
    total_bytes = sum(item.size_bytes for item in by_age)
    expired = []
    for item in by_age:
        age_ms = now_ms - item.at_ms
        is_much = total_bytes > keeping.bytes_max and (age_ms > DAY_MS or keeping.is_short)
        if age_ms > keeping.keep_ms or is_much:
            expired.append(item)
            total_bytes -= item.size_bytes
    return expired


def empty_trash(trash: FilePath, now_ms: int, days: int, bytes_max: int | None) -> list[Trashed]:
    """Remove what has expired; what that was. `bytes_max` None: a tenth of the disk.

    Trouble with one thing is logged, and it is tried again the next time.
    """
    if not trash.is_dir():
        return []
    disk = shutil.disk_usage(trash)
    limit = int(disk.total * DISK_SHARE) if bytes_max is None else bytes_max
    keeping = Keeping(days * DAY_MS, limit, is_short=disk.free < disk.total * SHORT_SHARE)
    gone = []
    for item in choose_expired(_list(trash), now_ms, keeping):
        try:
            _remove(trash / item.name)
            gone.append(item)
        except OSError as error:
            log.warning("%s cannot be removed from the trash: %s", trash / item.name, error)
    return gone


def _list(trash: FilePath) -> list[Trashed]:
    found = []
    for entry in os.scandir(trash):
        match = _NAME.fullmatch(entry.name)
        if match is not None and entry.is_dir(follow_symlinks=False):
            found.append(Trashed(entry.name, int(match[1]), _size(entry.path)))
    return found


def _size(directory: str) -> int:
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):  # it goes away while we look: nothing to count
                total += FilePath(parent, name).lstat().st_size
    return total


def _remove(holder: FilePath) -> None:
    """Remove with all that is in it, also what was in directories that nobody might write to."""
    for parent, directories, _ in os.walk(holder):
        for name in directories:
            directory = FilePath(parent, name)
            if not directory.is_symlink():
                directory.chmod(stat.S_IMODE(directory.lstat().st_mode) | stat.S_IRWXU)
    shutil.rmtree(holder)
