"""Carries out repair plans while this master leads: orders copies on heartbeat replies, enters what was copied.

The plan is `repair`'s. Orders live in memory only: a new leader makes a new plan. The table changes after the copy is
durable, and a drop leaves the table before it leaves the disk, so a kill at any point loses nothing. One lock guards
the orders; the loop is one worker thread, heartbeats come from gRPC's threads.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Iterable, Iterator

from helenite.core.clock import Clock
from helenite.core.errors import HeleniteError, StaleEpochError, UnavailableError
from helenite.core.model import ChunkHandle, ServerId
from helenite.core.process import Worker
from helenite.master.leadership import Leadership
from helenite.master.membership import Membership
from helenite.master.namespace import Namespace
from helenite.master.repair import Chunk, CopyOrder, count_dependent, plan_repairs

log = logging.getLogger(__name__)

PAUSE_S = 1.0
COST_SHARE = 10
"""A pass over the chunk table rests ten times as long as it took, so that it costs at most a tenth of one thread."""
ORDER_S = 120.0
"""An order that nobody has reported on for this long is forgotten and planned anew."""


class Repairer:
    """The leader's repair loop."""

    def __init__(
        self, namespace: Namespace, membership: Membership, leadership: Leadership, target: int, clock: Clock
    ) -> None:
        self._namespace = namespace
        self._membership = membership
        self._leadership = leadership
        self._target = target
        self._clock = clock
        self._rng = random.Random(clock.now_ms())
        self._lock = threading.Lock()  # guards the two below
        self._orders: dict[ChunkHandle, tuple[CopyOrder, float]] = {}
        self.waiting = 0
        """Chunks that lack replicas, as of the last pass."""
        self._worker = Worker("repair", self._run)

    def start(self) -> None:
        self._worker.start()

    def stop(self) -> None:
        self._worker.stop()

    def orders_for(self, server: ServerId) -> list[CopyOrder]:
        """Copies that the server is to make; named again until it reports."""
        with self._lock:
            return [order for order, _ in self._orders.values() if order.target == server]

    def note_copied(self, server: ServerId, results: Iterable[tuple[ChunkHandle, HeleniteError | None]]) -> None:
        """The server has finished these copies, well or not."""
        epoch = self._leadership.epoch
        for handle, problem in results:
            with self._lock:
                known = self._orders.get(handle)
                if known is not None and known[0].target == server:
                    del self._orders[handle]
            if problem is not None:
                log.warning("chunk %x was not copied to chunkserver %d: %s", handle, server, problem)
            elif epoch is not None:
                self._namespace.add_replica(handle, server, epoch)

    def note_corrupt(self, server: ServerId, handles: Iterable[ChunkHandle]) -> None:
        """The server has set these replicas aside: they no longer count."""
        epoch = self._leadership.epoch
        for handle in handles:
            if epoch is None:
                raise UnavailableError("this master has just ceased to lead; report to the next")
            log.warning("chunk %x is corrupt or missing on chunkserver %d", handle, server)
            self._namespace.remove_replica(handle, server, epoch)

    def count_dependent(self, leaving: ServerId) -> int:
        """Chunks that would lack replicas without this server."""
        return count_dependent(self._chunks(), leaving, self._membership.servers(), self._target)

    def _run(self, stopping: threading.Event) -> None:
        pause = PAUSE_S
        while not stopping.wait(pause):
            began = self._clock.monotonic_s()
            epoch = self._leadership.epoch
            if epoch is None:
                self._forget_orders()
            elif self._membership.is_settled():
                self._pass(epoch)
            pause = max(PAUSE_S, COST_SHARE * (self._clock.monotonic_s() - began))

    def _pass(self, epoch: int) -> None:
        try:
            with self._lock:
                now = self._clock.monotonic_s()
                self._orders = {h: (o, at) for h, (o, at) in self._orders.items() if now - at < ORDER_S}
                under_way = {handle: order for handle, (order, _) in self._orders.items()}
            plan = plan_repairs(self._chunks(), self._membership.servers(), self._target, under_way, self._rng)
            if plan.copies or plan.drops:
                log.info("repair: %d copies, %d drops, %d waiting", len(plan.copies), len(plan.drops), plan.waiting)
            with self._lock:
                self.waiting = plan.waiting
                self._orders.update((order.handle, (order, now)) for order in plan.copies)
            for drop in plan.drops:
                self._namespace.drop_replica(drop.handle, drop.server, self._target, epoch)
        except StaleEpochError as error:
            log.info("repair stops: %s", error)
        except HeleniteError as error:
            log.warning("repair waits: %s", error)

    def _chunks(self) -> Iterator[Chunk]:
        cursor = 0
        while True:
            page, cursor = self._namespace.scan_chunks(cursor)
            yield from page
            if cursor == 0:
                return

    def _forget_orders(self) -> None:
        with self._lock:
            self._orders.clear()
            self.waiting = 0
