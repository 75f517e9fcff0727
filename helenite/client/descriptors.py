"""Replicas on this machine, read through descriptors that their chunkserver passed (OPEN).

Used by `pool`. Chunks are immutable, so a descriptor stays right for as long as it is open; it is kept for a while,
and every block is verified again at every read. Thread-safe: one lock guards the table; a descriptor is closed when
the last reader has let go of it.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from helenite.client.connections import Connections
from helenite.core.checksum import CHECKSUM_BYTES, verify_blocks
from helenite.core.descriptors import descriptor_limit
from helenite.core.errors import ChunkCorruptError, ReplicaUnreadableError
from helenite.core.frames import OpenRequest
from helenite.core.model import BLOCK_BYTES, ChunkHandle, Location, ServerId

KEPT_MAX = 4096
"""Descriptors kept open in one process, if that is at most a quarter of what the system allows."""
NO_WAIT: int = getattr(os, "RWF_NOWAIT", 0)
"""Read only what the kernel remembers (Linux); elsewhere a read may wait for its disk."""
KEPT_S = 30.0
"""A deleted chunk's space returns only when its descriptor is closed, so it is not used longer than this."""


@dataclass(slots=True)
class _Replica:
    descriptor: int
    offset: int
    length: int
    checksums: bytes
    opened_at: float
    users: int = field(default=0)
    is_dropped: bool = field(default=False)


class Descriptors:
    """A bounded table of open replicas."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._lock = threading.Lock()  # guards the table and the users of each replica
        self._open: OrderedDict[ChunkHandle, _Replica] = OrderedDict()

    def close(self) -> None:
        with self._lock:
            for replica in self._open.values():
                self._drop(replica)
            self._open.clear()

    def forget(self, handle: ChunkHandle) -> None:
        """Drop a replica that proved bad."""
        with self._lock:
            if (replica := self._open.pop(handle, None)) is not None:
                self._drop(replica)

    def read(
        self, server: ServerId, location: Location, offset: int, length: int, patience_s: float
    ) -> memoryview | None:
        """Verified bytes of a replica on this machine; None when the server's descriptors cannot reach us.

        ChunkCorruptError when the file is shorter than it should be or its bytes are wrong, ReplicaUnreadableError when
        the disk does not give them.
        """
        replica = self._acquire(location.handle)
        if replica is None:
            replica = self._open_new(server, location, patience_s)
        if replica is None:
            return None
        try:
            return _read_verified(replica, location.handle, offset, length)
        finally:
            self._release(replica)

    def read_kept(
        self, handle: ChunkHandle, offset: int, length: int, into: memoryview | None = None
    ) -> memoryview | None:
        """The same from a replica that is open already and remembered by the kernel, so that no disk is waited for.

        None when that is not so, or when the bytes are wrong: `read` says what is the matter. `into` has room for the
        whole blocks around the range; the answer is a part of it.
        """
        replica = self._acquire(handle)
        if replica is None:
            return None
        try:
            return _read_verified(replica, handle, offset, length, NO_WAIT, into)
        except (ChunkCorruptError, ReplicaUnreadableError, BlockingIOError):
            return None
        finally:
            self._release(replica)

    def _acquire(self, handle: ChunkHandle) -> _Replica | None:
        with self._lock:
            replica = self._open.get(handle)
            if replica is None:
                return None
            if time.monotonic() - replica.opened_at > KEPT_S:
                self._drop(self._open.pop(handle))
                return None
            replica.users += 1
            return replica

    def _open_new(self, server: ServerId, location: Location, patience_s: float) -> _Replica | None:
        if server not in self._connections.near():
            return None
        with self._connections.borrow(server, patience_s) as connection:
            if not connection.is_local:
                return None
            reply, descriptor = connection.open(OpenRequest(location.handle, location.capability), patience_s)
        replica = _Replica(descriptor, reply.offset, reply.length, reply.checksums, time.monotonic(), users=1)
        with self._lock:
            if location.handle in self._open:
                self._drop(self._open.pop(location.handle))
            self._open[location.handle] = replica
            self._make_room()
        return replica

    def _make_room(self) -> None:
        """Close what was opened long ago, or first; the lock is held."""
        now, kept_max = time.monotonic(), min(KEPT_MAX, descriptor_limit() // 4)
        while self._open:
            oldest = next(iter(self._open.values()))
            if len(self._open) <= kept_max and now - oldest.opened_at <= KEPT_S:
                return
            self._drop(self._open.popitem(last=False)[1])

    def _release(self, replica: _Replica) -> None:
        with self._lock:
            replica.users -= 1
            if replica.is_dropped and replica.users == 0:
                os.close(replica.descriptor)

    def _drop(self, replica: _Replica) -> None:
        """Close now or when the last user lets go; the lock is held."""
        replica.is_dropped = True
        if replica.users == 0:
            os.close(replica.descriptor)


def _read_verified(
    replica: _Replica, handle: ChunkHandle, offset: int, length: int, flags: int = 0, into: memoryview | None = None
) -> memoryview:
    """Read the whole blocks around the range and check them. The checked bytes are the ones that are sent.

    BlockingIOError when `flags` forbid to wait for the disk. Not by mmap: a replica that is cut short meanwhile would
    end the process with SIGBUS.
    """
    first = offset // BLOCK_BYTES
    start = first * BLOCK_BYTES
    end = min(-(-(offset + length) // BLOCK_BYTES) * BLOCK_BYTES, replica.length)
    buffer = memoryview(bytearray(end - start)) if into is None else into[: end - start]
    got = 0
    while got < len(buffer):
        try:
            count = os.preadv(replica.descriptor, [buffer[got:]], replica.offset + start + got, flags)
        except BlockingIOError:
            raise
        except OSError as error:
            raise ReplicaUnreadableError(f"this machine's disk does not give chunk {handle:x}: {error}") from error
        if count == 0:
            raise ChunkCorruptError(f"the replica of chunk {handle:x} on this machine is cut short")
        got += count
    blocks = -(-(end - start) // BLOCK_BYTES)
    checksums = replica.checksums[first * CHECKSUM_BYTES : (first + blocks) * CHECKSUM_BYTES]
    verify_blocks(buffer, checksums, f"the replica of chunk {handle:x} on this machine")
    return buffer[offset - start : offset - start + length]
