"""The segment that is appended to: records in file order, and group commit.

Used by `segments`. Appends are written under one lock. Whoever waits for durability either syncs, for all that has been
written by then, or waits for the one who does. So an acknowledged record has everything before it on disk too, and a
scan after a crash that stops at a torn record loses nothing acknowledged. Zeros are written ahead of small records: a
sync of what replaces them concerns data alone and not the size of the file, which takes half the time. Thread-safe.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from pathlib import Path

from helenite.chunkserver.disk import Buffer, sync_directory, write_all
from helenite.core.errors import UnavailableError
from helenite.core.model import MIB

log = logging.getLogger(__name__)

AHEAD_BYTES = MIB
"""Zeros written at once: as much as some hundred small records take."""
SMALL_BYTES = 64 * 1024
"""Larger records take so long to write that the size of the file does not matter."""


class Appender:
    """One segment file under construction."""

    def __init__(self, path: Path, number: int, *, ahead_bytes: int = 0) -> None:
        self.number = number
        self._zeros = bytes(ahead_bytes)
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        sync_directory(path.parent)
        self._append = threading.Lock()  # guards the two below and the order of writes
        self.end = 0
        self._zeroed = 0
        self._changed = threading.Condition()  # guards everything below; may be taken inside _append
        self._written = 0
        self._synced = 0
        self._synced_end = 0
        self._is_syncing = False
        self.has_failed = False
        """Once the disk has failed to write or sync, nothing about the tail can be believed: no more is appended."""
        self.sync_count = 0
        """How often it was synced; with group commit, less often than appended."""

    def close(self) -> None:
        """Nobody may be inside any more."""
        if self._zeroed > self.end:
            try:
                os.ftruncate(self._descriptor, self.end)
            except OSError as error:
                log.warning("segment %s keeps zeros at its end: %s", self._path.name, error)
        os.close(self._descriptor)

    def append(self, pieces: list[Buffer]) -> tuple[int, int]:
        """Write one record; its offset, and the ticket to wait with. It is not durable yet.

        OSError when it cannot be written; nothing of it stays then.
        """
        size = sum(map(len, pieces))
        with self._append:
            if self.has_failed:
                raise OSError(errno.EIO, "an earlier write to the same segment failed")
            offset = self.end
            self._write_ahead(offset, offset + size)
            try:
                write_all(self._descriptor, pieces, offset)
            except OSError as error:
                self._take_back(offset, error)
                raise
            self.end = offset + size
            with self._changed:
                self._written += 1
                return offset, self._written

    def _write_ahead(self, offset: int, end: int) -> None:
        """See that a small record replaces zeros; without room for them it does without."""
        if not self._zeros or end <= self._zeroed or end - offset > SMALL_BYTES:
            return
        start = max(offset, self._zeroed)
        try:
            self._zeroed = start + os.pwrite(self._descriptor, self._zeros, start)
        except OSError as error:
            log.info("segment %s: no zeros are written ahead: %s", self._path.name, error)

    def _take_back(self, offset: int, why: OSError) -> None:
        """Remove a half-written record. A full disk is no reason to give the segment up, anything else is."""
        self.has_failed = why.errno not in {errno.ENOSPC, errno.EDQUOT}
        self._zeroed = min(self._zeroed, offset)
        try:
            os.ftruncate(self._descriptor, offset)
        except OSError as error:
            log.warning("segment %s keeps a torn record: %s", self._path.name, error)
            self.has_failed = True

    def wait_durable(self, ticket: int) -> None:
        """Return when the record of this ticket is on disk.

        OSError when the sync fails, UnavailableError for the others who waited for it.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._synced >= ticket or self.has_failed or not self._is_syncing)
                if self._synced >= ticket:
                    return
                if self.has_failed:
                    raise UnavailableError("the disk failed to make a write durable")
                self._is_syncing = True
                target, end = self._written, self.end
            self._sync(target, end)

    def _sync(self, target: int, end: int) -> None:
        is_done = False
        try:
            os.fdatasync(self._descriptor)
            is_done = True
        finally:
            with self._changed:
                self._is_syncing = False
                self.sync_count += 1
                if is_done:
                    self._synced, self._synced_end = target, end
                else:
                    self.has_failed = True
                self._changed.notify_all()

    def finish(self) -> None:
        """Make all that was appended durable; after a failure there is nothing to be done."""
        with self._changed:
            ticket = self._written
        if not self.has_failed:
            self.wait_durable(ticket)

    def cut_failed_tail(self) -> None:
        """After a failure: remove what was never acknowledged, so that no later start finds it."""
        with self._append:
            if self.has_failed and self.end > self._synced_end:
                try:
                    os.ftruncate(self._descriptor, self._synced_end)
                except OSError as error:
                    log.warning("segment %s keeps records that were not acknowledged: %s", self._path.name, error)
                else:
                    self.end = self._zeroed = self._synced_end
