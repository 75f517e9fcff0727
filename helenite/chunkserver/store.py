"""All replicas of one chunkserver: put, find, verify, delete, quarantine.

Used by `dataport`, `service` and `peers`. It chooses between a file of its own and a segment by the chunk's size, keeps
the reserve free, and owns the data directory: a lock on it and an identity file refuse a second process and a foreign
cluster. Thread-safe.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from helenite.chunkserver.chunk_files import ChunkFiles, Unfinished
from helenite.chunkserver.disk import Buffer, read_exactly
from helenite.chunkserver.index import Index
from helenite.chunkserver.layout import HEADER_BYTES, covering_blocks, parse_header, record_bytes
from helenite.chunkserver.segments import Segments
from helenite.core.checksum import CHECKSUM_BYTES, block_checksums, block_count, digest, verify_blocks
from helenite.core.errors import (
    ChunkCorruptError,
    ChunkExistsError,
    ChunkNotFoundError,
    ConfigurationError,
    ForeignClusterError,
    InsufficientStorageError,
)
from helenite.core.model import BLOCK_BYTES, MIB, SEGMENT_CHUNK_BYTES_MAX, ChunkHandle, ServerId

log = logging.getLogger(__name__)

VERIFY_BYTES = MIB


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose data this is. The server id is 0 and the cluster empty until the first registration."""

    uuid: str
    cluster_id: str
    server_id: ServerId


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
    """A chunk that is being received: data in, digest out. Small ones are collected, large ones go to their file."""

    def __init__(self, handle: ChunkHandle, length: int, store: ChunkStore) -> None:
        self.handle = handle
        self.length = length
        self._store = store
        self._checksums: list[bytes] = []
        self._pending = bytearray()
        self._received = 0
        self._file: Unfinished | None = None
        self._small: bytearray | None = None
        if length > SEGMENT_CHUNK_BYTES_MAX:
            self._file = store.files.begin(handle, length)
        else:
            self._small = bytearray()

    def write(self, piece: memoryview) -> None:
        """The next bytes."""
        self._received += len(piece)
        if self._small is not None:
            self._small += piece
            return
        assert self._file is not None
        self._file.write(piece)
        self._add_checksums(piece)

    def _add_checksums(self, piece: memoryview) -> None:
        """Checksum whole blocks; what is left of one waits for the next piece."""
        if self._pending:
            wanted = BLOCK_BYTES - len(self._pending)
            self._pending += piece[:wanted]
            piece = piece[wanted:]
            if len(self._pending) < BLOCK_BYTES:
                return
            self._checksums.append(block_checksums(self._pending))
            self._pending = bytearray()
        whole = len(piece) // BLOCK_BYTES * BLOCK_BYTES
        self._checksums.append(block_checksums(piece[:whole]))
        self._pending += piece[whole:]

    def seal(self) -> bytes:
        """Make the replica durable; its digest."""
        assert self._received == self.length, (self._received, self.length)
        if self._small is not None:
            checksums = block_checksums(self._small)
            self._store.segments.put(self.handle, self._small, checksums)
            return digest(checksums)
        assert self._file is not None
        if self._pending:
            self._checksums.append(block_checksums(self._pending))
        checksums = b"".join(self._checksums)
        self._file.seal(checksums)
        self._file = None
        return digest(checksums)

    def abort(self) -> None:
        """Forget it, unless it is sealed."""
        if self._file is not None:
            self._file.abort()
            self._file = None


class ChunkStore:
    """The data directory of one chunkserver."""

    def __init__(
        self, directory: Path, *, is_durable: bool = True, reserve_bytes: int = 0, capacity_bytes: int = 0
    ) -> None:
        self._directory = directory.absolute()
        self._reserve_bytes = reserve_bytes
        self._capacity_bytes = capacity_bytes
        self._corrupt_lock = threading.Lock()  # guards _corrupt
        self._corrupt: set[ChunkHandle] = set()
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._lock_file = (self._directory / "lock").open("a+")
        except OSError as error:
            raise ConfigurationError(f"cannot use {directory} as data directory: {error.strerror}") from error
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock_file.close()
            raise ForeignClusterError(
                f"another chunkserver is using {directory}; give each its own directory"
            ) from None
        self.identity = self._load_identity()
        self.files = ChunkFiles(self._directory / "chunks", is_durable=is_durable)
        self._index = Index(self._directory / "index")
        self.segments = Segments(self._directory / "segments", self._index, is_durable=is_durable)

    def close(self) -> None:
        if self._lock_file.closed:
            return
        self.segments.close()
        self._index.close()
        self._lock_file.close()

    # Identity

    def _load_identity(self) -> Identity:
        path = self._directory / "identity.json"
        try:
            values = json.loads(path.read_text())
            return Identity(values["uuid"], values["cluster_id"], ServerId(values["server_id"]))
        except FileNotFoundError:
            made = Identity(secrets.token_hex(16), "", ServerId(0))
            self._save_identity(made)
            return made
        except (ValueError, KeyError) as error:
            raise ConfigurationError(f"{path} is damaged: {error}") from error

    def adopt(self, cluster_id: str, server_id: ServerId) -> None:
        """Belong to this cluster under this id from now on; ForeignClusterError when the data is another's."""
        known = self.identity
        if known.cluster_id and (known.cluster_id, known.server_id) != (cluster_id, server_id):
            raise ForeignClusterError(
                f"{self._directory} is chunkserver {known.server_id} of cluster {known.cluster_id[:8]}…, "
                f"the master takes it for {server_id} of {cluster_id[:8]}…"
            )
        if not known.cluster_id:
            self._save_identity(replace(known, cluster_id=cluster_id, server_id=server_id))

    def _save_identity(self, identity: Identity) -> None:
        path = self._directory / "identity.json"
        temporary = path.with_suffix(".new")
        with temporary.open("w") as file:
            json.dump(asdict(identity), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        self.identity = identity

    # Space

    def free_bytes(self) -> int:
        """What chunks may still use: the disk's free space less the reserve, within the capacity."""
        state = os.statvfs(self._directory)
        free = state.f_bavail * state.f_frsize - self._reserve_bytes
        if self._capacity_bytes:
            free = min(free, self._capacity_bytes - self.used_bytes())
        return max(0, free)

    def used_bytes(self) -> int:
        return self.files.live_bytes + self.segments.live_bytes

    def capacity(self) -> int:
        """All that chunks may use."""
        return self._capacity_bytes or self.used_bytes() + self.free_bytes()

    def chunk_count(self) -> int:
        return len(self.files) + self.segments.count

    # Chunks

    def begin(self, handle: ChunkHandle, length: int) -> Sink:
        """Receive a chunk. ChunkExistsError when it is here, InsufficientStorageError when it would not fit."""
        if self._length(handle) is not None:
            raise ChunkExistsError(f"chunk {handle:x} is here already")
        if self.free_bytes() < record_bytes(length):
            raise InsufficientStorageError(
                f"the disk of chunkserver {self.identity.server_id} is full up to its reserve"
            )
        return Sink(handle, length, self)

    def _length(self, handle: ChunkHandle) -> int | None:
        length = self.files.length(handle)
        if length is None and (place := self.segments.find(handle)) is not None:
            length = place.length
        return length

    @contextmanager
    def open(self, handle: ChunkHandle) -> Iterator[Replica]:
        """An open replica, closed afterwards; ChunkNotFoundError or ChunkCorruptError."""
        descriptor, start, length = self._open_record(handle)
        try:
            header = parse_header(os.pread(descriptor, HEADER_BYTES, start))
            if header.handle != handle or header.length != length:
                raise ChunkCorruptError(f"chunk {handle:x} has another chunk's header")
            if os.fstat(descriptor).st_size < start + record_bytes(length):
                raise ChunkCorruptError(f"the file of chunk {handle:x} is cut short")
            yield Replica(descriptor, start + HEADER_BYTES, length)
        finally:
            os.close(descriptor)

    def _open_record(self, handle: ChunkHandle) -> tuple[int, int, int]:
        length = self.files.length(handle)
        if length is not None:
            try:
                return os.open(self.files.path(handle), os.O_RDONLY | os.O_CLOEXEC), 0, length
            except FileNotFoundError:
                raise ChunkCorruptError(f"the file of chunk {handle:x} is gone") from None
        place = self.segments.find(handle)
        if place is None:
            raise ChunkNotFoundError(f"chunk {handle:x} is not on chunkserver {self.identity.server_id}")
        return self.segments.open(place), place.offset, place.length

    def read(self, handle: ChunkHandle, offset: int, length: int) -> tuple[int, bytes, memoryview]:
        """Whole blocks around a range: where they start, their checksums, their bytes, not compared."""
        with self.open(handle) as replica:
            start, size = covering_blocks(offset, length, replica.length)
            checksums = replica.checksums(start // BLOCK_BYTES, block_count(size))
            return start, checksums, read_exactly(replica.descriptor, size, replica.offset + start)

    def digest_of(self, handle: ChunkHandle) -> tuple[int, bytes]:
        """Length and digest of a replica, from its stored checksums."""
        with self.open(handle) as replica:
            return replica.length, digest(replica.checksums(0, block_count(replica.length)))

    def verify(self, handle: ChunkHandle, pause: Callable[[int], None] = lambda _: None) -> tuple[int, bytes]:
        """Compare every byte with its checksum; length and digest. `pause` hears how much was read, to limit the rate.

        A bad replica is quarantined and reported; ChunkCorruptError says so.
        """
        try:
            with self.open(handle) as replica:
                checksums = replica.checksums(0, block_count(replica.length))
                for start in range(0, replica.length, VERIFY_BYTES):
                    size = min(VERIFY_BYTES, replica.length - start)
                    data = read_exactly(replica.descriptor, size, replica.offset + start)
                    first = start // BLOCK_BYTES * CHECKSUM_BYTES
                    expected = checksums[first : first + block_count(size) * CHECKSUM_BYTES]
                    verify_blocks(data, expected, f"chunk {handle:x} on chunkserver {self.identity.server_id}")
                    pause(size)
                return replica.length, digest(checksums)
        except ChunkCorruptError:
            self.quarantine(handle)
            raise

    def delete(self, handle: ChunkHandle) -> bool:
        """Whether it was here."""
        with self._corrupt_lock:
            self._corrupt.discard(handle)
        return self.files.delete(handle) or self.segments.delete(handle)

    def quarantine(self, handle: ChunkHandle) -> None:
        """Set a bad replica aside, where nobody reads it, and report it until somebody has heard."""
        log.error("chunk %x is corrupt and is set aside", handle)
        aside = self._directory / "quarantine"
        aside.mkdir(exist_ok=True)
        path = self.files.path(handle)
        kept = aside / path.name
        if self.files.length(handle) is not None and path.exists() and not kept.exists():
            os.link(path, kept)
        self.delete(handle)
        with self._corrupt_lock:
            self._corrupt.add(handle)

    def corrupt(self) -> list[ChunkHandle]:
        """Replicas set aside that have not been reported yet."""
        with self._corrupt_lock:
            return sorted(self._corrupt)

    def forget_corrupt(self, handles: list[ChunkHandle]) -> None:
        """These have been reported."""
        with self._corrupt_lock:
            self._corrupt.difference_update(handles)

    def handles_after(self, handle: ChunkHandle, limit: int) -> list[ChunkHandle]:
        """The next held chunks in rising order."""
        large = (found for found in self.files.handles() if found > handle)
        merged = heapq.merge(large, self._index.after(handle, limit))
        return [found for found, _ in zip(merged, range(limit), strict=False)]


def receive(sink: Sink, data: Buffer) -> bytes:
    """Store a whole chunk at once; its digest."""
    try:
        sink.write(memoryview(data))
        return sink.seal()
    finally:
        sink.abort()
