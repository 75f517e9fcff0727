"""What to copy and what to drop so that every chunk has its replicas again. Pure: values in, a plan out.

Used by `repairer`. Chunks with the fewest living replicas come first; a server takes part in few copies at once, so
that clients are not starved: the plan is a queue, and `next_orders` says which of it may begin. Replicas beyond the
target are dropped only where enough others are certainly alive. A plan made after the last was carried out is empty.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from helenite.core.model import ChunkHandle, Chunkserver, ServerId, ServerState
from helenite.master.placement import choose_next, usable_servers

COPIES_PER_SERVER_MAX = 4
"""Copies that a server gives or takes at once: enough to keep a disk busy, few enough to leave it to clients."""
MOVES_PER_SERVER_MAX = 2
"""The same for moves, which nobody waits for."""
PLAN_MAX = 1024
"""Copies in one plan; the next plan sees what changed meanwhile."""


@dataclass(frozen=True, slots=True)
class CopyOrder:
    """Let `target` pull a chunk from one of `sources`, the first if it can."""

    handle: ChunkHandle
    sources: tuple[ServerId, ...]
    target: ServerId
    drop: ServerId | None = None
    """In a move, the server that then forgets its replica."""


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
    struck: tuple[DropOrder, ...] = ()
    """Replicas on servers that a person has removed: there is nothing to delete, the table is to forget them."""


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
    known = {server.id for server in servers}
    wanted = min(target, len(staying))
    lacking: list[tuple[int, Chunk]] = []
    drops: list[DropOrder] = []
    struck: list[DropOrder] = []
    for handle, named in chunks:
        if not known.issuperset(named) and len(struck) < PLAN_MAX:
            struck.extend(DropOrder(handle, server) for server in named if server not in known)
        count = sum(server in staying for server in named)
        if count < wanted and handle not in under_way and readable.intersection(named):
            lacking.append((count, (handle, named)))
        elif len(drops) < PLAN_MAX and sum(server in alive for server in named) > target:
            drops.append(DropOrder(handle, choose_surplus(named, servers)))
    lacking.sort()
    return Plan(
        _choose_copies(lacking, room, readable, rng), tuple(drops), len(lacking) + len(under_way), tuple(struck)
    )


def staying_servers(servers: list[Chunkserver]) -> frozenset[ServerId]:
    """Servers whose replicas count. A suspect one may be back in a moment; a draining one is about to go."""
    gone = {ServerState.DEAD, ServerState.DRAINING}
    return frozenset(server.id for server in servers if server.state not in gone)


def count_dependent(chunks: Iterable[Chunk], leaving: ServerId, servers: list[Chunkserver], target: int) -> int:
    """Chunks that the leaving server holds and the staying ones do not hold often enough."""
    staying = staying_servers(servers) - {leaving}
    wanted = min(target, len(staying))
    return sum(leaving in named and sum(server in staying for server in named) < max(1, wanted) for _, named in chunks)


def next_orders(queue: Iterable[CopyOrder], under_way: Iterable[CopyOrder], server: ServerId) -> tuple[CopyOrder, ...]:
    """Those of the queue, in its order, that `server` may begin to pull now, the least busy sources first."""
    load = Counter[ServerId]()
    for order in under_way:
        load.update((order.target, order.sources[0]))
    begun: list[CopyOrder] = []
    for order in queue:
        limit = COPIES_PER_SERVER_MAX if order.drop is None else MOVES_PER_SERVER_MAX
        if load[server] >= limit:
            break
        source = min(order.sources, key=lambda each: load[each])
        if order.target == server and load[source] < limit:
            others = (each for each in order.sources if each != source)
            begun.append(replace(order, sources=(source, *others)))
            load.update((server, source))
    return tuple(begun)


def _choose_copies(
    lacking: list[tuple[int, Chunk]], room: list[Chunkserver], readable: set[ServerId], rng: random.Random
) -> tuple[CopyOrder, ...]:
    copies: list[CopyOrder] = []
    for _, (handle, held) in lacking:
        if len(copies) == PLAN_MAX:
            break
        free = [server for server in room if server.id not in held]
        near = [server for server in room if server.id in held]
        target = choose_next(free, near, rng)
        if target is not None:
            copies.append(CopyOrder(handle, tuple(server for server in held if server in readable), target))
    return tuple(copies)


def choose_surplus(named: tuple[ServerId, ...], servers: list[Chunkserver]) -> ServerId:
    """The living server whose replica is needed least: of the most crowded rack, then host, the fullest."""
    known = {server.id: server for server in servers}
    held = [known[server] for server in named if server in known and known[server].state is ServerState.ALIVE]
    racks = Counter(server.rack for server in held)
    hosts = Counter(server.host for server in held)
    return max(held, key=lambda each: (racks[each.rack], hosts[each.host], utilisation(each), each.id)).id


def utilisation(server: Chunkserver) -> float:
    """The used share of a server's capacity."""
    return server.used_bytes / server.capacity_bytes if server.capacity_bytes else 1.0
