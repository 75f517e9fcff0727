"""The fence: under Redis Sentinel nothing is deleted by the word of a Redis that may have been deposed.

A partition can leave this master beside the old Redis while the sentinels' majority has promoted another one. What is
deleted here then is deleted here only: when the partition heals, the old Redis takes over the other one's data, the
files are there again, and their chunks must be, too. So deletions are handed out by that Redis alone which more than
half of the sentinels name and see, and once a replica knows what it knows. Everything else goes on.

Passed by `repairer` whenever deletions leave with a heartbeat's reply: the one way by which chunks leave the disks.
Each sentinel is asked by a thread of its own, so that one that is silent delays nobody. Without sentinels (one Redis)
there are no threads and no questions.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from helenite.core.clock import Clock
from helenite.core.model import ChunkHandle, ServerId
from helenite.core.process import Worker
from helenite.master.connecting import SentinelProbe
from helenite.master.namespace import Namespace
from helenite.master.stored import NamedDeletions, Needed

log = logging.getLogger(__name__)

ASK_S = 0.5
"""Pause between two questions to one sentinel."""
FRESH_S = 2.0
"""What a sentinel was asked longer ago counts for nothing. It covers one answer that comes late."""
REST_S = 5.0
"""Replicas that did not answer in time are left alone so long: each attempt holds up a heartbeat's reply."""
OTHER = "this master is connected to another Redis than the sentinels name"
ALONE = "too few replicas of Redis have what is to be deleted, which a failover would bring back"


@dataclass(frozen=True, slots=True)
class Word:
    """What one sentinel said when it was asked: the run id of the master that it names and sees, or nothing."""

    redis: str
    asked_at: float


def most_named(words: Sequence[Word], now: float) -> tuple[str, int]:
    """The Redis that most sentinels have just named, and how many did; nothing and 0 when none did."""
    named = Counter(word.redis for word in words if word.redis and now - word.asked_at <= FRESH_S)
    return named.most_common(1)[0] if named else ("", 0)


class Fence:
    """What stands between the leader's deletions and the chunkservers."""

    def __init__(
        self, namespace: Namespace, sentinels: Sequence[SentinelProbe], clock: Clock, on_crash: Callable[[], None]
    ) -> None:
        self._namespace = namespace
        self._clock = clock
        self._words = [Word("", float("-inf"))] * len(sentinels)  # each worker writes its own
        self._workers = [
            Worker(f"sentinel {probe.address}", partial(self._ask, number, probe), on_crash)
            for number, probe in enumerate(sentinels)
        ]
        self._started_at = clock.monotonic_s()
        self._lock = threading.Lock()  # guards the two below
        self._why = ""
        self._resting_until = float("-inf")

    def start(self) -> None:
        self._started_at = self._clock.monotonic_s()
        for worker in self._workers:
            worker.start()

    def stop(self) -> None:
        for worker in self._workers:
            worker.stop()

    @property
    def why(self) -> str:
        """Why deletions wait; empty while they do not."""
        with self._lock:
            return self._why

    def take_deletions(
        self, server: ServerId, limit: int, needed: Needed, epoch: int
    ) -> tuple[list[ChunkHandle], list[ChunkHandle]]:
        """Chunks that a server should delete, none while they wait, and those whose deletion is called off."""
        if not self._words:
            return self._namespace.take_deletions(server, limit, needed, epoch)
        redis, why = self._named()
        taken = self._namespace.take_named_deletions(server, limit, needed, epoch, redis)
        why = why or self._objection(redis, taken)
        self._tell(why)
        return [] if why else taken.doomed, taken.called_off

    def _named(self) -> tuple[str, str]:
        """The Redis that may hand out deletions; or nothing, and why."""
        now = self._clock.monotonic_s()
        redis, count = most_named(self._words, now)
        if 2 * count <= len(self._words):
            return "", f"only {count} of {len(self._words)} sentinels name the same Redis as master and see it"
        with self._lock:
            return (redis, "") if now >= self._resting_until else ("", ALONE)

    def _objection(self, redis: str, taken: NamedDeletions) -> str:
        """What speaks against handing out what was taken; this process may have been paused since it asked."""
        if not taken.is_witnessed:
            with self._lock:
                self._resting_until = self._clock.monotonic_s() + REST_S
            return ALONE
        named, why = self._named()
        return why or ("" if taken.is_named and named == redis else OTHER)

    def _tell(self, why: str) -> None:
        """Log when a wait begins and when it ends. At the start the sentinels may just not have answered yet."""
        if why and self._clock.monotonic_s() - self._started_at < FRESH_S:
            return
        with self._lock:
            before, self._why = self._why, why
        if why and not before:
            log.warning("deletions wait: %s", why)
        elif before and not why:
            log.info("deletions go on")

    def _ask(self, number: int, probe: SentinelProbe, stopping: threading.Event) -> None:
        while True:
            asked_at = self._clock.monotonic_s()
            self._words[number] = Word(probe.named_master(), asked_at)
            if stopping.wait(ASK_S):
                probe.close()
                return
