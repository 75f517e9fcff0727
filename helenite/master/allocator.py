"""Hands out fresh chunk handles with replication chains, or says why writes must wait.

Used by the Namespace service. It asks `placement` and takes handles from the store; it remembers nothing.
Thread-safe.
"""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass

from helenite.core.errors import InsufficientStorageError, UnavailableError
from helenite.core.frames import capability_for
from helenite.core.model import Allocation, ChunkHandle, Chunkserver, ServerId, ServerState
from helenite.master.membership import Membership
from helenite.master.namespace import Namespace
from helenite.master.placement import choose_chain, usable_servers

LEASE_S = 30
"""How long a client may use an allocation. Placement's knowledge ages, and orphans older than this are nobody's."""
COUNT_MAX = 256


@dataclass(frozen=True, slots=True)
class Rules:
    """The cluster's settings for new chunks."""

    replicas: int
    min_replicas: int
    chunk_bytes: int


class Allocator:
    """Chooses where new chunks go."""

    def __init__(self, namespace: Namespace, membership: Membership, rules: Rules, seed: int) -> None:
        self._namespace = namespace
        self._membership = membership
        self._rules = rules
        self.chunk_bytes = rules.chunk_bytes
        self.lease_s = LEASE_S
        self._lock = threading.Lock()  # guards _rng
        self._rng = random.Random(seed)

    def min_replicas(self, servers: list[Chunkserver]) -> int:
        """Durable replicas that a commit needs: the setting, or all servers there are in a smaller cluster."""
        return max(1, min(self._rules.min_replicas, len(servers)))

    def allocate(self, count: int, exclude: frozenset[ServerId]) -> tuple[list[Allocation], int]:
        """`count` allocations and how many acknowledgements each needs.

        InsufficientStorageError when too few chunkservers with room are alive; UnavailableError right after a start,
        while they may only not have called yet.
        """
        servers = self._membership.servers()
        usable = usable_servers(servers, exclude, self.chunk_bytes)
        needed = self.min_replicas(servers)
        wanted = min(self._rules.replicas, len(servers))
        called = sum(server.state in {ServerState.ALIVE, ServerState.DRAINING} for server in servers)
        if called < wanted and not self._membership.is_settled() and not exclude:
            raise UnavailableError(f"waiting for chunkservers after a start: {called} of {wanted} have called")
        if len(usable) < needed:
            raise InsufficientStorageError(_shortage(servers, exclude, len(usable), needed))
        first = self._namespace.next_handles(min(count, COUNT_MAX))
        with self._lock:
            chains = [choose_chain(usable, self._rules.replicas, self._rng) for _ in range(min(count, COUNT_MAX))]
        key = self._namespace.capability_key
        handles = (ChunkHandle(first + i) for i in range(len(chains)))
        made = [Allocation(h, chain, capability_for(key, h)) for h, chain in zip(handles, chains, strict=True)]
        return made, needed


def _shortage(servers: list[Chunkserver], exclude: frozenset[ServerId], usable: int, needed: int) -> str:
    alive = [server for server in servers if server.state is ServerState.ALIVE and server.id not in exclude]
    if len(alive) < needed:
        return (
            f"writes need {needed} chunkservers, {len(alive)} of {len(servers)} answer; "
            "start the others or add new ones (helenite status shows which)"
        )
    return (
        f"writes need {needed} chunkservers with room, {usable} of {len(alive)} have it; "
        "delete something and empty the trash, or add a chunkserver"
    )
