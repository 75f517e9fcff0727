"""Chunk reports: when the leader asks for one, and what follows from it.

A report finds orphans, which the server is then ordered to delete; and it names replicas that the table lacks, and by
what it leaves out those that may have vanished. Both kinds the server is ordered to look at: a report takes time, so
nothing about a replica is concluded from it alone. The guard hears of chunks that the metadata cannot know, and of too
many orphans at once. One lock guards the tables; reports come in gRPC's threads.
"""

from __future__ import annotations

import logging
import random
import threading
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from helenite.core.clock import Clock
from helenite.core.errors import InvalidRequestError
from helenite.core.model import ChunkHandle, Chunkserver, ServerId, ServerState
from helenite.master.namespace import Namespace
from helenite.master.stored import ReportPage

log = logging.getLogger(__name__)

AT_ONCE = 2
"""Reports asked for at the same time: each takes one of the service's threads and much of Redis."""
ASKED_S = 5.0
"""A server that has not beaten for so long does not hold up the next one's report."""
SLICE = 2_000
"""Chunks compared by one script: a few milliseconds of Redis."""
CHUNKS_MAX = 20_000_000
"""Of one report, 8 bytes each."""
VERIFY_MAX = 100_000
"""Replicas that one server is yet to look at; the next report names the rest."""
REPORT_AGAIN_S = 60.0
"""And comes so soon."""
VERIFY_PER_BEAT = 1_000
HANDLE_MAX = 10**14
"""The largest number that Lua prints exactly; no cluster comes near."""
ORPHANS_MIN = 1_000
ORPHANS_SHARE = 0.05
"""More orphans than both in one report are no remains of uploads: a part of the metadata must be missing."""
SPREAD = 0.25
"""Servers that started together do not report together for ever."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A server's latest complete report: the life of Redis that judged it, and when the next is due."""

    life: int
    due_at: float


@dataclass(slots=True)
class Report:
    """A report while it is heard."""

    server: ServerId
    registration: int
    """How often the server had registered when it began."""
    held: array[int] = field(default_factory=lambda: array("Q"))
    orphans: array[int] = field(default_factory=lambda: array("Q"))
    doubtful: array[int] = field(default_factory=lambda: array("Q"))
    """Replicas that the server is to look at: first those that the table lacks."""
    surprising: int = 0
    first: ReportPage | None = None

    def add(self, handles: list[int], page: ReportPage) -> None:
        self.first = self.first or page
        self.held.extend(handles)
        self.orphans.extend(page.orphans)
        self.doubtful.extend(page.unnamed[: VERIFY_MAX - len(self.doubtful)])
        self.surprising += page.surprising


def is_suspicious(surprising: int, reported: int) -> bool:
    """Whether so many orphans speak against the metadata."""
    return surprising > max(ORPHANS_MIN, ORPHANS_SHARE * reported)


def find_missing(named: Iterable[int], held: array[int], newest: int) -> Iterator[int]:
    """Chunks up to `newest` that the table names and the server did not; `held` is sorted."""
    for handle in named:
        at = bisect_left(held, handle)
        if handle <= newest and (at == len(held) or held[at] != handle):
            yield handle


class Reports:
    """What the leader has heard of each chunkserver's chunks."""

    def __init__(self, namespace: Namespace, clock: Clock, *, report_s: float, orphan_age_s: int) -> None:
        self._namespace = namespace
        self._clock = clock
        self._report_s = report_s
        self._orphan_age_s = orphan_age_s
        self._rng = random.Random(clock.now_ms())
        self._lock = threading.Lock()  # guards all below
        self._epoch = 0
        self._life = 0
        self._heard: dict[ServerId, Heard] = {}
        self._asked: dict[ServerId, float] = {}
        self._doubtful: dict[ServerId, array[int]] = {}
        self._registered: Counter[ServerId] = Counter()

    def expect(self, server: ServerId) -> None:
        """It has registered: whatever it said before, or is just saying, is void."""
        with self._lock:
            self._heard.pop(server, None)
            self._registered[server] += 1

    def is_wanted(self, server: ServerId, epoch: int) -> bool:
        """Whether the server should report now; so until the whole report is here."""
        now = self._clock.monotonic_s()
        with self._lock:
            self._enter_epoch(epoch)
            heard = self._heard.get(server)
            if heard is not None and heard.life >= self._life and now < heard.due_at:
                self._asked.pop(server, None)
                return False
            self._asked = {other: at for other, at in self._asked.items() if now - at < ASKED_S}
            if server not in self._asked and len(self._asked) >= AT_ONCE:
                return False
            self._asked[server] = now
            return True

    def hear(self, pages: Iterable[tuple[ServerId, list[int], bool]], epoch: int) -> None:
        """Take in a whole report, page by page; InvalidRequestError when it breaks off, and it is asked for again."""
        report: Report | None = None
        for server, handles, is_last in pages:
            report = report or Report(server, self._registered[server])
            if server != report.server or len(report.held) > CHUNKS_MAX:
                raise InvalidRequestError(f"a report of one server and {CHUNKS_MAX} chunks at most was expected")
            self._hear_page(report, [handle for handle in handles if handle < HANDLE_MAX], epoch)
            if is_last:
                self._conclude(report, epoch)
                return
        raise InvalidRequestError("the report broke off before its end")

    def look_at(self, server: ServerId, handles: Iterable[ChunkHandle]) -> None:
        """Let the server look at these replicas soon."""
        with self._lock:
            known = self._doubtful.setdefault(server, array("Q"))
            known.extend(islice(handles, VERIFY_MAX - len(known)))

    def take_doubtful(self, server: ServerId) -> list[ChunkHandle]:
        """Replicas that the server should look at. An answer that gets lost is made up for by the next report."""
        with self._lock:
            left = self._doubtful.pop(server, None)
            if left is None:
                return []
            taken, left = left[:VERIFY_PER_BEAT], left[VERIFY_PER_BEAT:]
            if left:
                self._doubtful[server] = left
            return list(map(ChunkHandle, taken))

    def watch(self, servers: list[Chunkserver], epoch: int) -> None:
        """Age the orphans, and allow deletions in a new life of Redis once every server that lives has reported.

        Call it about once a second, when the silent servers are known to be silent.
        """
        life = self._namespace.watch_orphans(self._orphan_age_s, epoch)
        if not life:
            return
        with self._lock:
            self._enter_epoch(epoch)
            self._life = max(self._life, life)
            lives = {server: heard.life for server, heard in self._heard.items()}
        asked = [server.id for server in servers if server.state is not ServerState.DEAD]
        if asked and all(lives.get(server, 0) >= life for server in asked):
            log.info("all chunkservers have reported since Redis was restarted or replaced")
            self._namespace.check_life(life, epoch)

    def _enter_epoch(self, epoch: int) -> None:
        """What was heard before another master led may be old."""
        if epoch != self._epoch:
            self._epoch = epoch
            self._heard.clear()
            self._doubtful.clear()

    def _hear_page(self, report: Report, handles: list[int], epoch: int) -> None:
        for at in range(0, max(1, len(handles)), SLICE):
            part = handles[at : at + SLICE]
            report.add(part, self._namespace.hear_report(report.server, list(map(ChunkHandle, part)), epoch))

    def _conclude(self, report: Report, epoch: int) -> None:
        assert report.first is not None, "even an empty page was heard"
        if is_suspicious(report.surprising, len(report.held)):
            reason = (
                f"{report.surprising} of the {len(report.held)} chunks on chunkserver {report.server} are unknown: "
                "a part of the metadata may be missing"
            )
            self._namespace.stop_deleting(reason, epoch)
        doomed = 0
        for at in range(0, len(report.orphans), SLICE):
            part = list(map(ChunkHandle, report.orphans[at : at + SLICE]))
            doomed += self._namespace.delete_orphans(report.server, part, epoch)
        unnamed = len(report.doubtful)
        report.doubtful.extend(self._missing_of(report, VERIFY_MAX - unnamed))
        log.info(
            "chunkserver %d reported %d chunks: %d orphans are deleted, %d replicas may be new, %d missing",
            report.server, len(report.held), doomed, unnamed, len(report.doubtful) - unnamed,
        )  # fmt: skip
        after_s = self._report_s * self._rng.uniform(1 - SPREAD, 1 + SPREAD)
        if len(report.doubtful) >= VERIFY_MAX:
            after_s = min(after_s, REPORT_AGAIN_S)
        with self._lock:
            if report.registration == self._registered[report.server]:
                self._heard[report.server] = Heard(report.first.life, self._clock.monotonic_s() + after_s)
            self._doubtful[report.server] = report.doubtful

    def _missing_of(self, report: Report, limit: int) -> array[int]:
        assert report.first is not None
        held = array("Q", sorted(report.held)) if not _is_sorted(report.held) else report.held
        named = (handle for handle, servers in self._namespace.chunks() if report.server in servers)
        return array("Q", islice(find_missing(named, held, report.first.last_handle), limit))


def _is_sorted(handles: array[int]) -> bool:
    return all(handles[at] < handles[at + 1] for at in range(len(handles) - 1))
