"""Which replicas on this disk cannot be trusted, and whether the disk can.

Used by `store`, which notes here what every look at a replica shows. Four things can be wrong:

    corrupt     bytes and checksums differ, or the record is cut short: refused to readers and reported, at once
    missing     not here though somebody has the name from the chunk table: reported
    unreadable  the disk does not give the bytes now: nothing follows but another look; a replica that is still
                unreadable after PERSISTS_S is taken for corrupt
    sick        so many replicas are unreadable at the same time that it is the disk: none is condemned, and `peers`
                falls silent, so that the cluster counts on other replicas, until the disk is well

Nothing is deleted because of what is noted: the bytes may be the last there are. A copy from a peer replaces them, or a
master orders their deletion. All of it is forgotten at a restart; the scrub, readers and chunk reports come across the
same replicas again. Thread-safe: one lock guards everything; it does no I/O.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from helenite.core.clock import Clock
from helenite.core.model import ChunkHandle

log = logging.getLogger(__name__)

PERSISTS_S = 60.0
"""Cables, controllers and network disks recover within this; a bad sector does not."""
SICK_AT = 8
"""Replicas unreadable at the same time that speak against the disk."""
WELL_BELOW = 4
"""The disk is well again when fewer are left."""
UNREADABLE_MAX = 64
"""Remembered to look at again; more of them say nothing new."""
BAD_MAX = 100_000
"""Refused or to be reported, about 100 bytes each. What does not fit is found again."""


@dataclass(slots=True)
class Doubt:
    """A replica was found unreadable, for the first time since it was last good."""

    since: float
    looked_at: float


class BadReplicas:
    """What is wrong with the replicas of one chunkserver."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # guards all below
        self._refused: set[ChunkHandle] = set()
        self._to_report: set[ChunkHandle] = set()
        self._doubts: dict[ChunkHandle, Doubt] = {}
        self._is_sick = False

    @property
    def is_sick(self) -> bool:
        """Whether the disk as a whole fails to give what it holds."""
        return self._is_sick

    @property
    def refused_count(self) -> int:
        return len(self._refused)

    def refuses(self, handle: ChunkHandle) -> bool:
        """Whether readers must not get this replica."""
        return handle in self._refused

    def note_corrupt(self, handle: ChunkHandle) -> None:
        with self._lock:
            self._clear_doubt(handle)
            self._condemn(handle, "corrupt")

    def note_missing(self, handle: ChunkHandle) -> None:
        with self._lock:
            self._clear_doubt(handle)
            self._report(handle)

    def note_unreadable(self, handle: ChunkHandle) -> None:
        with self._lock:
            now = self._clock.monotonic_s()
            doubt = self._doubts.pop(handle, None) or Doubt(now, now)
            doubt.looked_at = now
            if now - doubt.since >= PERSISTS_S and not self._is_sick:
                self._condemn(handle, f"unreadable since {now - doubt.since:.0f} s")
                return
            if handle not in self._refused and len(self._doubts) < UNREADABLE_MAX:
                self._doubts[handle] = doubt
            if len(self._doubts) >= SICK_AT and not self._is_sick:
                self._is_sick = True
                log.critical(
                    "THE DISK IS SICK: %d replicas cannot be read. The scrub stops, nothing is deleted, masters hear "
                    "nothing from here until it is well. Replace it if it stays so",
                    len(self._doubts),
                )

    def note_good(self, handle: ChunkHandle) -> None:
        """Every byte was compared, or a good copy has just replaced it; also for one that was deleted."""
        with self._lock:
            self._clear_doubt(handle)
            self._refused.discard(handle)
            self._to_report.discard(handle)

    def doubtful(self) -> list[ChunkHandle]:
        """Replicas to look at again, the one that waits longest first."""
        with self._lock:
            return sorted(self._doubts, key=lambda handle: self._doubts[handle].looked_at)

    def reports(self, limit: int) -> list[ChunkHandle]:
        """Bad and missing replicas that the leader has not heard of yet."""
        with self._lock:
            return sorted(self._to_report)[:limit]

    def heard(self, handles: Iterable[ChunkHandle]) -> None:
        """The leader knows of these now."""
        with self._lock:
            self._to_report.difference_update(handles)

    def _condemn(self, handle: ChunkHandle, why: str) -> None:
        is_news = handle not in self._refused
        if self._report(handle):
            self._refused.add(handle)
        if handle in self._refused and is_news:
            log.error("chunk %x is %s: its replica here is refused and kept until another replaces it", handle, why)

    def _report(self, handle: ChunkHandle) -> bool:
        """Whether there is room for it."""
        if max(len(self._refused), len(self._to_report)) >= BAD_MAX:
            log.error("more than %d replicas are bad; chunk %x waits for the next look", BAD_MAX, handle)
            return False
        self._to_report.add(handle)
        return True

    def _clear_doubt(self, handle: ChunkHandle) -> None:
        self._doubts.pop(handle, None)
        if self._is_sick and len(self._doubts) < WELL_BELOW:
            self._is_sick = False
            now = self._clock.monotonic_s()
            for doubt in self._doubts.values():
                doubt.since = now  # the time that the disk was sick proves nothing about a single replica
            log.warning("the disk is well again")
