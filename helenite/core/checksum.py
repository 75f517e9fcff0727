"""Checksums of chunks: one xxh3-64 for each block of 64 KiB, and a digest over those.

The writer computes them while it receives, each chunkserver computes its own, and whoever reads checks
(D1, D10). Pure.
"""

from __future__ import annotations

import xxhash

from helenite.core.errors import ChunkCorruptError
from helenite.core.model import BLOCK_BYTES

CHECKSUM_BYTES = 8
_hash = xxhash.xxh3_64_digest


def block_count(length_bytes: int) -> int:
    """Blocks of a chunk of this length; the last may be short."""
    return -(-length_bytes // BLOCK_BYTES)


def block_checksums(data: memoryview | bytes | bytearray) -> bytes:
    """The packed checksums (8 bytes each, big-endian) of `data`, which starts at a block's border."""
    view = memoryview(data)
    return b"".join(_hash(view[start : start + BLOCK_BYTES]) for start in range(0, len(view), BLOCK_BYTES))


def digest(checksums: bytes) -> bytes:
    """One 8-byte digest of a whole chunk, from its packed block checksums."""
    return _hash(checksums)


def verify_blocks(data: memoryview | bytes | bytearray, checksums: bytes, what: str) -> None:
    """Raise ChunkCorruptError when a block of `data` does not match; `what` names it in the message."""
    if block_checksums(data) != checksums:
        raise ChunkCorruptError(f"{what} does not match its checksums")
