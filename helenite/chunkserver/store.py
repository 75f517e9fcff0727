"""All replicas of one chunkserver: put, find, verify, delete.

Used by `session`, `service` and `peers`. It chooses between a file of its own and a segment by the chunk's size, takes
no chunk that `room` has no place for, and notes in `bad_replicas` what each look at a replica shows: a bad one is
refused to readers and may be written again, but its bytes go only when a good copy replaces them or a master orders it.
Thread-safe.
"""

from __future__ import annotations

import heapq
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from helenite.chunkserver.bad_replicas import BadReplicas
from helenite.chunkserver.chunk_files import ChunkFiles, Unfinished
from helenite.chunkserver.compaction import REWRITE_BELOW, REWRITE_BELOW_WHEN_FULL, compact
from helenite.chunkserver.data_dir import DataDir, Identity
from helenite.chunkserver.disk import Buffer, disk_errors, read_errors, read_exactly
from helenite.chunkserver.index import Index
from helenite.chunkserver.layout import HEADER_BYTES, ChunkHeader, parse_header, record_bytes
from helenite.chunkserver.room import Room
from helenite.chunkserver.segments import SEGMENT_BYTES_MAX, Segments
from helenite.core.checksum import (
    CHECKSUM_BYTES,
    BlockChecksums,
    block_checksums,
    block_count,
    digest,
    verify_blocks,
)
from helenite.core.clock import Clock
from helenite.core.errors import (
    ChunkCorruptError,
    ChunkExistsError,
    ChunkNotFoundError,
    HeleniteError,
    InsufficientStorageError,
    ReplicaUnreadableError,
    UnavailableError,
)
from helenite.core.model import BLOCK_BYTES, MIB, SEGMENT_CHUNK_BYTES_MAX, ChunkHandle, ServerId

VERIFY_BYTES = MIB
"""Read and compared at once; a multiple of the block."""
TURN_OVER_BYTES = 64 * MIB
"""An open segment below this is left alone, however little of it lives."""
TURN_OVER_BYTES_WHEN_FULL = MIB
HANDLES_PAGE = 10_000
"""Handles looked up in the index at once."""


@dataclass(frozen=True, slots=True)
class Replica:
    """An open replica: the chunk begins at `offset` of `descriptor`."""

    descriptor: int
    offset: int
    length: int

    def checksums(self, first_block: int, blocks: int) -> bytes:
        """Packed checksums of some blocks."""
        at = self.offset + self.length + first_block * CHECKSUM_BYTES
        return bytes(read_exactly(self.descriptor, blocks * CHECKSUM_BYTES, at))


class Sink:
    """A chunk that is being received: data in, digest out. Small ones are collected, large ones go to their file.

    It belongs to one thread and must be sealed or aborted; aborting what is sealed does nothing.
    """

    def __init__(self, handle: ChunkHandle, length: int, store: ChunkStore) -> None:
        self._handle = handle
        self._length = length
        self._store = store
        self._received = 0
        self._is_ended = False
        self._checksums = BlockChecksums()
        self._file: Unfinished | None = None
        self._small = bytearray()
        if length > SEGMENT_CHUNK_BYTES_MAX:
            with store.room.noting_refusals():
                self._file = store.files.begin(handle, length)

    def write(self, piece: memoryview) -> None:
        """The next bytes."""
        self._received += len(piece)
        if self._file is None:
            self._small += piece
            return
        with self._store.room.noting_refusals():
            self._file.write(piece)
        self._checksums.add(piece)

    def seal(self) -> bytes:
        """Make the replica durable; its digest."""
        assert self._received == self._length, (self._received, self._length)
        with self._store.room.noting_refusals():
            checksums = self._put()
        self._store.bad.note_good(self._handle)  # a bad replica that was here is replaced
        self._end()
        return digest(checksums)

    def _put(self) -> bytes:
        """Into its place, durably; the checksums of its blocks."""
        if self._file is None:
            checksums = block_checksums(self._small)
            self._store.segments.put(self._handle, self._small, checksums)
        else:
            checksums = self._checksums.finish()
            self._file.seal(checksums)
            self._file = None
        return checksums

    def abort(self) -> None:
        """Forget it, unless it is sealed."""
        if self._file is not None:
            self._file.abort()
            self._file = None
        self._end()

    def _end(self) -> None:
        if not self._is_ended:
            self._is_ended = True
            self._store.room.give_back([self._handle])


class ChunkStore:
    """The replicas in one data directory."""

    def __init__(
        self,
        directory: Path,
        *,
        is_durable: bool = True,
        reserve_bytes: int = 0,
        capacity_bytes: int = 0,
        segment_bytes: int = SEGMENT_BYTES_MAX,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or Clock()
        self.bad = BadReplicas(clock)
        self._data = DataDir(directory)
        try:
            self.files = ChunkFiles(self._data.path / "chunks", is_durable=is_durable)
            self._index = Index(self._data.path / "index")
            segments = self._data.path / "segments"
            self.segments = Segments(segments, self._index, is_durable=is_durable, segment_bytes=segment_bytes)
        except BaseException:
            self._data.close()
            raise
        self.room = Room(
            self._data.path,
            reserve_bytes=reserve_bytes,
            capacity_bytes=capacity_bytes,
            used_bytes=self.used_bytes,
            check_in_place=self._data.check_in_place,
            clock=clock,
        )

    def close(self) -> None:
        """Nothing may be in use any more."""
        if not self._data.is_closed:
            self._index.close(self.segments.close())
            self._data.close()

    @property
    def identity(self) -> Identity:
        return self._data.identity

    def adopt(self, cluster_id: str, server_id: ServerId) -> None:
        """Belong to this cluster under this id from now on; ForeignClusterError when the data is another's."""
        self._data.adopt(cluster_id, server_id)

    # Space

    def used_bytes(self) -> int:
        """What living chunks take."""
        return self.files.live_bytes + self.segments.live_bytes

    def chunk_count(self) -> int:
        """Without those that are known to be bad."""
        return len(self.files) + self.segments.count - self.bad.refused_count

    def tidy(self, stopping: threading.Event) -> int:
        """Give dead space back if that is worth it; bytes gained. One thread calls this from time to time."""
        is_full = self.room.free_bytes() < SEGMENT_BYTES_MAX
        below = REWRITE_BELOW_WHEN_FULL if is_full else REWRITE_BELOW
        with disk_errors("beginning a new segment"):
            self.segments.turn_over(below, TURN_OVER_BYTES_WHEN_FULL if is_full else TURN_OVER_BYTES)
        self.segments.list_closed()
        return compact(self.segments, below, stopping)

    # Writing

    def begin(self, handle: ChunkHandle, length: int) -> Sink:
        """Receive a chunk, perhaps in place of a bad replica.

        ChunkExistsError when a good one is here, InsufficientStorageError when it would not fit.
        """
        if not self._take_room({handle: record_bytes(length)}):
            raise UnavailableError(f"chunk {handle:x} is being written at this moment")
        try:
            if self.has(handle):
                raise ChunkExistsError(f"chunk {handle:x} is here already")
            return Sink(handle, length, self)
        except HeleniteError:
            self.room.give_back([handle])
            raise

    def put_small(self, chunks: Sequence[tuple[ChunkHandle, Buffer]]) -> list[bytes]:
        """Store small chunks together; the digest of each that is durable, empty for one that was here or is coming.

        InsufficientStorageError when they would not fit.
        """
        mine = self._take_room({handle: record_bytes(len(data)) for handle, data in chunks})
        try:
            fresh = {handle: data for handle, data in chunks if handle in mine and not self.has(handle)}
            checksums = {handle: block_checksums(data) for handle, data in fresh.items()}
            with self.room.noting_refusals():
                self.segments.put_all([(handle, data, checksums[handle]) for handle, data in fresh.items()])
            for handle in fresh:
                self.bad.note_good(handle)
            return [digest(checksums[handle]) if handle in fresh else b"" for handle, _ in chunks]
        finally:
            self.room.give_back(mine)

    def _take_room(self, sizes: dict[ChunkHandle, int]) -> set[ChunkHandle]:
        """Room for chunks; those that nobody else is writing. InsufficientStorageError when they would not fit."""
        if self.room.free_bytes() < sum(sizes.values()):
            raise InsufficientStorageError(
                f"the disk of chunkserver {self.identity.server_id} is full up to its reserve"
            )
        return self.room.take(sizes)

    def has(self, handle: ChunkHandle) -> bool:
        """Whether a replica is here that is not known to be bad."""
        is_here = self.files.length(handle) is not None or self.segments.find(handle) is not None
        return is_here and not self.bad.refuses(handle)

    # Reading

    def open(self, handle: ChunkHandle) -> AbstractContextManager[Replica]:
        """An open replica, closed afterwards. Its bytes are not compared with their checksums.

        ChunkNotFoundError when it is not here; ChunkCorruptError when its file is damaged or cut short, or when it is
        known to be bad; ReplicaUnreadableError when the disk does not give it now.
        """
        if self.bad.refuses(handle):
            raise ChunkCorruptError(f"the replica of chunk {handle:x} here is bad and waits for another to replace it")
        return self._open_any(handle)

    @contextmanager
    def _open_any(self, handle: ChunkHandle) -> Iterator[Replica]:
        """Also a bad one; what goes wrong until it is closed is noted."""
        try:
            with read_errors(f"opening chunk {handle:x}"):
                descriptor, start, length = self._open_record(handle)
            try:
                yield Replica(descriptor, start + HEADER_BYTES, length)
            finally:
                os.close(descriptor)
        except ChunkCorruptError:
            self.bad.note_corrupt(handle)
            raise
        except ReplicaUnreadableError:
            self.bad.note_unreadable(handle)
            raise

    def _open_record(self, handle: ChunkHandle) -> tuple[int, int, int]:
        """Descriptor, where the record starts and the chunk's length, after a look at the record's header and size."""
        descriptor, start, length = self._find_record(handle)
        try:
            if parse_header(read_exactly(descriptor, HEADER_BYTES, start)) != ChunkHeader(handle, length):
                raise ChunkCorruptError(f"another record stands where chunk {handle:x} should")
            if os.fstat(descriptor).st_size < start + record_bytes(length):
                raise ChunkCorruptError(f"the file of chunk {handle:x} is cut short")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, start, length

    def _find_record(self, handle: ChunkHandle) -> tuple[int, int, int]:
        if (file := self.files.open(handle)) is not None:
            descriptor, length = file
            return descriptor, 0, length
        if (found := self.segments.open(handle)) is not None:
            descriptor, place = found
            return descriptor, place.offset, place.length
        raise ChunkNotFoundError(f"chunk {handle:x} is not on chunkserver {self.identity.server_id}")

    def verify(self, handle: ChunkHandle) -> tuple[int, bytes]:
        """Compare every byte with its checksum; length and digest.

        ChunkCorruptError when it is bad: that is noted, to be reported. One that is not here is reported too: whoever
        asks has its name from the chunk table, so the table must learn. ReplicaUnreadableError proves nothing yet.
        A replica that was bad and is good now counts again.
        """
        try:
            return self.check(handle)
        except ChunkNotFoundError:
            self.bad.note_missing(handle)
            raise

    def check(
        self, handle: ChunkHandle, pause: Callable[[int], None] = lambda _: None, *, is_cold: bool = False
    ) -> tuple[int, bytes]:
        """`verify` for whoever has the name from here: a replica that is gone was deleted and is not reported.

        `pause` hears how much was read, to limit the rate. A cold check reads from the disk, not from what the kernel
        remembers of it, and leaves the memory to others.
        """
        with self._open_any(handle) as replica:
            if is_cold:
                _forget_pages(replica)
            checksums = replica.checksums(0, block_count(replica.length))
            for start in range(0, replica.length, VERIFY_BYTES):
                size = min(VERIFY_BYTES, replica.length - start)
                data = read_exactly(replica.descriptor, size, replica.offset + start)
                first = start // BLOCK_BYTES * CHECKSUM_BYTES
                expected = checksums[first : first + block_count(size) * CHECKSUM_BYTES]
                verify_blocks(data, expected, f"chunk {handle:x} on chunkserver {self.identity.server_id}")
                pause(size)
        self.bad.note_good(handle)
        return replica.length, digest(checksums)

    # Removing

    def delete(self, handle: ChunkHandle) -> bool:
        """Whether it was here."""
        was_here = self.files.delete(handle) or self.segments.delete(handle)
        self.bad.note_good(handle)
        return was_here

    # Listing

    def handles_after(self, handle: int, limit: int) -> list[ChunkHandle]:
        """The next held chunks in rising order."""
        merged = heapq.merge(self.files.after(handle, limit), self._index.after(handle, limit))
        return list(islice(merged, limit))

    def handles(self) -> Iterator[ChunkHandle]:
        """All held chunks in rising order, bad ones too.

        They are looked up as they are asked for: what has gone by then is not named, however long the list takes. What
        comes meanwhile may be there or not.
        """
        return heapq.merge(self.files.handles(), self._small_handles())

    def _small_handles(self) -> Iterator[ChunkHandle]:
        page = self._index.after(-1, HANDLES_PAGE)
        while page:
            yield from page
            page = self._index.after(page[-1], HANDLES_PAGE)


def _forget_pages(replica: Replica) -> None:
    """Have the kernel read a replica from its disk the next time."""
    if hasattr(os, "posix_fadvise"):  # macOS has none
        with read_errors("looking at a replica anew"):
            size = record_bytes(replica.length)
            os.posix_fadvise(replica.descriptor, replica.offset, size, os.POSIX_FADV_DONTNEED)
