"""Copies a chunk from another chunkserver's data port, comparing every byte with its checksum on the way.

Used by `orders`, for the master's repairs and moves. It runs in the thread that calls it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

from helenite.chunkserver.store import ChunkStore
from helenite.core.checksum import verify_blocks
from helenite.core.dataport import DataConnection
from helenite.core.errors import (
    ChunkCorruptError,
    ChunkExistsError,
    ChunkNotFoundError,
    HeleniteError,
    UnavailableError,
)
from helenite.core.frames import ReadRequest
from helenite.core.model import BLOCK_BYTES, MIB, ChunkHandle, Chunkserver

log = logging.getLogger(__name__)

CONNECT_S = 3.0
PULL_S = 60.0
"""Patience with one source; a chunk is 64 MiB at most."""
PIECE_BYTES = MIB
"""Asked for at once; a multiple of the block."""


def pull(
    store: ChunkStore,
    handle: ChunkHandle,
    sources: tuple[Chunkserver, ...],
    capability: bytes,
    stopping: threading.Event,
) -> None:
    """Copy a chunk from the first source that can give it, unless a good replica is here already.

    The last source's error when none can.
    """
    if store.has(handle) and _is_good(store, handle):
        return
    problem: HeleniteError = ChunkNotFoundError(f"nobody was named who holds chunk {handle:x}")
    for source in sources:
        try:
            _pull_from(store, handle, source, capability, stopping)
        except ChunkExistsError:
            return
        except HeleniteError as error:
            log.warning("chunk %x cannot be copied from chunkserver %d: %s", handle, source.id, error)
            problem = error
        else:
            return
    raise problem


def _is_good(store: ChunkStore, handle: ChunkHandle) -> bool:
    """The master orders a copy when it takes ours for lost or bad; it may be right.

    ReplicaUnreadableError when that cannot be told: a replica that may be good is not written over.
    """
    try:
        store.verify(handle)
    except (ChunkCorruptError, ChunkNotFoundError) as error:
        log.warning("the replica that is here is not good: %s", error)
        return False
    return True


def _pull_from(
    store: ChunkStore, handle: ChunkHandle, source: Chunkserver, capability: bytes, stopping: threading.Event
) -> None:
    deadline = time.monotonic() + PULL_S
    cluster_id = bytes.fromhex(store.identity.cluster_id)
    connection = DataConnection.connect(source.id, source.data_address, source.data_socket, cluster_id, CONNECT_S)
    try:
        # One byte is asked for to learn the length; the block around it comes along.
        reply, first = connection.read(ReadRequest(handle, 0, 1, capability), CONNECT_S)
        verify_blocks(first, reply.checksums, f"chunk {handle:x} from chunkserver {source.id}")
        sink = store.begin(handle, reply.length)
        try:
            sink.write(first)
            for piece in _pieces(connection, handle, reply.length, capability, deadline):
                if stopping.is_set():
                    raise UnavailableError("this chunkserver is being stopped")
                sink.write(piece)
            sink.seal()
        finally:
            sink.abort()
    finally:
        connection.close()


def _pieces(
    connection: DataConnection, handle: ChunkHandle, length: int, capability: bytes, deadline: float
) -> Iterator[memoryview]:
    """The chunk behind its first block, compared with the checksums that came with it."""
    for offset in range(BLOCK_BYTES, length, PIECE_BYTES):
        size = min(PIECE_BYTES, length - offset)
        reply, piece = connection.read(
            ReadRequest(handle, offset, size, capability), max(0.01, deadline - time.monotonic())
        )
        if (reply.length, reply.offset, len(piece)) != (length, offset, size):
            raise ChunkCorruptError(f"another range of chunk {handle:x} came than was asked for")
        verify_blocks(piece, reply.checksums, f"a copy of chunk {handle:x}")
        yield piece
