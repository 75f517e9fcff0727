"""The fence: a Redis that may have been deposed deletes nothing, whoever still listens to it."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from helenite.core.clock import Clock
from helenite.core.model import ChunkHandle, ServerId
from helenite.master.connecting import probe_sentinels
from helenite.master.fence import ALONE, FRESH_S, OTHER, Fence, Word, most_named
from helenite.master.namespace import Namespace
from helenite.master.store import Store
from tests.support.entries import NEEDED, SERVERS, at, put, remove
from tests.support.ports import free_port
from tests.support.proxy import Proxy
from tests.support.sentinels import Sentinels, running_sentinels
from tests.support.waiting import wait_until

ONE = ServerId(1)
OFTEN = 50


class Leader:
    """What a leading master has to do with deletions."""

    def __init__(self, url: str, sentinels_url: str) -> None:
        self.namespace = Namespace(Store(url, "main"), trash_s=0)
        self.epoch = self.namespace.acquire_leadership("m", 600_000)[1]
        self.crashed = threading.Event()
        self.fence = Fence(self.namespace, probe_sentinels(sentinels_url), Clock(), self.crashed.set)

    def release(self, path: str) -> None:
        """Remove a file; its grace has passed at once."""
        remove(self.namespace, path)
        while self.namespace.collect_garbage(self.epoch, trash_s=0, grace_s=0):
            pass

    def orders(self) -> list[ChunkHandle]:
        """What the first chunkserver is told to delete; again each time, as it confirms nothing."""
        return self.fence.take_deletions(ONE, 10, NEEDED, self.epoch)[0]

    def why(self) -> str:
        assert not self.orders()
        return self.fence.why

    def nothing_until(self, holds: Callable[[], object], within_s: float = 30) -> None:
        """Until a condition holds, and long after that for a race, nothing is deleted."""

        def is_quiet() -> object:
            assert not self.orders()
            return holds()

        wait_until(is_quiet, within_s)
        for _ in range(OFTEN):
            assert not self.orders()


@contextmanager
def leading(url: str, sentinels_url: str = "") -> Iterator[Leader]:
    leader = Leader(url, sentinels_url or url)
    leader.fence.start()
    try:
        yield leader
        assert not leader.crashed.is_set()
    finally:
        leader.fence.stop()
        leader.namespace.close()


@contextmanager
def behind_a_proxy(directory: Path) -> Iterator[tuple[Sentinels, Proxy]]:
    """Sentinels and a replica that a partition can cut off from the first server; a master beside it is not."""
    made = Sentinels(directory)
    with Proxy(f"127.0.0.1:{made.servers[0]}") as proxy:
        made.front = int(proxy.address.rpartition(":")[2])
        try:
            made.start()
            yield made, proxy
        finally:
            made.stop()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ("", 0)),
        ([("a", 10), ("a", 10), ("b", 10)], ("a", 2)),
        ([("a", 10), ("", 10), ("", 10)], ("a", 1)),
        ([("a", 10 - FRESH_S), ("b", 9.9 - FRESH_S), ("b", 9.9 - FRESH_S)], ("a", 1)),
        ([("", 10)], ("", 0)),
    ],
)
def test_old_words_and_empty_ones_name_nobody(words: list[tuple[str, float]], expected: tuple[str, int]) -> None:
    assert most_named([Word(*word) for word in words], 10) == expected


def test_one_redis_needs_nobodys_word(redis_url: str) -> None:
    assert probe_sentinels(redis_url) == ()
    threads = threading.active_count()
    with leading(redis_url) as leader:
        assert threading.active_count() == threads
        chunk = put(leader.namespace, "/f").extents[0].handle
        leader.release("/f")
        assert leader.orders() == [chunk]


def test_while_the_sentinels_heard_are_a_minority_deletions_wait(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "helenite.master.fence")
    with running_sentinels(tmp_path) as sentinels, leading(sentinels.url) as leader:
        chunk = put(leader.namespace, "/f").extents[0].handle
        leader.release("/f")
        wait_until(lambda: leader.orders() == [chunk])
        for port in sentinels.sentinels[1:]:
            sentinels.send(port, signal.SIGSTOP)
        wait_until(lambda: not leader.orders())
        leader.nothing_until(lambda: "1 of 3" in leader.why())
        for port in sentinels.sentinels[1:]:
            sentinels.send(port, signal.SIGCONT)
        wait_until(lambda: leader.orders() == [chunk], 20)
        assert leader.fence.why == ""
    told = [record.getMessage() for record in caplog.records if record.name == "helenite.master.fence"]
    lines = [line.partition(":")[0] for line in told]
    # More than once, if this machine lets the sentinels seem silent for a moment.
    assert lines == ["deletions wait", "deletions go on"] * (len(lines) // 2)
    assert any("of 3 sentinels" in line for line in told)


def test_what_no_replica_knows_is_not_deleted(tmp_path: Path) -> None:
    """From the first moment of a split, when the sentinels have not noticed anything yet."""
    with (
        behind_a_proxy(tmp_path) as (sentinels, proxy),
        leading(f"redis://127.0.0.1:{sentinels.servers[0]}/0", sentinels.url) as leader,
    ):
        old = put(leader.namespace, "/old").extents[0].handle
        gone = put(leader.namespace, "/gone").extents[0].handle
        leader.release("/gone")
        wait_until(lambda: leader.orders() == [gone])
        leader.namespace.confirm_deletions(ONE, [gone])
        proxy.partition()
        leader.release("/old")
        leader.nothing_until(lambda: sentinels.master() == sentinels.servers[1])
        leader.nothing_until(lambda: leader.why() == OTHER)
        proxy.heal()
        survivor = Namespace(Store(sentinels.url, "main"), trash_s=0)
        try:
            assert survivor.lookup(at("/old")).name == "old"
            assert survivor.locate([old]) == [(old, SERVERS)]
        finally:
            survivor.close()


def test_a_replica_on_its_side_makes_no_master_of_a_deposed_redis(tmp_path: Path) -> None:
    with (
        behind_a_proxy(tmp_path) as (sentinels, proxy),
        leading(f"redis://127.0.0.1:{sentinels.servers[0]}/0", sentinels.url) as leader,
    ):
        put(leader.namespace, "/old")
        beside = free_port()
        # Not to be promoted, and out of the sentinels' reach.
        sentinels.start_server(beside, sentinels.servers[0], "replica-priority 0\nreplica-announce-port 1\n")
        first = redis.Redis(port=sentinels.servers[0])
        wait_until(lambda: first.info("replication")["connected_slaves"] == 2, 20)
        wait_until(lambda: not leader.why())
        proxy.partition()
        wait_until(leader.why)
        leader.release("/old")
        first.set("mark", 1)
        assert first.wait(1, 5000) == 1
        leader.nothing_until(lambda: leader.why() == OTHER)


def test_without_a_replica_deletions_wait(tmp_path: Path) -> None:
    """It may be an old one that comes back, and becomes the master when this one dies."""
    with running_sentinels(tmp_path) as sentinels, leading(sentinels.url) as leader:
        chunk = put(leader.namespace, "/f").extents[0].handle
        leader.release("/f")
        wait_until(lambda: leader.orders() == [chunk])
        first = redis.Redis(port=sentinels.servers[0])
        sentinels.send(sentinels.servers[1], signal.SIGSTOP)
        wait_until(lambda: leader.fence.why == ALONE or leader.orders() != [chunk])
        leader.nothing_until(lambda: leader.why() == ALONE)
        first.config_set("min-replicas-max-lag", 1)
        first.config_set("min-replicas-to-write", 1)
        wait_until(lambda: first.info("replication")["min_slaves_good_slaves"] == 0)
        name = first.info("server")["run_id"]
        taken = leader.namespace.take_named_deletions(ONE, 10, NEEDED, leader.epoch, name)
        assert not taken.is_witnessed, "a Redis that refuses writes does not fail the heartbeat"
        sentinels.send(sentinels.servers[1], signal.SIGCONT)
        wait_until(lambda: leader.orders() == [chunk], 30)
        assert leader.fence.why == ""


def test_another_redis_than_the_named_one_hands_out_nothing(namespace: Namespace, epoch: int) -> None:
    chunk = put(namespace, "/f").extents[0].handle
    remove(namespace, "/f")
    while namespace.collect_garbage(epoch, trash_s=0, grace_s=0):
        pass
    for name in ("", "0" * 40):
        taken = namespace.take_named_deletions(ONE, 10, NEEDED, epoch, name)
        assert (taken.doomed, taken.is_named, taken.is_witnessed) == ([], False, True)
    own = namespace._store._client.info("server")["run_id"]
    taken = namespace.take_named_deletions(ONE, 10, NEEDED, epoch, own)
    assert (taken.doomed, taken.is_named, taken.is_witnessed) == ([chunk], True, False), "it has no replica"
