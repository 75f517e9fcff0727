"""Dumps of the metadata, kept beside the chunks: when Redis is lost with its disk, these bring the names back.

Used by `peers`. The leader says when (a reply to a heartbeat); the dump comes from a master's Admin service and counts
only when it is whole. One at a time; `fetch` runs in a thread of its own.
"""

from __future__ import annotations

import errno
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from helenite.chunkserver.disk import disk_errors, sync_directory
from helenite.core.dumpfile import check_dump, newest_dump
from helenite.core.errors import HeleniteError

log = logging.getLogger(__name__)

AGAIN_S = 60.0
"""Pause after a dump that failed: each try makes Redis fork."""


class Dumps:
    """The dumps in one data directory."""

    def __init__(self, directory: Path, kept: int, free_bytes: Callable[[], int]) -> None:
        self._directory = directory / "dumps"
        self._kept = kept
        self._free_bytes = free_bytes
        self._not_before_s = float("-inf")
        newest = newest_dump([self._directory]) if self._directory.is_dir() else None
        self.newest_at_ms = newest[1].created_at_ms if newest else 0
        """When the newest dump was made; 0 = there is none."""

    def may_try(self) -> bool:
        """Whether a dump may be fetched now: it is wanted here, and the last one has not just failed."""
        return self._kept > 0 and time.monotonic() >= self._not_before_s

    def fetch(self, pieces: Iterator[bytes]) -> None:
        """Keep one more dump and delete the oldest."""
        self._not_before_s = time.monotonic() + AGAIN_S
        try:
            with disk_errors("keeping a dump of the metadata"):
                self._directory.mkdir(exist_ok=True)
                self._keep(pieces)
                for path in sorted(self._directory.glob("*.dump"))[: -self._kept]:
                    path.unlink()
        except HeleniteError as error:
            log.warning("no dump of the metadata was kept: %s", error)
        else:
            self._not_before_s = float("-inf")

    def _keep(self, pieces: Iterator[bytes]) -> None:
        descriptor, name = tempfile.mkstemp(dir=self._directory, prefix="new-")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                for piece in pieces:
                    if self._free_bytes() < len(piece):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            header = check_dump(temporary)
            moment = datetime.fromtimestamp(header.created_at_ms / 1000, UTC)
            temporary.replace(self._directory / f"{moment:%Y%m%dT%H%M%SZ}.dump")
            sync_directory(self._directory)
            self.newest_at_ms = header.created_at_ms
        finally:
            temporary.unlink(missing_ok=True)
