"""Which replicas to move so that all chunkservers are equally full. Pure: values in, moves out.

Used by `repairer` when there is nothing to repair. Each server's goal is the cluster's mean utilisation. Moving begins
when a server is far from its goal and ends when all are near, so that it does not begin again at once. A move never
lowers the spread over racks and hosts. Sizes of chunks are not known here, only their average: the heartbeats tell what
the moves came to.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from helenite.core.model import ChunkHandle, Chunkserver, ServerId, ServerState
from helenite.master.repair import Chunk, CopyOrder

BEGIN_SHARE = 0.10
"""Of a server's goal, off which moving begins; it ends within half of it."""
BEGIN_CHUNKS = 8
"""And average chunks: less is not worth a move."""
MOVES_MAX = 64
"""Moves in one plan; the next one knows what these came to."""


@dataclass(frozen=True, slots=True)
class MovePlan:
    """Moves to make next, whether moving goes on, and about how many chunks are to be moved in all."""

    moves: tuple[CopyOrder, ...]
    is_active: bool
    waiting: int


@dataclass(slots=True)
class Fill:
    """How full a server is and will be when the moves have been made, in bytes."""

    server: Chunkserver
    goal: float
    used: float

    @property
    def excess(self) -> float:
        return self.used - self.goal


def plan_moves(
    chunks: Iterable[Chunk],
    servers: list[Chunkserver],
    under_way: Iterable[CopyOrder],
    chunk_bytes: int,
    *,
    is_active: bool,
) -> MovePlan:
    """The next moves. `chunks` are all chunks with their servers, each healthy; `chunk_bytes` is the largest.

    Nothing moves while a server is suspect: it is about to be repaired for, or to come back.
    """
    fills = _measure(servers)
    average = _average_bytes(servers)
    if len(fills) < 2 or any(server.state is ServerState.SUSPECT for server in servers):
        return MovePlan((), is_active=False, waiting=0)
    moving = _account(fills, under_way, average)
    limit = _limit(average, chunk_bytes, is_active=is_active)
    if not moving and all(abs(fill.excess) <= max(limit, _share(fill, is_active=is_active)) for fill in fills.values()):
        return MovePlan((), is_active=False, waiting=0)
    waiting = sum(fill.excess for fill in fills.values() if fill.excess > 0) / average
    moves = _choose_moves(chunks, fills, moving, (average, chunk_bytes))
    return MovePlan(moves, is_active=bool(moves or moving), waiting=round(waiting) if moves or moving else 0)


def _measure(servers: list[Chunkserver]) -> dict[ServerId, Fill]:
    counted = [server for server in servers if server.state is ServerState.ALIVE]
    capacity = sum(server.capacity_bytes for server in counted)
    mean = sum(server.used_bytes for server in counted) / capacity if capacity else 0.0
    return {server.id: Fill(server, mean * server.capacity_bytes, server.used_bytes) for server in counted}


def _average_bytes(servers: list[Chunkserver]) -> float:
    count = sum(server.chunk_count for server in servers)
    return max(1.0, sum(server.used_bytes for server in servers) / count) if count else 1.0


def _limit(average: float, chunk_bytes: int, *, is_active: bool) -> float:
    """Never below the largest chunk, so that a single move cannot turn the imbalance round."""
    begin = max(BEGIN_CHUNKS * average, 2 * chunk_bytes)
    return begin / 2 if is_active else begin


def _share(fill: Fill, *, is_active: bool) -> float:
    return BEGIN_SHARE * fill.goal / (2 if is_active else 1)


def _account(fills: dict[ServerId, Fill], under_way: Iterable[CopyOrder], average: float) -> set[ChunkHandle]:
    """Count the moves under way as made."""
    moving = set()
    for order in under_way:
        moving.add(order.handle)
        if order.drop is not None and order.drop in fills and order.target in fills:
            fills[order.drop].used -= average
            fills[order.target].used += average
    return moving


def _choose_moves(
    chunks: Iterable[Chunk], fills: dict[ServerId, Fill], moving: set[ChunkHandle], sizes: tuple[float, float]
) -> tuple[CopyOrder, ...]:
    """`sizes` are a chunk's average and largest. A pair further apart than the largest comes closer by any move."""
    average, largest = sizes
    moves: list[CopyOrder] = []
    for handle, held in chunks:
        excesses = [fill.excess for fill in fills.values()]
        if len(moves) == MOVES_MAX or max(excesses) - min(excesses) <= largest:
            break
        if handle in moving or not all(server in fills for server in held):
            continue
        pair = _choose_pair(held, fills, largest)
        if pair is not None:
            source, target = pair
            others = tuple(server for server in held if server != source)
            moves.append(CopyOrder(handle, (source, *others), target, drop=source))
            fills[source].used -= average
            fills[target].used += average
    return tuple(moves)


def _choose_pair(
    held: tuple[ServerId, ...], fills: dict[ServerId, Fill], largest: float
) -> tuple[ServerId, ServerId] | None:
    """The fullest holder that may give the chunk to the emptiest server."""
    sources = sorted((s for s in held if fills[s].excess > 0), key=lambda s: (-fills[s].excess, s))
    targets = sorted(
        (s for s, fill in fills.items() if s not in held and fill.excess < 0 and fill.server.free_bytes > largest),
        key=lambda s: (fills[s].excess, s),
    )
    for source in sources:
        before = _spread([fills[s].server for s in held])
        rest = [fills[s].server for s in held if s != source]
        for target in targets:
            if fills[source].excess - fills[target].excess <= largest:
                break
            if _spread([*rest, fills[target].server]) >= before:
                return source, target
    return None


def _spread(holders: list[Chunkserver]) -> tuple[int, int]:
    return len({server.rack for server in holders}), len({server.host for server in holders})
