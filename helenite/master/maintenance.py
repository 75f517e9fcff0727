"""The leader's background loop: garbage collection in bounded steps (D14).

It decides nothing: what may go is decided inside the scripts, which also check the epoch. Chunk deletions that it
queues leave with the next heartbeat replies.
"""

from __future__ import annotations

import logging
import threading

from helenite.core.errors import HeleniteError, StaleEpochError
from helenite.core.process import Worker
from helenite.master.leadership import Leadership
from helenite.master.namespace import Namespace

log = logging.getLogger(__name__)

IDLE_S = 1.0
"""Pause when there is nothing to do or the store does not answer."""
BUSY_S = 0.02
"""Pause between full steps, so that requests come first."""


class Maintenance:
    """Runs while this master leads."""

    def __init__(self, namespace: Namespace, leadership: Leadership, *, trash_s: int, gc_grace_s: int) -> None:
        self._namespace = namespace
        self._leadership = leadership
        self._trash_s = trash_s
        self._gc_grace_s = gc_grace_s
        self._worker = Worker("maintenance", self._run)

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
            return self._namespace.collect_garbage(epoch, trash_s=self._trash_s, grace_s=self._gc_grace_s)
        except StaleEpochError as error:
            log.info("garbage collection stops: %s", error)
        except HeleniteError as error:
            log.warning("garbage collection waits: %s", error)
        return 0
