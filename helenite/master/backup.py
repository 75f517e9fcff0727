"""Which chunkserver is to keep a dump of the metadata now; asked by the Cluster service at each heartbeat.

Clocks may be wrong: a dump that was made while this master watched ages by its monotonic time, so that a clock that is
set ahead cannot order one dump after the other until only minutes of history are kept. Thread-safe.
"""

from __future__ import annotations

import threading

from helenite.core.clock import Clock
from helenite.core.model import ServerId, ServerState
from helenite.master.membership import Membership

KEEPERS = 3
"""Chunkservers that keep dumps: those with the lowest ids of all that live. More would only cost snapshots."""


class BackupSchedule:
    """A dump every `interval_s` seconds (0 = never) for each keeper. Keepers say what they have."""

    def __init__(self, membership: Membership, interval_s: float, clock: Clock) -> None:
        self._membership = membership
        self._interval_s = interval_s
        self._clock = clock
        self._lock = threading.Lock()  # guards _newest
        self._newest: dict[ServerId, tuple[int, float | None]] = {}
        """Of each server its newest dump, and when (monotonic) this master saw it come; None = it was there before."""

    def is_due(self, server: ServerId, dumped_at_ms: int) -> bool:
        """Whether this server is a keeper whose newest dump is older than the interval, or of the future."""
        if self._interval_s <= 0 or 0 <= self._age_s(server, dumped_at_ms) < self._interval_s:
            return False
        living = [known.id for known in self._membership.servers() if known.state is ServerState.ALIVE]
        return server in sorted(living)[:KEEPERS]

    def _age_s(self, server: ServerId, dumped_at_ms: int) -> float:
        """Seconds since the newest dump; negative when it is of the future."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            known = self._newest.get(server)
            if known is None or known[0] != dumped_at_ms:
                known = (dumped_at_ms, None if known is None or not dumped_at_ms else now_s)
                self._newest[server] = known
        _, came_at_s = known
        return (self._clock.now_ms() - dumped_at_ms) / 1000 if came_at_s is None else now_s - came_at_s
