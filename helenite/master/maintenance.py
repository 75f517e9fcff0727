"""The leader's background loop: garbage collection in bounded steps.

It decides nothing: what may go is decided inside the scripts, which also check the epoch and ask the guard. Chunk
deletions that it queues leave with the next heartbeat replies.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from helenite.core.errors import HeleniteError, StaleEpochError
from helenite.core.process import Worker
from helenite.master.leadership import Leadership
from helenite.master.membership import Membership
from helenite.master.namespace import Namespace
from helenite.master.reports import Reports

log = logging.getLogger(__name__)

IDLE_S = 1.0
"""Pause when there is nothing to do or the store does not answer."""
BUSY_S = 0.02
"""Pause between full steps, so that requests come first."""


@dataclass(frozen=True, slots=True)
class Ages:
    """How long what was deleted is kept, in seconds: in the trash, and chunks that nothing names any more."""

    trash_s: int
    gc_grace_s: int


class Maintenance:
    """Runs while this master leads."""

    def __init__(
        self,
        namespace: Namespace,
        membership: Membership,
        leadership: Leadership,
        reports: Reports,
        ages: Ages,
        on_crash: Callable[[], None],
    ) -> None:
        self._namespace = namespace
        self._membership = membership
        self._leadership = leadership
        self._reports = reports
        self._ages = ages
        self._watched_at = float("-inf")
        self._worker = Worker("maintenance", self._run, on_crash)

    def start(self) -> None:
        self._worker.start()

    def stop(self) -> None:
        self._worker.stop()

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.wait(BUSY_S if self._step() else IDLE_S):
            pass

    def _step(self) -> int:
        """One bounded step; how many things it did."""
        epoch = self._leadership.epoch
        if epoch is None:
            return 0
        try:
            self._watch(epoch)
            return self._namespace.collect_garbage(epoch, trash_s=self._ages.trash_s, grace_s=self._ages.gc_grace_s)
        except StaleEpochError as error:
            log.info("garbage collection stops: %s", error)
        except HeleniteError as error:
            log.warning("garbage collection waits: %s", error)
        return 0

    def _watch(self, epoch: int) -> None:
        now = time.monotonic()
        if now - self._watched_at >= IDLE_S and self._membership.is_settled():
            self._watched_at = now
            self._reports.watch(self._membership.servers(), epoch)
