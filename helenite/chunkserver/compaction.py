"""Compaction: gives the space of dead records back by writing the living ones of some segments again.

Used by `store`, in one thread at a time. The copies are durable and in the index before the old segments go, so no kill
at any point loses a chunk; a descriptor that was opened before keeps the old file. Writers are not held up: the copies
go to a segment of their own.
"""

from __future__ import annotations

import logging
import threading
from typing import BinaryIO

from helenite.chunkserver.appender import Appender
from helenite.chunkserver.disk import disk_errors, read_exactly
from helenite.chunkserver.index import Place
from helenite.chunkserver.layout import ChunkHeader, Tombstone, size_of
from helenite.chunkserver.segment_file import Found
from helenite.chunkserver.segments import Fill, Segments
from helenite.core.errors import ChunkCorruptError, ReplicaUnreadableError, UnavailableError
from helenite.core.model import ChunkHandle

log = logging.getLogger(__name__)

REWRITE_BELOW = 0.5
"""A segment with less than this share of living bytes is rewritten: disk use stays below twice of what lives."""
REWRITE_BELOW_WHEN_FULL = 0.95
"""The same when there is hardly any room left for chunks."""
SMALL_SHARE = 1 / 16
"""A segment below this share of the full size is small, as each restart leaves one."""
SMALL_MAX = 16
"""So many small segments are merged."""


def choose_victims(fills: dict[int, Fill], below: float, segment_bytes: int) -> list[int]:
    """The segments to rewrite into one: the deadest first, as many as fit, then small ones. Pure."""
    dead = sorted((n for n, fill in fills.items() if fill.living < below * fill.size), key=lambda n: fills[n].living)
    dead += [n for n, fill in fills.items() if fill.size == 0]
    small = [n for n, fill in fills.items() if fill.size < SMALL_SHARE * segment_bytes and n not in dead]
    wanted = dead + (small if dead or len(small) >= SMALL_MAX else [])
    victims: list[int] = []
    total = 0
    for number in wanted:
        total += fills[number].living
        if victims and total > segment_bytes:
            break
        victims.append(number)
    return victims


def compact(segments: Segments, below: float, stopping: threading.Event) -> int:
    """Rewrite some segments if any is worth it; bytes gained, 0: there was nothing to do.

    When `stopping` is set it gives up with UnavailableError; the half-written copies count as dead at the next start.
    """
    fills = segments.fills()
    victims = choose_victims(fills, below, segments.segment_bytes)
    if not victims:
        return 0
    with disk_errors("compacting segments"):
        written = _rewrite(segments, victims, stopping)
        for number in victims:
            segments.drop(number)
    gained = sum(fills[number].size for number in victims) - written
    log.info("compaction of %d segments gave %d bytes back", len(victims), gained)
    return max(1, gained)


def _rewrite(segments: Segments, victims: list[int], stopping: threading.Event) -> int:
    """Copy what lives in the victims to a new segment, then let the index point there; bytes written."""
    standing = segments.numbers()
    copies = segments.new_appender()
    try:
        moves = [move for number in victims for move in _copy(segments, number, standing, copies, stopping)]
        copies.finish()
    finally:
        copies.close()
    segments.adopt(copies)
    for handle, old, new in moves:
        segments.move(handle, old, new)
    return copies.end


def _copy(
    segments: Segments, number: int, standing: set[int], copies: Appender, stopping: threading.Event
) -> list[tuple[ChunkHandle, Place, Place]]:
    """Append what is needed of one segment; each chunk's old and new place. One that cannot be read is let be."""
    try:
        return _copy_records(segments, number, standing, copies, stopping)
    except (ChunkCorruptError, ReplicaUnreadableError):
        segments.spare(number)
        raise


def _copy_records(
    segments: Segments, number: int, standing: set[int], copies: Appender, stopping: threading.Event
) -> list[tuple[ChunkHandle, Place, Place]]:
    moves: list[tuple[ChunkHandle, Place, Place]] = []
    with segments.path(number).open("rb") as file:
        for record in segments.records(number):
            if stopping.is_set():
                raise UnavailableError("compaction is given up, this chunkserver is being stopped")
            match record.header:
                case ChunkHeader(handle, length):
                    old = Place(number, record.offset, length)
                    if segments.find(handle) == old:
                        moves.append((handle, old, Place(copies.number, _append(file, record, copies), length)))
                case Tombstone(_, segment, _):
                    if segment in standing and segment != number:  # the record that it is for goes later, or stays
                        _append(file, record, copies)
    return moves


def _append(file: BinaryIO, record: Found, copies: Appender) -> int:
    offset, _ = copies.append([read_exactly(file.fileno(), size_of(record.header), record.offset)])
    return offset
