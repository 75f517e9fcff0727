"""What stands in a closed segment: found by scanning it, or read from the listing beside it.

Used by `segments`. A listing makes rebuilding the index cheap: it has the headers without the data between them. It is
written when a segment is closed for good, after the segment has been synced, and is believed only if it is whole and
speaks of a file of this size. Damage inside a segment costs the damaged record only: the scan looks for the next one.
So does a place that the disk does not give; but then the scan says so, as there may be more than it has found.
"""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass
from pathlib import Path

import xxhash

from helenite.chunkserver.disk import read_exactly, write_durably
from helenite.chunkserver.layout import (
    HEADER_BYTES,
    MAGIC,
    ChunkHeader,
    Header,
    pack_detail,
    parse_header,
    size_of,
    unpack_detail,
)
from helenite.core.checksum import block_checksums
from helenite.core.errors import ChunkCorruptError, ReplicaUnreadableError
from helenite.core.model import MIB

log = logging.getLogger(__name__)

SEARCH_BYTES = MIB
"""Read at once while looking for the next record behind damage."""
UNREADABLE_MAX = 16
"""Places of one segment that the disk may fail to give; beyond them the disk is not fit to start on."""
_LISTING_MAGIC = b"HLNLIST1"
_LISTING = struct.Struct(">8sQ")
_LISTED = struct.Struct(">QQIB")


@dataclass(frozen=True, slots=True)
class Found:
    """A record of a segment."""

    header: Header
    offset: int


@dataclass(frozen=True, slots=True)
class Scan:
    """What was found in a segment."""

    records: list[Found]
    unreadable: int
    """Places that the disk did not give: behind each there may be records that are not listed here."""
    end: int
    """Where the file ends but for zeros, which the appender writes ahead."""


def scan(descriptor: int, size: int) -> Scan:
    """All whole records of a segment, in file order; ReplicaUnreadableError when too much of it cannot be read."""
    found: list[Found] = []
    offset = unreadable = 0
    while True:
        try:
            here = _next_record(descriptor, offset, size)
            is_padded = here is None and _is_zero(descriptor, offset, size)
        except ReplicaUnreadableError as error:
            unreadable += 1
            if unreadable > UNREADABLE_MAX:
                raise
            log.error("a segment is unreadable somewhere behind %d: %s", offset, error)
            offset = min(size, offset + SEARCH_BYTES)
            continue
        if here is None:
            return Scan(found, unreadable, offset if is_padded and not unreadable else size)
        found.append(here)
        offset = here.offset + size_of(here.header)


def _next_record(descriptor: int, offset: int, size: int) -> Found | None:
    """The record at `offset`, or the next one behind it."""
    if offset == size:
        return None
    header = _header_at(descriptor, offset, size)
    if header is not None:
        return Found(header, offset)
    behind = _search(descriptor, offset + 1, size)
    if behind is None:
        if not _is_zero(descriptor, offset, size):
            log.warning("a segment ends torn: %d of %d bytes are whole", offset, size)
    else:
        log.error("a segment is damaged: no record from %d to %d", offset, behind.offset)
    return behind


def _is_zero(descriptor: int, start: int, end: int) -> bool:
    """Whether there is nothing but zeros."""
    while start < end:
        piece = read_exactly(descriptor, min(SEARCH_BYTES, end - start), start)
        if bytes(piece).strip(b"\0"):
            return False
        start += len(piece)
    return True


def _header_at(descriptor: int, offset: int, size: int) -> Header | None:
    """The header at `offset`, if one stands there and its record fits into the file."""
    try:
        header = parse_header(read_exactly(descriptor, HEADER_BYTES, offset))
    except ChunkCorruptError:
        return None
    return header if offset + size_of(header) <= size else None


def _search(descriptor: int, start: int, size: int) -> Found | None:
    """The first chunk behind `start` whose data matches its checksums: a mere header may be part of somebody's data."""
    while start + HEADER_BYTES <= size:
        window = bytes(read_exactly(descriptor, min(SEARCH_BYTES, size - start), start))
        at = window.find(MAGIC)
        while at >= 0:
            header = _header_at(descriptor, start + at, size)
            if isinstance(header, ChunkHeader) and _is_intact(descriptor, header, start + at):
                return Found(header, start + at)
            at = window.find(MAGIC, at + 1)
        start += max(1, len(window) - len(MAGIC) + 1)
    return None


def _is_intact(descriptor: int, header: ChunkHeader, offset: int) -> bool:
    record = read_exactly(descriptor, size_of(header), offset)
    end = HEADER_BYTES + header.length
    return block_checksums(record[HEADER_BYTES:end]) == record[end:]


def save_listing(path: Path, size: int, records: list[Found]) -> None:
    """Write the listing of a synced segment of `size` bytes."""
    parts = [_LISTING.pack(_LISTING_MAGIC, size)]
    for record in records:
        kind, detail = pack_detail(record.header)
        parts.append(_LISTED.pack(record.header.handle, detail, record.offset, kind))
    packed = b"".join(parts)
    write_durably(path, packed + xxhash.xxh3_64_digest(packed))


def load_listing(path: Path, size: int) -> list[Found] | None:
    """The records of a segment of `size` bytes; None when the listing is missing or cannot be believed."""
    try:
        whole = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("the listing %s cannot be read: %s", path.name, error)
        return None
    packed, checksum = whole[:-8], whole[-8:]
    if xxhash.xxh3_64_digest(packed) != checksum or packed[: _LISTING.size] != _LISTING.pack(_LISTING_MAGIC, size):
        log.warning("the listing %s does not belong to its segment", path.name)
        return None
    listed = _LISTED.iter_unpack(packed[_LISTING.size :])
    return [Found(unpack_detail(kind, handle, detail), offset) for handle, detail, offset, kind in listed]
