"""What to copy and what to drop so that every chunk has its replicas again. Pure: values in, a plan out (D7).

Used by `repairer`. Chunks with the fewest living replicas come first; a server takes part in few copies at once, so
that clients are not starved. Replicas beyond the target are dropped only where enough others are certainly alive. A
plan made after the last one was carried out is empty.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from helenite.core.model import ChunkHandle, Chunkserver, ServerId, ServerState
from helenite.master.placement import choose_next, usable_servers

COPIES_PER_SERVER_MAX = 4
"""Copies that a server gives or takes at once: enough to keep a disk busy, few enough to leave it to clients."""
PLAN_MAX = 256
"""Copies in one plan; the next plan sees what changed meanwhile."""


@dataclass(frozen=True, slots=True)
class CopyOrder:
    """Let `target` pull a chunk from one of `sources`."""

    handle: ChunkHandle
    sources: tuple[ServerId, ...]
    target: ServerId


@dataclass(frozen=True, slots=True)
class DropOrder:
    """Let `server` forget its replica: there are more than enough."""

    handle: ChunkHandle
    server: ServerId


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do next, and how much there is to do in all."""

    copies: tuple[CopyOrder, ...]
    drops: tuple[DropOrder, ...]
    waiting: int


Chunk = tuple[ChunkHandle, tuple[ServerId, ...]]


def plan_repairs(
    chunks: Iterable[Chunk],
    servers: list[Chunkserver],
    target: int,
    under_way: Mapping[ChunkHandle, CopyOrder],
    rng: random.Random,
) -> Plan:
    """The next copies and drops. `chunks` are all chunks with the servers that the table names for them."""
    alive = {server.id for server in servers if server.state is ServerState.ALIVE}
    readable = alive | {server.id for server in servers if server.state is ServerState.DRAINING}
    staying = staying_servers(servers)
    room = usable_servers(servers, frozenset(), 0)
    wanted = min(target, len(staying))
    lacking: list[tuple[int, Chunk]] = []
    drops: list[DropOrder] = []
    for handle, named in chunks:
        count = sum(server in staying for server in named)
        if count < wanted and handle not in under_way and readable.intersection(named):
            lacking.append((count, (handle, named)))
        elif len(drops) < PLAN_MAX and sum(server in alive for server in named) > target:
            drops.append(DropOrder(handle, choose_surplus(named, servers)))
    lacking.sort()
    return Plan(_choose_copies(lacking, room, readable, under_way, rng), tuple(drops), len(lacking) + len(under_way))


def staying_servers(servers: list[Chunkserver]) -> frozenset[ServerId]:
    """Servers whose replicas count. A suspect one may be back in a moment; a draining one is about to go."""
    gone = {ServerState.DEAD, ServerState.DRAINING}
    return frozenset(server.id for server in servers if server.state not in gone)


def count_dependent(chunks: Iterable[Chunk], leaving: ServerId, servers: list[Chunkserver], target: int) -> int:
    """Chunks that the leaving server holds and the staying ones do not hold often enough."""
    staying = staying_servers(servers) - {leaving}
    wanted = min(target, len(staying))
    return sum(leaving in named and sum(server in staying for server in named) < max(1, wanted) for _, named in chunks)


def _choose_copies(
    lacking: list[tuple[int, Chunk]],
    room: list[Chunkserver],
    readable: set[ServerId],
    under_way: Mapping[ChunkHandle, CopyOrder],
    rng: random.Random,
) -> tuple[CopyOrder, ...]:
    load = Counter(order.target for order in under_way.values())
    load.update(order.sources[0] for order in under_way.values())
    copies: list[CopyOrder] = []
    for _, (handle, held) in lacking:
        sources = sorted((server for server in held if server in readable), key=lambda server: load[server])
        if len(copies) == PLAN_MAX or not sources or load[sources[0]] >= COPIES_PER_SERVER_MAX:
            continue
        free = [server for server in room if server.id not in held and load[server.id] < COPIES_PER_SERVER_MAX]
        near = [server for server in room if server.id in held]
        target = choose_next(free, near, rng)
        if target is not None:
            copies.append(CopyOrder(handle, tuple(sources), target))
            load.update((sources[0], target))
    return tuple(copies)


def choose_surplus(named: tuple[ServerId, ...], servers: list[Chunkserver]) -> ServerId:
    """The living server whose replica is needed least: on the most crowded host, then with the least free space."""
    known = {server.id: server for server in servers}
    held = [known[server] for server in named if server in known and known[server].state is ServerState.ALIVE]
    hosts = Counter(server.host for server in held)
    return max(held, key=lambda server: (hosts[server.host], -server.free_bytes, server.id)).id
