"""Large chunks, each a file of its own: written beside, synced, renamed into place.

Used by `store`. A file under its final name is complete. Thread-safe.
"""

from __future__ import annotations

import heapq
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from helenite.chunkserver.disk import Buffer, disk_errors, sync_directory, write_all
from helenite.chunkserver.layout import HEADER_BYTES, ChunkHeader, encode_header, length_in_file, record_bytes
from helenite.core.errors import ChunkCorruptError
from helenite.core.model import ChunkHandle

log = logging.getLogger(__name__)

FAN_OUT = 256
"""Directories that the files are spread over: a rename's directory sync stays cheap at a million files."""


class ChunkFiles:
    """All large chunks of one chunkserver."""

    def __init__(self, directory: Path, *, is_durable: bool) -> None:
        self._directory = directory
        self._is_durable = is_durable
        self._lock = threading.Lock()  # guards the two below
        self._lengths: dict[ChunkHandle, int] = {}
        self._live_bytes = 0
        with disk_errors(f"the chunks in {directory}"):
            self.unfinished = directory / "unfinished"
            self.unfinished.mkdir(parents=True, exist_ok=True)
            for leftover in self.unfinished.iterdir():
                leftover.unlink()
            for number in range(FAN_OUT):
                self._load(directory / f"{number:02x}")
            sync_directory(directory)

    def _load(self, place: Path) -> None:
        place.mkdir(exist_ok=True)
        with os.scandir(place) as files:
            for file in files:
                try:
                    handle = ChunkHandle(int(file.name, 16))
                except ValueError:
                    log.warning("%s is no chunk and is left alone", file.path)
                    continue
                self._note(handle, length_in_file(file.stat().st_size))

    def _note(self, handle: ChunkHandle, length: int) -> None:
        """It is here now, perhaps in place of a bad one."""
        replaced = self._lengths.get(handle)
        self._lengths[handle] = length
        self._live_bytes += record_bytes(length) - (0 if replaced is None else record_bytes(replaced))

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def live_bytes(self) -> int:
        return self._live_bytes

    def length(self, handle: ChunkHandle) -> int | None:
        """The length of a chunk that is here, as its file's size tells."""
        return self._lengths.get(handle)

    def handles(self) -> Iterator[ChunkHandle]:
        """All handles, rising; of those that are here at the first, the ones that still are when their turn comes."""
        with self._lock:
            found = sorted(self._lengths)
        return (handle for handle in found if handle in self._lengths)

    def after(self, handle: int, limit: int) -> list[ChunkHandle]:
        """The next handles above `handle`."""
        with self._lock:
            return heapq.nsmallest(limit, (found for found in self._lengths if found > handle))

    def open(self, handle: ChunkHandle) -> tuple[int, int] | None:
        """A descriptor of a chunk's file, for the caller to close, and the chunk's length."""
        length = self._lengths.get(handle)
        if length is None:
            return None
        try:
            return os.open(self._path(handle), os.O_RDONLY | os.O_CLOEXEC), length
        except FileNotFoundError:
            if handle not in self._lengths:  # deleted meanwhile
                return None
            raise ChunkCorruptError(f"the file of chunk {handle:x} is gone") from None

    def begin(self, handle: ChunkHandle, length: int) -> Unfinished:
        """A file to write the chunk's data into."""
        return Unfinished(self, handle, length)

    def finish(self, temporary: Path, descriptor: int, handle: ChunkHandle, length: int) -> None:
        """Sync a complete file and give it its name. When that fails, the chunk is not here."""
        final = self._path(handle)
        if self._is_durable:
            os.fdatasync(descriptor)
        temporary.rename(final)
        if self._is_durable:
            try:
                sync_directory(final.parent)
            except OSError:
                self._forget(handle)
                final.unlink(missing_ok=True)
                raise
        with self._lock:
            self._note(handle, length)

    def delete(self, handle: ChunkHandle) -> bool:
        """Whether it was here."""
        if not self._forget(handle):
            return False
        with disk_errors(f"deleting chunk {handle:x}"):
            self._path(handle).unlink(missing_ok=True)
        return True

    def _forget(self, handle: ChunkHandle) -> bool:
        with self._lock:
            length = self._lengths.pop(handle, None)
            if length is not None:
                self._live_bytes -= record_bytes(length)
            return length is not None

    def _path(self, handle: ChunkHandle) -> Path:
        return self._directory / f"{handle % FAN_OUT:02x}" / f"{handle:016x}"


class Unfinished:
    """A large chunk that is being written."""

    def __init__(self, files: ChunkFiles, handle: ChunkHandle, length: int) -> None:
        self._files = files
        self._handle = handle
        self._length = length
        self._path = files.unfinished / f"{handle:016x}"
        self._at = HEADER_BYTES
        with disk_errors(f"chunk {handle:x}"):
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                # All the space now: a full disk says so before the bytes travel, and the file lies in one piece.
                os.posix_fallocate(self._descriptor, 0, record_bytes(length))
                write_all(self._descriptor, [encode_header(ChunkHeader(handle, length))], 0)
            except OSError:
                self.abort()
                raise

    def write(self, piece: Buffer) -> None:
        with disk_errors(f"chunk {self._handle:x}"):
            write_all(self._descriptor, [piece], self._at)
        self._at += len(piece)

    def seal(self, checksums: bytes) -> None:
        """Make it durable under its name; `abort` it when this fails."""
        with disk_errors(f"chunk {self._handle:x}"):
            write_all(self._descriptor, [checksums], self._at)
            self._files.finish(self._path, self._descriptor, self._handle, self._length)
        os.close(self._descriptor)

    def abort(self) -> None:
        """Leave nothing behind; what a failing disk keeps, the next start removes."""
        try:
            os.close(self._descriptor)
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("the unfinished chunk %x stays until the next start: %s", self._handle, error)
