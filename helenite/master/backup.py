"""Which chunkserver is to keep a dump of the metadata now; asked by the Cluster service at each heartbeat."""

from __future__ import annotations

from helenite.core.clock import Clock
from helenite.core.model import ServerId, ServerState
from helenite.master.membership import Membership

KEEPERS = 3
"""Chunkservers that keep dumps: those with the lowest ids of all that live. More would only cost snapshots."""


class BackupSchedule:
    """A dump every `interval_s` seconds (0 = never) for each keeper. Remembers nothing: keepers say what they have."""

    def __init__(self, membership: Membership, interval_s: float, clock: Clock) -> None:
        self._membership = membership
        self._interval_s = interval_s
        self._clock = clock

    def is_due(self, server: ServerId, dumped_at_ms: int) -> bool:
        """Whether this server is a keeper whose newest dump is older than the interval, or of the future."""
        if self._interval_s <= 0 or 0 <= self._clock.now_ms() - dumped_at_ms < self._interval_s * 1000:
            return False
        living = [known.id for known in self._membership.servers() if known.state is ServerState.ALIVE]
        return server in sorted(living)[:KEEPERS]
