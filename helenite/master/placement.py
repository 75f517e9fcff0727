"""Where the replicas of a new chunk go. Pure: values and a seeded random generator in, a chain out.

Used by `allocator` for writes and by `repair` for what is missing. Replicas spread over racks, then over hosts, before
they double up; among equals, servers with more free space are drawn more often, so that the cluster fills evenly.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from helenite.core.model import Chunkserver, ServerId, ServerState


def usable_servers(servers: Sequence[Chunkserver], exclude: frozenset[ServerId], need_bytes: int) -> list[Chunkserver]:
    """Servers that may take a new chunk of `need_bytes`."""
    return [
        server
        for server in servers
        if server.state is ServerState.ALIVE and server.id not in exclude and server.free_bytes >= need_bytes
    ]


def choose_chain(servers: Sequence[Chunkserver], count: int, rng: random.Random) -> tuple[ServerId, ...]:
    """Up to `count` of `servers` for one chunk, primary first; fewer when there are not so many."""
    left = {server.id: server for server in servers}
    chosen: list[Chunkserver] = []
    while len(chosen) < count and (picked := choose_next(list(left.values()), chosen, rng)) is not None:
        chosen.append(left.pop(picked))
    return tuple(server.id for server in chosen)


def choose_next(
    candidates: Sequence[Chunkserver], chosen: Sequence[Chunkserver], rng: random.Random
) -> ServerId | None:
    """One more server for a chunk that `chosen` have already; None when there is no candidate."""
    if not candidates:
        return None
    best = min(_crowding(server, chosen) for server in candidates)
    least_crowded = [server for server in candidates if _crowding(server, chosen) == best]
    return rng.choices(least_crowded, weights=[1 + server.free_bytes for server in least_crowded])[0].id


def _crowding(server: Chunkserver, chosen: Sequence[Chunkserver]) -> tuple[int, int]:
    """How many of the chosen share this server's rack, and its host. No rack set is one rack for all."""
    racks = sum(other.rack == server.rack for other in chosen)
    hosts = sum(other.host == server.host for other in chosen)
    return racks, hosts
