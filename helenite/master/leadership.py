"""The leader lease: one master runs the background loops, with a rising epoch as its fencing number.

Every script that a loop runs carries the epoch and is refused with StaleEpochError once another master leads, so a
paused leader can do no harm. One worker thread renews; the rest of the process reads `epoch`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from helenite.core.errors import HeleniteError
from helenite.core.process import Worker
from helenite.master.fence import Fence
from helenite.master.namespace import Namespace

log = logging.getLogger(__name__)

TTL_MS = 3_000
"""A dead leader is replaced after this long (the promise: within 5 s)."""
RENEW_S = 1.0


class Leadership:
    """This master's claim to the lease."""

    def __init__(self, namespace: Namespace, master_id: str, fence: Fence, on_crash: Callable[[], None]) -> None:
        self._namespace = namespace
        self.fence = fence
        """A lease is worth what the Redis is that granted it: what cannot be undone passes here."""
        self._master_id = master_id
        self._epoch: int | None = None  # written by the worker only
        self._worker = Worker("leadership", self._run, on_crash)

    @property
    def epoch(self) -> int | None:
        """The fencing number while this master leads, else None."""
        return self._epoch

    def start(self) -> None:
        self._worker.start()

    def stop(self) -> None:
        """Stop renewing and give the lease back, so that another master leads at once."""
        self._worker.stop()
        if self._epoch is not None:
            self._epoch = None
            try:
                self._namespace.release_leadership(self._master_id)
            except HeleniteError as error:
                log.warning("the lease runs out by itself: %s", error)

    def _run(self, stopping: threading.Event) -> None:
        while True:
            self._renew()
            if stopping.wait(RENEW_S):
                return

    def _renew(self) -> None:
        try:
            leads, epoch = self._namespace.acquire_leadership(self._master_id, TTL_MS)
        except HeleniteError as error:
            log.warning("cannot renew the leader lease: %s", error)
            self._epoch = None
            return
        if leads and self._epoch != epoch:
            log.info("this master leads, epoch %d", epoch)
        if not leads and self._epoch is not None:
            log.warning("another master leads now, epoch %d", epoch)
        self._epoch = epoch if leads else None
