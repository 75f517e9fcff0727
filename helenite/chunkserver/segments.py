"""Small chunks, appended to segment files: creating a file is what a small write pays most for (D1).

Used by `store`. Appends are written in file order under one lock; those that wait share one fdatasync (group commit),
so an acknowledged record has everything before it on disk too, and a scan that stops at the first torn record loses
nothing. Every start begins a new segment: a tail of unknown state is never appended to. Deleting appends a tombstone;
`compact` rewrites segments that are mostly dead. Thread-safe.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

from helenite.chunkserver.disk import Buffer, disk_errors, read_exactly, sync_directory, write_all
from helenite.chunkserver.index import Index, Place
from helenite.chunkserver.layout import HEADER_BYTES, Header, RecordKind, encode_header, parse_header, record_bytes
from helenite.core.errors import ChunkCorruptError, UnavailableError
from helenite.core.model import ChunkHandle

log = logging.getLogger(__name__)

SEGMENT_BYTES_MAX = 256 * 1024 * 1024
"""A full segment is closed; compaction rewrites at most this much at once."""
COMPACT_BELOW = 0.5
"""A closed segment with less than this share of living bytes is rewritten."""
REBUILD_BATCH = 10_000


class Appender:
    """The segment that is appended to."""

    def __init__(self, path: Path, number: int, *, is_durable: bool) -> None:
        self.number = number
        self.end = 0
        self._is_durable = is_durable
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        sync_directory(path.parent)
        self._append_lock = threading.Lock()  # guards `end` and the order of writes
        self._sync = threading.Condition()  # guards the three below
        self._written = 0
        self._synced = 0
        self._is_syncing = False
        self.has_failed = False
        self.sync_count = 0
        """fdatasyncs so far; tests see group commit in it."""

    def append(self, pieces: list[Buffer]) -> tuple[int, int]:
        """Write one record; its offset and the ticket to wait with. Not durable yet."""
        size = sum(map(len, pieces))
        with self._append_lock:
            offset = self.end
            try:
                write_all(self.descriptor, pieces, offset)
            except OSError:
                os.ftruncate(self.descriptor, offset)
                raise
            self.end = offset + size
            with self._sync:
                self._written += 1
                return offset, self._written

    def wait_durable(self, ticket: int) -> None:
        """Return when the record of this ticket is on disk; one waiter syncs for all that have written by then.

        UnavailableError when a sync fails; nothing about this segment's tail can be believed after that.
        """
        if not self._is_durable:
            return
        with self._sync:
            while self._synced < ticket:
                if self.has_failed:
                    raise UnavailableError("the disk failed to make a write durable")
                if self._is_syncing:
                    self._sync.wait()
                    continue
                self._is_syncing = True
                target = self._written
                self._sync.release()
                is_done = False
                try:
                    os.fdatasync(self.descriptor)
                    is_done = True
                finally:
                    self._sync.acquire()
                    self._is_syncing = False
                    self.sync_count += 1
                    if is_done:
                        self._synced = max(self._synced, target)
                    else:
                        self.has_failed = True
                    self._sync.notify_all()


class Segments:
    """All segments of one chunkserver, with their index."""

    def __init__(
        self, directory: Path, index: Index, *, is_durable: bool, segment_bytes: int = SEGMENT_BYTES_MAX
    ) -> None:
        self._directory = directory
        self._index = index
        self._is_durable = is_durable
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()  # guards the appender's identity, descriptors, counts
        self._descriptors: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self._live: dict[int, int] = {}
        self.count = 0
        self.live_bytes = 0
        directory.mkdir(parents=True, exist_ok=True)
        numbers = sorted(int(path.stem) for path in directory.glob("*.seg"))
        for number in numbers:
            self._descriptors[number] = os.open(self._path(number), os.O_RDONLY | os.O_CLOEXEC)
            self._sizes[number] = os.fstat(self._descriptors[number]).st_size
        if not index.was_clean:
            self._rebuild(numbers)
        for place in index.places():
            self._count(place, 1)
        self._appender = self._open_next(numbers[-1] + 1 if numbers else 1)

    def close(self) -> None:
        with self._lock:
            if self._is_durable:
                os.fdatasync(self._appender.descriptor)
            for descriptor in self._descriptors.values():
                os.close(descriptor)
            self._descriptors.clear()

    @property
    def sync_count(self) -> int:
        return self._appender.sync_count

    def put(self, handle: ChunkHandle, data: Buffer, checksums: bytes) -> None:
        """Store a chunk; it is durable when this returns."""
        head = encode_header(Header(RecordKind.CHUNK, handle, len(data)))
        with disk_errors(f"chunk {handle:x}"):
            place = self._append([head, data, checksums], len(data), must_wait=True)
        self._index.put(handle, place)
        with self._lock:
            self._count(place, 1)

    def delete(self, handle: ChunkHandle) -> bool:
        """Forget a chunk; whether it was here. The tombstone is not synced: a chunk that comes back is an orphan."""
        place = self._index.delete(handle)
        if place is None:
            return False
        with self._lock:
            self._count(place, -1)
        with disk_errors(f"chunk {handle:x}"):
            self._append([encode_header(Header(RecordKind.TOMBSTONE, handle, 0))], 0, must_wait=False)
        return True

    def find(self, handle: ChunkHandle) -> Place | None:
        return self._index.get(handle)

    def open(self, place: Place) -> int:
        """A descriptor of the segment of a place, for the caller to close."""
        with self._lock:
            descriptor = self._descriptors.get(place.segment)
            if descriptor is None:
                raise ChunkCorruptError(f"segment {place.segment} is gone")
            return os.dup(descriptor)

    def compact(self) -> int:
        """Rewrite one segment that is mostly dead, or drop one that is dead; bytes gained. 0: nothing to do."""
        with self._lock:
            closed = [number for number in self._sizes if number != self._appender.number]
            shares = {n: self._live.get(n, 0) / max(1, self._sizes[n]) for n in closed}
        number = min(shares, key=shares.__getitem__, default=None)
        if number is None or shares[number] >= COMPACT_BELOW:
            return 0
        self._rewrite(number, is_oldest=number == min(self._sizes))
        with self._lock:
            gained = self._sizes.pop(number) - self._live.pop(number, 0)
            os.close(self._descriptors.pop(number))
        self._path(number).unlink()
        return gained

    def _rewrite(self, number: int, *, is_oldest: bool) -> None:
        """Append what lives in a segment again. Durable before the old segment goes, so no kill point loses a chunk."""
        descriptor = self._descriptors[number]
        moves: list[tuple[ChunkHandle, Place, Place]] = []
        for header, offset in scan(descriptor, self._sizes[number]):
            place = Place(number, offset, header.length)
            if header.kind is RecordKind.TOMBSTONE:
                # Without an older segment there is no record left that it could hide.
                if not is_oldest and self._index.get(header.handle) is None:
                    self._append([encode_header(header)], 0, must_wait=False)
            elif self._index.get(header.handle) == place:
                record = read_exactly(descriptor, header.record_bytes, offset)
                moves.append((header.handle, place, self._append([record], header.length, must_wait=False)))
        self._sync_all()
        for handle, old, new in moves:
            if self._index.move(handle, old, new):
                with self._lock:
                    self._count(old, -1)
                    self._count(new, 1)

    def _sync_all(self) -> None:
        if self._is_durable:
            with self._lock:
                descriptors = [os.dup(self._descriptors[n]) for n in sorted(self._sizes)[-3:]]
            for descriptor in descriptors:
                os.fdatasync(descriptor)
                os.close(descriptor)

    def _append(self, pieces: list[Buffer], length: int, *, must_wait: bool) -> Place:
        appender = self._writable()
        offset, ticket = appender.append(pieces)
        if must_wait:
            appender.wait_durable(ticket)
        return Place(appender.number, offset, length)

    def _writable(self) -> Appender:
        with self._lock:
            if self._appender.has_failed or self._appender.end >= self._segment_bytes:
                self._sizes[self._appender.number] = self._appender.end
                self._appender = self._open_next(self._appender.number + 1)
            return self._appender

    def _open_next(self, number: int) -> Appender:
        appender = Appender(self._path(number), number, is_durable=self._is_durable)
        self._descriptors[number] = appender.descriptor
        self._sizes[number] = 0
        return appender

    def _count(self, place: Place, sign: int) -> None:
        size = record_bytes(place.length)
        self._live[place.segment] = self._live.get(place.segment, 0) + sign * size
        self.live_bytes += sign * size
        self.count += sign

    def _rebuild(self, numbers: list[int]) -> None:
        log.info("rebuilding the index of small chunks from %d segments", len(numbers))
        for number in numbers:
            puts: dict[ChunkHandle, Place] = {}
            deletes: set[ChunkHandle] = set()
            for header, offset in scan(self._descriptors[number], self._sizes[number]):
                if header.kind is RecordKind.TOMBSTONE:
                    puts.pop(header.handle, None)
                    deletes.add(header.handle)
                else:
                    puts[header.handle] = Place(number, offset, header.length)
            self._index.change(puts, deletes)

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:08d}.seg"


def scan(descriptor: int, size: int) -> list[tuple[Header, int]]:
    """All records of a segment with their offsets, up to the first that is torn."""
    found: list[tuple[Header, int]] = []
    offset = 0
    while offset + HEADER_BYTES <= size:
        try:
            header = parse_header(os.pread(descriptor, HEADER_BYTES, offset))
        except ChunkCorruptError:
            log.warning("a segment ends torn at %d of %d bytes", offset, size)
            break
        if offset + header.record_bytes > size:
            break
        found.append((header, offset))
        offset += header.record_bytes
    return found
