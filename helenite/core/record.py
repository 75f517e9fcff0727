"""The packed record of an entry: how one file or directory is stored in Redis and sent to clients.

Big-endian, fixed header, the digest if there is one, then the extents; the Lua scripts read and write these fields, so
every offset here is part of the key space (helenite/DESIGN.md). An entry's name is not in its record: it is the
hash field beside it. Pure.

    0  u8   kind: 1 file, 2 directory
    1  u8   flags: bit 0 = the extents stand in a key of their own, the record has none (a look-up puts them back);
            bit 1 = the entry has dead properties
            bit 2 = the SHA-256 of the content is known and follows the header
    2  u64  id
    10 u64  revision (of a directory: replaced by its subtree sequence when a script hands the record out)
    18 u64  size in bytes
    26 u64  modified_at_ms
    34 u64  created_at_ms
    42 32 bytes SHA-256, if bit 2 is set; then, or at once
       n x (u64 handle, u32 offset, u32 length)
"""

from __future__ import annotations

import struct

from helenite.core.errors import ProtocolError
from helenite.core.model import ChunkHandle, Entry, EntryId, Extent, Kind, Sequence

HEADER = struct.Struct(">BBQQQQQ")
EXTENT = struct.Struct(">QII")
FLAG_OVERFLOW = 1
FLAG_DIGEST = 4
SHA256_BYTES = 32
INLINE_EXTENTS_MAX = 12
"""More extents than this (one less beside a digest) overflow into a key of their own, so that a record stays under 256
bytes and its directory's hash stays compact (hash-max-listpack-value 256)."""

KIND_BY_CODE = {1: Kind.FILE, 2: Kind.DIRECTORY}
_CODE_BY_KIND = {kind: code for code, kind in KIND_BY_CODE.items()}


def encode_extents(extents: tuple[Extent, ...]) -> bytes:
    return b"".join(EXTENT.pack(e.handle, e.offset, e.length) for e in extents)


def decode_extents(packed: bytes) -> tuple[Extent, ...]:
    try:
        return tuple(Extent(ChunkHandle(h), o, n) for h, o, n in EXTENT.iter_unpack(packed))
    except struct.error as error:
        raise ProtocolError(f"{len(packed)} bytes are no list of extents") from error


def extents_at(packed: bytes) -> int:
    """Where in a record its extents begin."""
    return HEADER.size + (SHA256_BYTES if packed[1] & FLAG_DIGEST else 0)


def encode_record(entry: Entry) -> bytes:
    """Pack an entry with its extents inline."""
    head = HEADER.pack(
        _CODE_BY_KIND[entry.kind],
        FLAG_DIGEST if entry.sha256 else 0,
        entry.id,
        entry.revision,
        entry.size_bytes,
        entry.modified_at_ms,
        entry.created_at_ms,
    )
    return head + entry.sha256 + encode_extents(entry.extents)


def decode_record(name: str, packed: bytes) -> Entry:
    """Unpack a record. Extents that overflowed are there only if it comes from a look-up (Entry.lacks_extents)."""
    try:
        code, _flags, entry_id, revision, size, modified, created = HEADER.unpack_from(packed)
        kind = KIND_BY_CODE[code]
    except (struct.error, KeyError) as error:
        raise ProtocolError(f"{len(packed)} bytes are no record of an entry") from error
    begin = extents_at(packed)
    extents = decode_extents(packed[begin:]) if len(packed) > begin else ()
    sha256 = packed[HEADER.size : begin]
    if len(packed) < begin:
        raise ProtocolError(f"a record of {len(packed)} bytes has no room for its digest")
    return Entry(name, kind, EntryId(entry_id), Sequence(revision), size, modified, created, extents, sha256)
