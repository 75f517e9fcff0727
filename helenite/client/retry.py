"""How long one attempt may take, and which replicas to try in which order. Pure: time comes as an argument.

Used by `pool`. A hung chunkserver looks like a slow one, so an attempt gets a bounded time; the request's own deadline
is the sum.
"""

from __future__ import annotations

from helenite.core.model import MIB, ServerId

READ_ATTEMPT_S = 1.5
"""First patience with one replica; the promise is a stall under 3 s, and the second replica must fit in too."""
WRITE_ATTEMPT_S = 3.0
"""First patience with a chunk's acknowledgements (the promise: a stall under 5 s), plus the time of its bytes."""
SLOWEST_BYTES_PER_S = 10 * MIB
SUSPECT_S = 5.0
"""A server that failed is tried last for this long."""
SLOW_S = 2.0
"""So is one that was slower than another replica asked after it; longer than it takes to learn that a server hangs."""


def read_attempt_s(length: int, round_number: int, left_s: float) -> float:
    """Patience for one READ of `length` bytes; doubles with each round over all replicas."""
    return min(left_s, (READ_ATTEMPT_S + length / SLOWEST_BYTES_PER_S) * (1 << round_number))


def write_attempt_s(length: int, attempt: int, left_s: float) -> float:
    """Patience for one WRITE with all its acknowledgements; doubles with each attempt."""
    return min(left_s, (WRITE_ATTEMPT_S + length / SLOWEST_BYTES_PER_S) * (1 << attempt))


def order_replicas(
    servers: tuple[ServerId, ...],
    near: frozenset[ServerId],
    suspect_until: dict[ServerId, float],
    now: float,
    turn: int,
) -> list[ServerId]:
    """Replicas from best to worst: those not suspected first, near ones (same host) before far ones, else by turns."""
    rotated = servers[turn % len(servers) :] + servers[: turn % len(servers)] if servers else ()
    return sorted(rotated, key=lambda server: (suspect_until.get(server, 0.0) > now, server not in near))


def is_enough(acknowledged: int, chain: int, min_replicas: int) -> bool:
    """Whether a chunk with this many durable replicas may be committed although its chain was longer."""
    return acknowledged >= min(min_replicas, chain)
