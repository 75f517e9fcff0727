"""How a chunk lies on disk: one record format for a large chunk's own file and for a small one inside a segment. Pure.

    header 40 B   magic 8 B, kind u8, 7 B zero, handle u64, length u64, xxh3-64 of the 32 bytes before
    data          `length` bytes
    checksums     8 B for each started block of 64 KiB

So a replica is always one contiguous range of a file: sendfile and passed descriptors work for both. A tombstone is a
header with no data whose handle is gone. All integers are big-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

import xxhash

from helenite.core.checksum import CHECKSUM_BYTES, block_count
from helenite.core.errors import ChunkCorruptError
from helenite.core.model import BLOCK_BYTES, CHUNK_BYTES_MAX, ChunkHandle

MAGIC = b"HLNCHNK1"
_FIELDS = struct.Struct(">8sB7xQQ")
HEADER_BYTES = _FIELDS.size + CHECKSUM_BYTES


class RecordKind(IntEnum):
    """What a record says about its handle."""

    CHUNK = 1
    TOMBSTONE = 2


@dataclass(frozen=True, slots=True)
class Header:
    """The head of a record."""

    kind: RecordKind
    handle: ChunkHandle
    length: int

    @property
    def record_bytes(self) -> int:
        """Size of the whole record."""
        return record_bytes(self.length)


def record_bytes(length: int) -> int:
    """Size of the record of a chunk with `length` bytes."""
    return HEADER_BYTES + length + block_count(length) * CHECKSUM_BYTES


def encode_header(header: Header) -> bytes:
    fields = _FIELDS.pack(MAGIC, header.kind, header.handle, header.length)
    return fields + xxhash.xxh3_64_digest(fields)


def parse_header(packed: bytes) -> Header:
    """ChunkCorruptError when these bytes are no header."""
    fields = packed[: _FIELDS.size]
    if len(packed) != HEADER_BYTES or xxhash.xxh3_64_digest(fields) != packed[_FIELDS.size :]:
        raise ChunkCorruptError("no header of a chunk stands where one should")
    magic, kind, handle, length = _FIELDS.unpack(fields)
    if magic != MAGIC or kind not in {RecordKind.CHUNK, RecordKind.TOMBSTONE} or length > CHUNK_BYTES_MAX:
        raise ChunkCorruptError("no header of a chunk stands where one should")
    return Header(RecordKind(kind), ChunkHandle(handle), length)


def covering_blocks(offset: int, length: int, chunk_length: int) -> tuple[int, int]:
    """The whole blocks around a range: where they start in the chunk, and how many bytes they are."""
    start = offset // BLOCK_BYTES * BLOCK_BYTES
    end = min(-(-(offset + length) // BLOCK_BYTES) * BLOCK_BYTES, chunk_length)
    return start, end - start
