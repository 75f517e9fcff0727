"""Large chunks, each a file of its own: written beside, synced, renamed into place.

Used by `store`. A file under its final name is complete. Thread-safe.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from helenite.chunkserver.disk import Buffer, disk_errors, sync_directory, write_all
from helenite.chunkserver.layout import HEADER_BYTES, Header, RecordKind, encode_header, record_bytes
from helenite.core.checksum import CHECKSUM_BYTES
from helenite.core.model import BLOCK_BYTES, ChunkHandle

FAN_OUT = 256
"""Directories that the files are spread over."""


class ChunkFiles:
    """All large chunks of one chunkserver."""

    def __init__(self, directory: Path, *, is_durable: bool) -> None:
        self._directory = directory
        self._is_durable = is_durable
        self._unfinished = directory / "unfinished"
        self._lock = threading.Lock()  # guards _lengths
        self._lengths: dict[ChunkHandle, int] = {}
        self._unfinished.mkdir(parents=True, exist_ok=True)
        for leftover in self._unfinished.iterdir():
            leftover.unlink()
        for number in range(FAN_OUT):
            place = directory / f"{number:02x}"
            place.mkdir(exist_ok=True)
            with os.scandir(place) as files:
                for file in files:
                    self._lengths[ChunkHandle(int(file.name, 16))] = _data_length(file.stat().st_size)
        if is_durable:
            sync_directory(directory)

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def live_bytes(self) -> int:
        with self._lock:
            return sum(map(record_bytes, self._lengths.values()))

    def length(self, handle: ChunkHandle) -> int | None:
        """The length of a chunk that is here, as its file's size tells."""
        with self._lock:
            return self._lengths.get(handle)

    def handles(self) -> list[ChunkHandle]:
        """All handles, rising."""
        with self._lock:
            return sorted(self._lengths)

    def path(self, handle: ChunkHandle) -> Path:
        return self._directory / f"{handle % FAN_OUT:02x}" / f"{handle:016x}"

    def begin(self, handle: ChunkHandle, length: int) -> Unfinished:
        """A file to write the chunk's data into."""
        return Unfinished(self, self._unfinished / f"{handle:016x}-{threading.get_ident()}", handle, length)

    def finish(self, temporary: Path, descriptor: int, handle: ChunkHandle, length: int) -> None:
        """Sync a complete file and give it its name."""
        if self._is_durable:
            os.fdatasync(descriptor)
        temporary.rename(self.path(handle))
        if self._is_durable:
            sync_directory(self.path(handle).parent)
        with self._lock:
            self._lengths[handle] = length

    def delete(self, handle: ChunkHandle) -> bool:
        """Whether it was here."""
        with self._lock:
            known = self._lengths.pop(handle, None)
        if known is None:
            return False
        with disk_errors(f"chunk {handle:x}"):
            self.path(handle).unlink(missing_ok=True)
        return True


class Unfinished:
    """A large chunk that is being written."""

    def __init__(self, files: ChunkFiles, path: Path, handle: ChunkHandle, length: int) -> None:
        self._files = files
        self._path = path
        self._handle = handle
        self._length = length
        self._at = HEADER_BYTES
        with disk_errors(f"chunk {handle:x}"):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(self._descriptor, 0, record_bytes(length))
                write_all(self._descriptor, [encode_header(Header(RecordKind.CHUNK, handle, length))], 0)
            except OSError:
                self.abort()
                raise

    def write(self, piece: Buffer) -> None:
        with disk_errors(f"chunk {self._handle:x}"):
            write_all(self._descriptor, [piece], self._at)
        self._at += len(piece)

    def seal(self, checksums: bytes) -> None:
        """Make it durable under its name."""
        with disk_errors(f"chunk {self._handle:x}"):
            write_all(self._descriptor, [checksums], self._at)
            self._files.finish(self._path, self._descriptor, self._handle, self._length)
        os.close(self._descriptor)

    def abort(self) -> None:
        os.close(self._descriptor)
        self._path.unlink(missing_ok=True)


def _data_length(file_bytes: int) -> int:
    """The chunk length whose record has this size."""
    rest = max(0, file_bytes - HEADER_BYTES)
    blocks = -(-rest // (BLOCK_BYTES + CHECKSUM_BYTES))
    return max(0, rest - blocks * CHECKSUM_BYTES)
