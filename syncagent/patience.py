"""Decides which nodes to leave alone for a moment: files that are being written, what just vanished, what has failed.

Used by `engine`. A file is quiet when it has not changed for QUIET_S, however long it took to write it; one that was
let go and changed before it had been brought over has to be quiet for longer and longer, so that a file that grows with
pauses is not sent again and again. A name that vanished may be back in a moment: some programs save that way, and what
is renamed while a look goes on may be seen nowhere. After a failure the wait doubles. Times are monotonic seconds,
given by the caller. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from syncagent.model import Kind, LocalStamp, Node, NodeId

QUIET_S = 0.2
QUIET_MAX_S = 10.0
VANISHED_S = 1.0
FAILED_S = 1.0
FAILED_MAX_S = 300.0
UNREACHABLE_MAX_S = 10.0
"""After a failure that was the network's, and says nothing about the node."""
OLD_MS = 10_000
"""Neither written nor, where the system tells, renamed for so long: quiet at first sight."""
STALE_FREE = 2
"""So many failures in a row, because something was changed meanwhile, cost no wait."""


@dataclass(frozen=True, slots=True)
class _Watched:
    stamp: LocalStamp | None
    since: float
    wait_s: float


@dataclass(frozen=True, slots=True)
class _Failed:
    count: int
    until: float
    reason: str


class Patience:
    """What is known of the nodes that are not settled; forgotten as soon as they are."""

    def __init__(self) -> None:
        self._watched: dict[NodeId, _Watched] = {}
        self._failed: dict[NodeId, _Failed] = {}

    def held(self, nodes: Iterable[Node], now: float, now_ms: int) -> frozenset[NodeId]:
        """Who of the nodes that are not settled is to be left alone; the others are forgotten.

        `now_ms` is wall time, only to know a file that nobody has touched for long as quiet at first sight.
        """
        watched: dict[NodeId, _Watched] = {}
        failed: dict[NodeId, _Failed] = {}
        held = set()
        for node in nodes:
            failure = self._failed.get(node.id)
            if failure is not None:
                failed[node.id] = failure
            seen = self._look(node, now, now_ms)
            if seen is not None:
                watched[node.id] = seen
            until = max(failure.until if failure else now, seen.since + seen.wait_s if seen else now)
            if until > now:
                held.add(node.id)
        self._watched, self._failed = watched, failed
        return frozenset(held)

    def reasons(self) -> dict[NodeId, str]:
        """Why nodes wait that have failed, for the person; what was only changed a moment ago is no reason."""
        return {node: failure.reason for node, failure in self._failed.items() if failure.reason}

    def failed(
        self,
        node: NodeId,
        now: float,
        reason: str,
        *,
        is_stale: bool,
        least_s: float = FAILED_S,
        longest_s: float = FAILED_MAX_S,
    ) -> None:
        """A step with this node failed; `is_stale`: because something was changed a moment ago, so try again soon."""
        count = self._failed[node].count + 1 if node in self._failed else 1
        wait_s = max(least_s, min(FAILED_S * 2.0 ** min(count - 1, 30), longest_s))
        is_free = is_stale and count <= STALE_FREE
        self._failed[node] = _Failed(count, now if is_free else now + wait_s, "" if is_free else reason)

    def wake_at(self, now: float) -> float | None:
        """When the next of those who are held can go on."""
        times = [failure.until for failure in self._failed.values()]
        times += [seen.since + seen.wait_s for seen in self._watched.values()]
        return min((time for time in times if time > now), default=None)

    def _look(self, node: Node, now: float, now_ms: int) -> _Watched | None:
        """How long a node has been as it is on the local disk, if it differs there from what was agreed."""
        stamp = None if node.local is None else node.local.stamp
        has_nothing_to_wait_for = node.ancestor is None if stamp is None else node.kind is Kind.DIRECTORY
        if has_nothing_to_wait_for:
            return None
        if stamp is not None and node.ancestor is not None and node.ancestor.local == stamp:
            return None
        before = self._watched.get(node.id)
        if before is None:
            is_old = stamp is not None and now_ms - max(stamp.mtime_ns, stamp.ctime_ns) // 1_000_000 > OLD_MS
            return _Watched(stamp, now, 0.0 if is_old else VANISHED_S if stamp is None else QUIET_S)
        if before.stamp == stamp:
            return before
        was_let_go = before.stamp is not None and now - before.since >= before.wait_s
        wait_s = QUIET_S if before.stamp is None else max(before.wait_s, QUIET_S)
        return _Watched(stamp, now, min(wait_s * 2, QUIET_MAX_S) if was_let_go else wait_s)
