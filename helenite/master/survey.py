"""How the chunks are doing: counts of under-replicated and lost ones, for `helenite status`.

Used by the Admin service. It walks the chunk table when somebody asks, at most as often as its cost allows.
Thread-safe: one lock lets one walk run at a time.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from helenite.core.clock import Clock
from helenite.core.model import ServerId, ServerState
from helenite.master.membership import Membership
from helenite.master.namespace import Namespace

AGE_MIN_S = 1.0
COST_SHARE = 10
"""A result is kept for ten times as long as it took: surveys take at most a tenth of one thread."""


@dataclass(frozen=True, slots=True)
class ChunkHealth:
    """Counts of chunks."""

    total: int
    under_replicated: int
    lost: int


def count_health(replicas: Iterable[tuple[ServerId, ...]], living: frozenset[ServerId], target: int) -> ChunkHealth:
    """Judge each chunk by its replicas on living servers; `target` is what the cluster can hold now. Pure."""
    counts = Counter(sum(server in living for server in servers) for servers in replicas)
    lacking = sum(chunks for count, chunks in counts.items() if 0 < count < target)
    return ChunkHealth(counts.total(), lacking, counts[0])


class Survey:
    """The latest counts."""

    def __init__(self, namespace: Namespace, membership: Membership, replica_target: int, clock: Clock) -> None:
        self._namespace = namespace
        self._membership = membership
        self._target = replica_target
        self._clock = clock
        self._lock = threading.Lock()  # held while walking
        self._latest = ChunkHealth(0, 0, 0)
        self._valid_until = float("-inf")

    def latest(self) -> ChunkHealth:
        """Counts not much older than a second, or as old as the size of the table makes them."""
        with self._lock:
            started = self._clock.monotonic_s()
            if started >= self._valid_until:
                self._latest = self._walk()
                ended = self._clock.monotonic_s()
                self._valid_until = ended + max(AGE_MIN_S, COST_SHARE * (ended - started))
            return self._latest

    def _walk(self) -> ChunkHealth:
        servers = self._membership.servers()
        living = frozenset(server.id for server in servers if server.state is not ServerState.DEAD)
        target = min(self._target, len(servers))
        return count_health((servers for _, servers in self._namespace.chunks()), living, target)
