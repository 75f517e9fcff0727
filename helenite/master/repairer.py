"""Carries out repair plans, then moves, while this master leads: orders copies on heartbeats, enters the results.

The plans are those of `repair` and, when there is nothing to repair, of `rebalance`. Orders live in memory only: a new
leader makes a new plan. The table changes after the copy is durable, and a drop leaves the table before it leaves the
disk, so a kill at any point loses nothing; a move that was cut short leaves a surplus replica, which repair drops. One
lock guards the orders; the loop is one worker thread, heartbeats come from gRPC's threads.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Many
from dataclasses import dataclass

from helenite.core.clock import Clock
from helenite.core.errors import HeleniteError, StaleEpochError, UnavailableError
from helenite.core.model import ChunkHandle, Chunkserver, ServerId, ServerState
from helenite.core.process import Worker
from helenite.master.leadership import Leadership
from helenite.master.membership import Membership
from helenite.master.namespace import Namespace
from helenite.master.pace import Pace
from helenite.master.rebalance import MovePlan, plan_moves
from helenite.master.repair import CopyOrder, DropOrder, count_dependent, next_orders, plan_repairs
from helenite.master.stored import Needed, Progress

log = logging.getLogger(__name__)

PAUSE_S = 1.0
COST_SHARE = 10
"""A pass over the chunk table rests ten times as long as it took, so that it costs at most a tenth of one thread."""
IDLE_SHARE = 50
"""While there is nothing to do, and no server came or went and no replica proved bad. It finds degraded writes."""
ORDER_S = 120.0
"""An order that nobody has reported on for this long is forgotten and planned anew."""
PROGRESS_S = 10
"""Progress is shown for so long after the leader's last word, or for three passes."""


@dataclass(frozen=True, slots=True)
class Goals:
    """Replicas that each chunk should have, and the size of the largest chunk."""

    replicas: int
    chunk_bytes: int


class Repairer:
    """The leader's repair loop."""

    def __init__(
        self,
        namespace: Namespace,
        membership: Membership,
        leadership: Leadership,
        goals: Goals,
        clock: Clock,
        on_crash: Callable[[], None],
    ) -> None:
        self._namespace = namespace
        self._membership = membership
        self._leadership = leadership
        self.goals = goals
        self._clock = clock
        self._rng = random.Random(clock.now_ms())
        self._lock = threading.Lock()  # guards the five below
        self._queue: tuple[CopyOrder, ...] = ()
        self._begun: dict[ChunkHandle, tuple[CopyOrder, float]] = {}
        self._waiting = 0
        """Chunks that lack replicas, as of the last pass."""
        self._moves = MovePlan((), is_active=False, waiting=0)
        self._paces = Pace(), Pace()
        self._told: tuple[int, ...] = ()
        """Copies, drops and moves of the last plan."""
        self._is_disturbed = threading.Event()
        """A replica proved bad: look again now."""
        self._worker = Worker("repair", self._run, on_crash)

    def start(self) -> None:
        self._worker.start()

    def stop(self) -> None:
        self._worker.stop()

    def orders_for(self, server: ServerId) -> list[CopyOrder]:
        """Copies that the server is to make; named again until it reports."""
        now = self._clock.monotonic_s()
        with self._lock:
            queue = (order for order in self._queue if order.handle not in self._begun)
            for order in next_orders(queue, [order for order, _ in self._begun.values()], server):
                self._begun[order.handle] = order, now
            return [order for order, _ in self._begun.values() if order.target == server]

    def note_copied(self, server: ServerId, results: Iterable[tuple[ChunkHandle, HeleniteError | None]]) -> None:
        """The server has finished these copies, well or not."""
        epoch = self._leadership.epoch
        copied = []
        for handle, problem in results:
            if problem is None:
                copied.append(handle)
            else:
                log.warning("chunk %x was not copied to chunkserver %d: %s", handle, server, problem)
                self._end(handle, server)
        if not copied:
            return
        if epoch is None:
            raise UnavailableError("this master has just ceased to lead; report to the next")
        is_known = self._namespace.add_replicas(copied, server, epoch)
        unknown = [handle for handle, is_added in zip(copied, is_known, strict=True) if not is_added]
        if unknown:  # freed while they were copied
            self._namespace.delete_orphans(server, unknown, epoch)
        for handle in copied:
            order = self._end(handle, server)
            if order is not None and order.drop is not None and handle not in unknown:
                self._drop(handle, order.drop, epoch)

    def note_held(self, server: ServerId, handles: Many[ChunkHandle]) -> None:
        """The server was told to look at these replicas, and they are good. Of other chunks it is no matter."""
        epoch = self._leadership.epoch
        if handles and epoch is None:
            raise UnavailableError("this master has just ceased to lead; report to the next")
        if handles and epoch is not None:
            self._namespace.add_replicas(handles, server, epoch)

    def deletions_for(self, server: ServerId, limit: int, epoch: int) -> tuple[list[ChunkHandle], list[ChunkHandle]]:
        """Chunks that the server is to delete, and those that it is to look at since they are needed after all."""
        try:
            return self._leadership.fence.take_deletions(server, limit, self._needed(), epoch)
        except StaleEpochError as error:
            log.info("deletions are the next leader's: %s", error)
            return [], []

    def note_corrupt(self, server: ServerId, handles: Iterable[ChunkHandle]) -> None:
        """The server has set these replicas aside: they no longer count."""
        epoch = self._leadership.epoch
        for handle in handles:
            self._is_disturbed.set()
            if epoch is None:
                raise UnavailableError("this master has just ceased to lead; report to the next")
            log.warning("chunk %x is corrupt or missing on chunkserver %d", handle, server)
            self._namespace.remove_replica(handle, server, epoch)

    def count_dependent(self, leaving: ServerId) -> int:
        """Chunks that would lack replicas without this server."""
        return count_dependent(self._namespace.chunks(), leaving, self._membership.servers(), self.goals.replicas)

    def _end(self, handle: ChunkHandle, server: ServerId) -> CopyOrder | None:
        """The order, if it was one, is over."""
        now = self._clock.monotonic_s()
        with self._lock:
            known = self._begun.get(handle)
            if known is None or known[0].target != server:
                return None
            del self._begun[handle]
            self._queue = tuple(order for order in self._queue if order.handle != handle)
            self._paces[known[0].drop is not None].note(now)
            return known[0]

    def _drop(self, handle: ChunkHandle, server: ServerId, epoch: int) -> None:
        """Order a replica's deletion if it is surplus by what is known now. Else a later plan decides."""
        self._namespace.drop_replica(handle, server, self._needed(), epoch)

    def _strike(self, removed: Iterable[DropOrder], epoch: int) -> None:
        """Let the table forget replicas on servers that were removed, but not on one that has come since the plan."""
        known = {server.id for server in self._membership.servers()}
        for order in removed:
            if order.server not in known:
                self._namespace.remove_replica(order.handle, order.server, epoch)

    def _tell(self, *counts: int) -> None:
        """Log a plan that is not the last one again: drops may have to wait for a person's word, for days."""
        if any(counts) and counts != self._told:
            log.info("repair: %d copies, %d drops, %d moves", *counts)
        self._told = counts

    def _needed(self) -> Needed:
        return Needed(self.goals.replicas, self._membership.alive())

    def _run(self, stopping: threading.Event) -> None:
        due_at, took_s, known = float("-inf"), 0.0, frozenset[tuple[ServerId, ServerState]]()
        while not stopping.wait(PAUSE_S):
            epoch = self._leadership.epoch
            if epoch is None:
                self._forget_orders()
                known = frozenset()
                continue
            began = self._clock.monotonic_s()
            servers = self._look_at_servers()
            states = frozenset((server.id, server.state) for server in servers)
            if servers and (states != known or began >= due_at or self._is_disturbed.is_set()):
                self._is_disturbed.clear()
                share = COST_SHARE if self._pass(servers, epoch) else IDLE_SHARE
                took_s = self._clock.monotonic_s() - began
                due_at, known = began + (share + 1) * took_s, states
            self._publish(max(PROGRESS_S, round(3 * took_s)))

    def _look_at_servers(self) -> list[Chunkserver]:
        """The servers, or none while it is not known who is there."""
        try:
            return self._membership.servers() if self._membership.is_settled() else []
        except HeleniteError as error:
            log.warning("repair waits: %s", error)
            return []

    def _pass(self, servers: list[Chunkserver], epoch: int) -> bool:
        """Plan anew; whether there is anything to do."""
        try:
            under_way = self._under_way(servers)
            plan = plan_repairs(self._namespace.chunks(), servers, self.goals.replicas, under_way, self._rng)
            repairs = [order for order in under_way.values() if order.drop is None]
            moves = MovePlan((), is_active=False, waiting=0)
            if not plan.copies and not plan.drops and not repairs:
                moves = self._plan_moves(servers, under_way)
            self._tell(len(plan.copies), len(plan.drops), len(moves.moves))
            with self._lock:
                self._queue = plan.copies or moves.moves
                self._waiting = plan.waiting - len(under_way) + len(repairs)
                self._moves = moves
            for drop in plan.drops:
                self._drop(drop.handle, drop.server, epoch)
            if plan.struck:
                self._strike(plan.struck, epoch)
            return bool(plan.waiting or plan.drops or plan.struck or moves.moves)
        except StaleEpochError as error:
            log.info("repair stops: %s", error)
        except HeleniteError as error:
            log.warning("repair waits: %s", error)
        return True

    def _under_way(self, servers: list[Chunkserver]) -> dict[ChunkHandle, CopyOrder]:
        """Orders begun, without those that will come to nothing."""
        alive = {server.id for server in servers if server.state is ServerState.ALIVE}
        now = self._clock.monotonic_s()
        with self._lock:
            self._begun = {
                handle: (order, at)
                for handle, (order, at) in self._begun.items()
                if now - at < ORDER_S and order.target in alive
            }
            return {handle: order for handle, (order, _) in self._begun.items()}

    def _plan_moves(self, servers: list[Chunkserver], under_way: dict[ChunkHandle, CopyOrder]) -> MovePlan:
        with self._lock:
            is_active = self._moves.is_active
        whole = (chunk for chunk in self._namespace.chunks() if len(chunk[1]) == self.goals.replicas)
        return plan_moves(whole, servers, under_way.values(), self.goals.chunk_bytes, is_active=is_active)

    def _publish(self, ttl_s: int) -> None:
        now = self._clock.monotonic_s()
        with self._lock:
            moving = sum(order.drop is not None for order, _ in self._begun.values())
            repair = Progress(self._waiting, len(self._begun) - moving, self._paces[0].per_s(now))
            rebalance = Progress(self._moves.waiting, moving, self._paces[1].per_s(now))
        try:
            self._namespace.publish_progress((repair, rebalance), ttl_s)
            if why := self._leadership.fence.why:
                self._namespace.publish_waiting(why, PROGRESS_S)
        except HeleniteError as error:
            log.warning("progress cannot be shown: %s", error)

    def _forget_orders(self) -> None:
        with self._lock:
            self._queue = ()
            self._begun.clear()
            self._waiting = 0
            self._moves = MovePlan((), is_active=False, waiting=0)
