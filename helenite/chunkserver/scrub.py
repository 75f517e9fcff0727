"""The scrub: every replica is read and compared with its checksums once in a period, however cold it is.

Used by `__main__`. What is bad is noted and reported by the store, so that repair replaces it. A pass is spread over
the whole period, remembers across restarts how far it got, and never reads faster than its limit. After several bad
replicas in a row it rests: that may be a controller that has gone mad, and repair and people need time. On a sick disk
it waits. One worker thread.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from helenite.chunkserver.disk import disk_errors, write_durably
from helenite.chunkserver.store import ChunkStore
from helenite.core.clock import Clock
from helenite.core.errors import (
    ChunkCorruptError,
    ChunkNotFoundError,
    HeleniteError,
    ReplicaUnreadableError,
    UnavailableError,
)
from helenite.core.model import MIB, ChunkHandle
from helenite.core.process import Worker

log = logging.getLogger(__name__)

PAGE = 256
"""Handles looked up at once."""
SAVE_S = 10.0
"""Work that a restart may repeat."""
IDLE_S = 5.0
"""How often a scrub with nothing to do looks again."""
HEADROOM = 1.25
"""A pass aims to be done before its period ends, as chunks are added meanwhile."""
RATE_MIN = MIB // 4
"""Bytes a second below which pacing gains nothing."""
BAD_IN_A_ROW_MAX = 8
"""So many bad replicas one after the other are no chance: rot is rare."""
REST_MAX_S = 600.0
REST_SHARE = 0.01
"""Of the period: how long it rests after so many, and no longer than REST_MAX_S."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the scrub is, kept in scrub.json. `cursor` is the last handle compared, -1 before the first."""

    started_at_ms: int = 0
    cursor: int = -1
    is_done: bool = False
    verified_since_ms: int = 0
    """Start of the last pass that was completed: every replica older than that was good after it. 0 = never."""


def rest_s(progress: Progress, now_ms: int, period_s: float) -> float:
    """How long until a pass is due: not at all when one was interrupted or the clock has been set back. Pure."""
    elapsed_s = (now_ms - progress.started_at_ms) / 1000
    return period_s - elapsed_s if progress.is_done and 0 <= elapsed_s < period_s else 0.0


def rate(used_bytes: int, period_s: float, limit: int) -> float:
    """Bytes a second that spread a pass over its period, within the limit. Pure."""
    return min(float(limit), max(RATE_MIN, HEADROOM * used_bytes / period_s))


class Scrub:
    """Passes over one store."""

    def __init__(
        self,
        store: ChunkStore,
        directory: Path,
        period_s: float,
        limit: int,
        clock: Clock,
        on_crash: Callable[[], None] | None = None,
    ) -> None:
        self._store = store
        self._file = directory / "scrub.json"
        self._period_s = period_s
        self._limit = limit
        self._clock = clock
        self._worker = Worker("scrub", self._run, on_crash)
        self._saved_at_s = 0.0
        self._behind_s = 0.0  # how long the pace wants us to sleep; collected until it is worth a sleep
        self._bad_in_a_row = 0
        self.progress = self._load()  # written by the worker only

    def start(self) -> Scrub:
        if self._period_s > 0:
            self._worker.start()
        return self

    def stop(self) -> None:
        self._worker.stop()

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.wait(min(IDLE_S, self._rest_s())):
            try:
                self._pass(stopping)
            except HeleniteError as error:
                log.warning("the scrub waits: %s", error)
                stopping.wait(IDLE_S)

    def _rest_s(self) -> float:
        return rest_s(self.progress, self._clock.now_ms(), self._period_s)

    def _pass(self, stopping: threading.Event) -> None:
        """One pass, from where the last one stopped, if it is due; as far as the disk lets it."""
        if self._rest_s() > 0 or self._store.bad.is_sick:
            return
        if self.progress.is_done or self.progress.started_at_ms == 0:
            self._save(Progress(self._clock.now_ms(), verified_since_ms=self.progress.verified_since_ms))
        pace = rate(self._store.used_bytes(), self._period_s, self._limit)
        while handles := self._store.handles_after(self.progress.cursor, PAGE):
            for handle in handles:
                self._check(handle, pace, stopping)
                if stopping.is_set() or self._store.bad.is_sick:
                    self._save(self.progress)
                    return
                self._advance(handle)
                self._rest_if_all_is_bad(stopping)
        began = self.progress.started_at_ms
        self._save(Progress(began, is_done=True, verified_since_ms=began))
        log.info("the scrub has compared every replica with its checksums")

    def _check(self, handle: ChunkHandle, pace: float, stopping: threading.Event) -> None:
        def pause(size: int) -> None:
            self._behind_s += size / pace
            if self._behind_s >= 0.02:
                stopping.wait(self._behind_s)
                self._behind_s = 0.0

        try:
            self._store.check(handle, pause, is_cold=True)
            self._bad_in_a_row = 0
        except (ChunkCorruptError, ReplicaUnreadableError) as error:
            log.warning("the scrub found a bad replica: %s", error)
            self._bad_in_a_row += 1
        except ChunkNotFoundError:
            log.debug("chunk %x was deleted before the scrub came to it", handle)
        except UnavailableError as error:  # no descriptor left, say: the next pass comes here again
            log.warning("the scrub passes over chunk %x: %s", handle, error)
            stopping.wait(IDLE_S)

    def _rest_if_all_is_bad(self, stopping: threading.Event) -> None:
        if self._bad_in_a_row >= BAD_IN_A_ROW_MAX:
            rest = min(REST_MAX_S, REST_SHARE * self._period_s)
            log.error("%d replicas in a row are bad: the scrub rests for %.0f s", self._bad_in_a_row, rest)
            self._bad_in_a_row = 0
            stopping.wait(rest)

    def _advance(self, handle: ChunkHandle) -> None:
        self.progress = replace(self.progress, cursor=handle)
        if self._clock.monotonic_s() - self._saved_at_s > SAVE_S:
            self._save(self.progress)

    def _save(self, progress: Progress) -> None:
        self.progress = progress
        self._saved_at_s = self._clock.monotonic_s()
        with disk_errors("noting how far the scrub is"):
            write_durably(self._file, json.dumps(asdict(progress)).encode())

    def _load(self) -> Progress:
        """Where the last process stopped; a file that is missing or unreadable means from the start."""
        try:
            return Progress(**json.loads(self._file.read_bytes()))
        except FileNotFoundError:
            return Progress()
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s is unreadable, the scrub begins anew: %s", self._file.name, error)
            return Progress()
