"""How a chunk lies on disk: one record format for a large chunk's own file and for a small one inside a segment. Pure.

    header 40 B   magic 8 B, kind u8, 7 B zero, handle u64, detail u64, xxh3-64 of the 32 bytes before
    data          of a chunk: `detail` bytes
    checksums     of a chunk: 8 B for each started block of 64 KiB

So a replica is always one contiguous range of a file: sendfile and passed descriptors work for both. A tombstone is a
header only. It says that one certain record is gone: its detail is that record's place, segment u32 and offset u32, so
that a chunk which comes back later, or was moved by compaction, is not hit. All integers are big-endian.
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
class ChunkHeader:
    """The head of a chunk's record."""

    handle: ChunkHandle
    length: int


@dataclass(frozen=True, slots=True)
class Tombstone:
    """The chunk's record that begins at `offset` of `segment` is gone."""

    handle: ChunkHandle
    segment: int
    offset: int


Header = ChunkHeader | Tombstone


def record_bytes(length: int) -> int:
    """Size of the record of a chunk with `length` bytes."""
    return HEADER_BYTES + length + block_count(length) * CHECKSUM_BYTES


def size_of(header: Header) -> int:
    """Size of the whole record that begins with this header."""
    match header:
        case ChunkHeader():
            return record_bytes(header.length)
        case Tombstone():
            return HEADER_BYTES


def pack_detail(header: Header) -> tuple[RecordKind, int]:
    """Kind and detail."""
    match header:
        case ChunkHeader():
            return RecordKind.CHUNK, header.length
        case Tombstone():
            return RecordKind.TOMBSTONE, header.segment << 32 | header.offset


def unpack_detail(kind: int, handle: int, detail: int) -> Header:
    """ChunkCorruptError when there is no such header."""
    if kind == RecordKind.CHUNK and 1 <= detail <= CHUNK_BYTES_MAX:
        return ChunkHeader(ChunkHandle(handle), detail)
    if kind == RecordKind.TOMBSTONE:
        return Tombstone(ChunkHandle(handle), detail >> 32, detail & 0xFFFFFFFF)
    raise ChunkCorruptError("no header of a chunk stands where one should")


def encode_header(header: Header) -> bytes:
    kind, detail = pack_detail(header)
    fields = _FIELDS.pack(MAGIC, kind, header.handle, detail)
    return fields + xxhash.xxh3_64_digest(fields)


def parse_header(packed: bytes | memoryview) -> Header:
    """ChunkCorruptError when these bytes are no header."""
    fields = packed[: _FIELDS.size]
    if len(packed) != HEADER_BYTES or xxhash.xxh3_64_digest(fields) != packed[_FIELDS.size :]:
        raise ChunkCorruptError("no header of a chunk stands where one should")
    magic, kind, handle, detail = _FIELDS.unpack(fields)
    if magic != MAGIC:
        raise ChunkCorruptError("no header of a chunk stands where one should")
    return unpack_detail(kind, handle, detail)


def length_in_file(file_bytes: int) -> int:
    """The length of the chunk whose record fills a file of this size."""
    rest = max(0, file_bytes - HEADER_BYTES)
    blocks = -(-rest // (BLOCK_BYTES + CHECKSUM_BYTES))
    return max(0, rest - blocks * CHECKSUM_BYTES)


def covering_blocks(offset: int, length: int, chunk_length: int) -> tuple[int, int]:
    """The whole blocks around a range: where they start in the chunk, and how many bytes they are."""
    start = offset // BLOCK_BYTES * BLOCK_BYTES
    end = min(-(-(offset + length) // BLOCK_BYTES) * BLOCK_BYTES, chunk_length)
    return start, end - start
