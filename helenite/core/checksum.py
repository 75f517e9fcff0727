"""Checksums of chunks: one xxh3-64 for each block of 64 KiB, and a digest over those.

The writer computes them while it receives, each chunkserver computes its own, and whoever reads checks. Pure.
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


class BlockChecksums:
    """The packed checksums of data that arrives in pieces of any size."""

    def __init__(self) -> None:
        self._done: list[bytes] = []
        self._partial = xxhash.xxh3_64()
        self._partial_bytes = 0

    def add(self, piece: memoryview) -> None:
        """The next bytes."""
        if self._partial_bytes:
            head = piece[: BLOCK_BYTES - self._partial_bytes]
            self._add_partial(head)
            piece = piece[len(head) :]
        whole = len(piece) // BLOCK_BYTES * BLOCK_BYTES
        if whole:
            self._done.append(block_checksums(piece[:whole]))
        if whole < len(piece):
            self._add_partial(piece[whole:])

    def finish(self) -> bytes:
        """All checksums; the last block may be short."""
        if self._partial_bytes:
            self._close_block()
        return b"".join(self._done)

    def _add_partial(self, piece: memoryview) -> None:
        self._partial.update(piece)
        self._partial_bytes += len(piece)
        if self._partial_bytes == BLOCK_BYTES:
            self._close_block()

    def _close_block(self) -> None:
        self._done.append(self._partial.digest())
        self._partial.reset()
        self._partial_bytes = 0


def digest(checksums: bytes) -> bytes:
    """One 8-byte digest of a whole chunk, from its packed block checksums."""
    return _hash(checksums)


def verify_blocks(data: memoryview | bytes | bytearray, checksums: bytes, what: str) -> None:
    """Raise ChunkCorruptError when a block of `data` does not match; `what` names it in the message."""
    if block_checksums(data) != checksums:
        raise ChunkCorruptError(f"{what} does not match its checksums")
