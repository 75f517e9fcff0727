"""Chunk stores for tests: filled, read, killed."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

from helenite.chunkserver.store import ChunkStore
from helenite.core.checksum import block_checksums, digest
from helenite.core.model import SEGMENT_CHUNK_BYTES_MAX, ChunkHandle

LARGE = SEGMENT_CHUNK_BYTES_MAX + 12_345


def put(store: ChunkStore, handle: int, size: int) -> bytes:
    """Store a chunk whose content follows from its handle and size."""
    data = random.Random(handle * 31 + size).randbytes(size)
    sink = store.begin(ChunkHandle(handle), size)
    try:
        sink.write(memoryview(data))
        assert sink.seal() == digest(block_checksums(data))
    finally:
        sink.abort()
    return data


def read(store: ChunkStore, handle: int) -> bytes:
    with store.open(ChunkHandle(handle)) as replica:
        return os.pread(replica.descriptor, replica.length, replica.offset)


def path_of(store: ChunkStore, handle: int) -> tuple[Path, int]:
    """The file that holds a chunk, and where the chunk begins in it."""
    with store.open(ChunkHandle(handle)) as replica:
        return Path(f"/proc/self/fd/{replica.descriptor}").readlink(), replica.offset


def assert_holds(store: ChunkStore, expected: dict[int, bytes]) -> None:
    """The store has these chunks and no others, and all are intact."""
    held = list(store.handles())
    assert held == sorted(expected), f"lost: {set(expected) - set(held)}, not deleted: {set(held) - set(expected)}"
    assert store.chunk_count() == len(expected)
    for handle, data in expected.items():
        assert read(store, handle) == data
        assert store.verify(ChunkHandle(handle)) == (len(data), digest(block_checksums(data)))


def snapshot(directory: Path, into: Path) -> None:
    """The files as a kill at this moment would leave them."""
    shutil.copytree(directory, into, ignore=shutil.ignore_patterns("lock"))
