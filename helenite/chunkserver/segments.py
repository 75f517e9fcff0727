"""Small chunks, appended to segment files: creating a file is what a small write pays most for.

Used by `store`; `compaction` gives the space of dead records back. Every start begins a new segment: a tail of unknown
state is never appended to, and after a failed write or sync neither. A segment's number is never used again, so that a
tombstone can name the record it is for. Deleting appends a tombstone. Thread-safe.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from helenite.chunkserver.appender import AHEAD_BYTES, Appender
from helenite.chunkserver.disk import Buffer, disk_errors
from helenite.chunkserver.index import Index, Living, Place
from helenite.chunkserver.layout import ChunkHeader, Tombstone, encode_header, record_bytes
from helenite.chunkserver.segment_file import Found, load_listing, save_listing, scan
from helenite.core.errors import ChunkCorruptError, HeleniteError, ReplicaUnreadableError
from helenite.core.model import ChunkHandle

log = logging.getLogger(__name__)

SEGMENT_BYTES_MAX = 256 * 1024 * 1024
"""A segment that has reached this is closed; compaction rewrites at most this much at once. Offsets fit in 32 bits."""
OPEN_ATTEMPTS = 10
"""A chunk may be moved by compaction between finding and opening it, but not that often."""


@dataclass(frozen=True, slots=True)
class Fill:
    """Size of a closed segment, and how much of it lives."""

    size: int
    living: int


class Segments:
    """All segments of one chunkserver, with their index."""

    def __init__(self, directory: Path, index: Index, *, is_durable: bool, segment_bytes: int) -> None:
        self._directory = directory
        self._index = index
        self._is_durable = is_durable
        self.segment_bytes = segment_bytes
        self._lock = threading.Lock()  # guards everything below
        self._living: dict[int, Living] = {}
        self._closed: dict[int, int] = {}
        """Sizes of the segments that are appended to no more."""
        self._unlisted: set[int] = set()
        """Those of them that have no listing yet."""
        self._spared: set[int] = set()
        """Closed segments of which not everything can be read: compaction leaves them alone, for the bytes in them."""
        self._users: dict[Appender, int] = {}
        """Threads inside each appender; one that was replaced is closed when the last has left."""
        directory.mkdir(parents=True, exist_ok=True)
        for path in directory.glob("*.seg"):
            self._closed[int(path.stem)] = path.stat().st_size
        self._unlisted = {number for number in self._closed if not self._listing(number).exists()}
        if index.living is None:
            self._rebuild()
        else:
            self._living = index.living
        self._highest = max(self._closed, default=0)
        self._appender = self._open_next()

    def close(self) -> dict[int, Living]:
        """Sync what need not have been synced yet; what lives in each segment, for the index to keep."""
        with self._lock:
            appender = self._appender
            living = {number: found for number, found in self._living.items() if found.count}
        with disk_errors("closing the last segment"):
            try:
                appender.finish()
            finally:
                appender.close()
        return living

    # Totals

    @property
    def count(self) -> int:
        with self._lock:
            return sum(living.count for living in self._living.values())

    @property
    def live_bytes(self) -> int:
        with self._lock:
            return sum(living.bytes for living in self._living.values())

    @property
    def sync_count(self) -> int:
        """How often the present segment was synced."""
        return self._appender.sync_count

    # Chunks

    def put(self, handle: ChunkHandle, data: Buffer, checksums: bytes) -> None:
        """Store a chunk; it is durable when this returns."""
        self.put_all([(handle, data, checksums)])

    def put_all(self, chunks: Sequence[tuple[ChunkHandle, Buffer, bytes]]) -> None:
        """Store chunks, each once, with their checksums; they are durable when this returns, or none counts."""
        if not chunks:
            return
        pieces: list[Buffer] = []
        for handle, data, checksums in chunks:
            pieces += [encode_header(ChunkHeader(handle, len(data))), data, checksums]
        what = f"chunk {chunks[0][0]:x}" + (f" and {len(chunks) - 1} others" if len(chunks) > 1 else "")
        with disk_errors(what), self._appending() as appender:
            offset, ticket = appender.append(pieces)
            if self._is_durable:
                appender.wait_durable(ticket)
            places: dict[ChunkHandle, Place] = {}
            for handle, data, _ in chunks:
                places[handle] = Place(appender.number, offset, len(data))
                offset += record_bytes(len(data))
            # Still inside: compaction takes a record that the index does not know for dead once the segment is closed.
            replaced = self._index.replace_all(places)
        with self._lock:
            for place in places.values():
                self._count(place, 1)
            for place in replaced.values():
                self._count(place, -1)
        for handle, place in replaced.items():  # bad replicas
            self._bury(handle, place)

    def delete(self, handle: ChunkHandle) -> bool:
        """Forget a chunk; whether it was here.

        The tombstone is not waited for: a chunk that comes back after a power cut is an orphan, which does no harm.
        """
        place = self._index.delete(handle)
        if place is None:
            return False
        with self._lock:
            self._count(place, -1)
        self._bury(handle, place)
        return True

    def find(self, handle: ChunkHandle) -> Place | None:
        return self._index.get(handle)

    def open(self, handle: ChunkHandle) -> tuple[int, Place] | None:
        """A descriptor of the segment that holds a chunk, for the caller to close, and the chunk's place in it."""
        for _ in range(OPEN_ATTEMPTS):
            place = self._index.get(handle)
            if place is None:
                return None
            try:
                return os.open(self.path(place.segment), os.O_RDONLY | os.O_CLOEXEC), place
            except FileNotFoundError:
                continue
        raise ChunkCorruptError(f"the segment of chunk {handle:x} is gone")

    # For compaction

    def turn_over(self, below: float, least_bytes: int) -> None:
        """Begin a new segment when too little of the open one lives, so that compaction may have it."""
        with self._lock:
            appender = self._appender
            living = self._living.get(appender.number, Living()).bytes
            if appender.end >= least_bytes and living < below * appender.end:
                self._replace_appender()

    def fills(self) -> dict[int, Fill]:
        """The closed segments that may go. The highest stays: from its name a start knows which numbers were used."""
        with self._lock:
            highest = max(self._closed, default=0)
            return {
                number: Fill(size, self._living.get(number, Living()).bytes)
                for number, size in self._closed.items()
                if number < max(highest, self._appender.number) and number not in self._spared
            }

    def spare(self, number: int) -> None:
        """A segment cannot be read: leave it alone until the next start."""
        with self._lock:
            self._spared.add(number)

    def numbers(self) -> set[int]:
        """All segments there are, open ones included."""
        with self._lock:
            return {*self._closed, *(appender.number for appender in self._users)}

    def records(self, number: int) -> list[Found]:
        """What stands in a closed segment; ReplicaUnreadableError when that is not known in full."""
        with self._lock:
            size = self._closed[number]
        listed = load_listing(self._listing(number), size)
        if listed is not None:
            return listed
        with self.path(number).open("rb") as file:
            found = scan(file.fileno(), size)
        if found.unreadable:
            raise ReplicaUnreadableError(f"segment {number} is unreadable in {found.unreadable} places")
        return found.records

    def new_appender(self) -> Appender:
        """A further segment, for compaction alone."""
        with self._lock:
            self._highest += 1
            return Appender(self.path(self._highest), self._highest)

    def adopt(self, appender: Appender) -> None:
        """Take compaction's finished segment in, unless nothing was written to it."""
        if appender.end == 0:
            self.path(appender.number).unlink()
            return
        with self._lock:
            self._closed[appender.number] = appender.end
            self._unlisted.add(appender.number)

    def move(self, handle: ChunkHandle, old: Place, new: Place) -> None:
        """A record was written again elsewhere and lives there, unless the chunk was deleted meanwhile."""
        if self._index.move(handle, old, new):
            with self._lock:
                self._count(old, -1)
                self._count(new, 1)
        else:
            self._bury(handle, new)

    def drop(self, number: int) -> None:
        """Remove a segment in which nothing lives any more."""
        with self._lock:
            del self._closed[number]
            self._unlisted.discard(number)
            self._living.pop(number, None)
        self._listing(number).unlink(missing_ok=True)
        self.path(number).unlink()

    def list_closed(self) -> None:
        """Write the listings that are missing."""
        with self._lock:
            unlisted = sorted(self._unlisted - self._spared)
        for number in unlisted:
            with disk_errors(f"listing segment {number}"):
                self._write_listing(number)

    def path(self, number: int) -> Path:
        return self._directory / f"{number:08d}.seg"

    def _listing(self, number: int) -> Path:
        return self._directory / f"{number:08d}.list"

    def _write_listing(self, number: int) -> list[Found]:
        """What stands in a segment. A listing stands only beside one that is synced and could be read in full."""
        size = self._closed[number]
        with self.path(number).open("r+b") as file:
            found = scan(file.fileno(), size)
            if found.end < size:  # a crash has left the zeros that were written ahead
                file.truncate(found.end)
            os.fsync(file.fileno())
        if found.unreadable:
            self.spare(number)
            return found.records
        save_listing(self._listing(number), found.end, found.records)
        with self._lock:
            self._closed[number] = found.end
            self._unlisted.discard(number)
        return found.records

    # Appending

    def _bury(self, handle: ChunkHandle, place: Place) -> None:
        """Append the tombstone of a record."""
        tombstone = encode_header(Tombstone(handle, place.segment, place.offset))
        try:
            with disk_errors(f"deleting chunk {handle:x}"), self._appending() as appender:
                appender.append([tombstone])
        except HeleniteError as error:
            log.warning("%s; the chunk would come back if the index had to be rebuilt", error)

    @contextmanager
    def _appending(self) -> Iterator[Appender]:
        """The segment to append to; it stays open until the block ends."""
        with self._lock:
            appender = self._appender
            if appender.has_failed or appender.end >= self.segment_bytes:
                appender = self._replace_appender()
            self._users[appender] += 1
        try:
            yield appender
        finally:
            with self._lock:
                self._users[appender] -= 1
                if self._users[appender] == 0 and appender is not self._appender:
                    self._retire(appender)

    def _replace_appender(self) -> Appender:
        """Append to a new segment from now on; the lock is held."""
        before = self._appender
        self._appender = self._open_next()
        if self._users[before] == 0:
            self._retire(before)
        return self._appender

    def _open_next(self) -> Appender:
        self._highest += 1
        ahead_bytes = min(AHEAD_BYTES, self.segment_bytes // 16) if self._is_durable else 0
        appender = Appender(self.path(self._highest), self._highest, ahead_bytes=ahead_bytes)
        self._users[appender] = 0
        return appender

    def _retire(self, appender: Appender) -> None:
        """Close a segment that nobody appends to any more; the lock is held."""
        del self._users[appender]
        if appender.has_failed and self._is_durable:
            appender.cut_failed_tail()
        appender.close()
        self._closed[appender.number] = appender.end
        self._unlisted.add(appender.number)

    def _count(self, place: Place, sign: int) -> None:
        living = self._living.setdefault(place.segment, Living())
        living.count += sign
        living.bytes += sign * record_bytes(place.length)

    # Recovery

    def _rebuild(self) -> None:
        """Fill the empty index from the segments: a record lives unless a tombstone, wherever it stands, names it.

        Two records of one chunk can live after a kill during compaction; they are the same, and the later one counts.
        """
        if self._closed:
            log.info("rebuilding the index of small chunks from %d segments", len(self._closed))
        numbers = sorted(self._closed)
        dead: set[tuple[int, int]] = set()
        for number in numbers:
            for record in self._recovered(number):
                if isinstance(record.header, Tombstone):
                    dead.add((record.header.segment, record.header.offset))
        for number in numbers:
            self._index.put_all(
                {
                    record.header.handle: Place(number, record.offset, record.header.length)
                    for record in self._recovered(number)
                    if isinstance(record.header, ChunkHeader) and (number, record.offset) not in dead
                }
            )
        for place in self._index.places():
            self._count(place, 1)
        if self._spared:
            log.error("segments %s cannot be read in full; the next start looks again", sorted(self._spared))
            self._index.distrust()

    def _recovered(self, number: int) -> list[Found]:
        """What stands in a segment; a listing is left behind, so that it is scanned only once."""
        with disk_errors(f"reading segment {number}"):
            return self._write_listing(number) if number in self._unlisted else self.records(number)
