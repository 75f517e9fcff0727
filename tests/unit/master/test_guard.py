"""Orphans, and the guard that stops deletions when the metadata is older than the chunks."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

import pytest

from helenite.core import errors
from helenite.core.clock import Clock
from helenite.core.model import ChunkHandle, Chunkserver, ServerId, ServerState
from helenite.master.namespace import Namespace
from helenite.master.reports import SLICE, Reports, find_missing, is_suspicious
from tests.support.entries import NEEDED, SERVERS, at, fresh_commit, ordered, put, remove
from tests.support.redis_audit import audit

ONE, FOUR = ServerId(1), ServerId(4)
LEAP = 2**40


@pytest.fixture
def reports(namespace: Namespace) -> Reports:
    return Reports(namespace, Clock(), report_s=3600, orphan_age_s=0)


def report(reports: Reports, server: ServerId, handles: Iterable[int], epoch: int) -> None:
    reports.hear([(server, list(handles), False), (server, [], True)], epoch)


def raise_floor(namespace: Namespace, epoch: int) -> None:
    """All handles given out so far become old enough."""
    namespace.watch_orphans(0, epoch)  # takes a sample
    namespace.watch_orphans(0, epoch)  # which is old at once


def begin_new_life(namespace: Namespace) -> int:
    """As if Redis had been replaced; where the gap ends."""
    last = int(namespace._store.command("GET", "next_handle"))
    first = last + LEAP
    namespace._store.command("ZADD", "lives", first, f"{last + 1}:{first}")
    namespace._store.command("SET", "next_handle", first - 1)
    return first


def server(number: int, state: ServerState = ServerState.ALIVE) -> Chunkserver:
    return Chunkserver(ServerId(number), "u", "", "", "", "h", "", 1, state, 0, 0, 0, 0)


def deletions(namespace: Namespace, server_id: ServerId) -> set[int]:
    """Ordered, whether or not the guard hands them out."""
    keys = f"del:{server_id}", f"surplus:{server_id}"
    return {int(handle) for key in keys for handle in namespace._store.command("SMEMBERS", key)}


def test_a_replica_that_the_table_lacks_is_looked_at_before_it_is_added(
    namespace: Namespace, reports: Reports, epoch: int
) -> None:
    handle = put(namespace, "/f").extents[0].handle
    report(reports, FOUR, [handle], epoch)
    assert namespace.locate([handle]) == [(handle, SERVERS)], "the list may be older than the replica's end"
    assert reports.take_doubtful(FOUR) == [handle]
    namespace.add_replicas([handle], FOUR, epoch)
    report(reports, FOUR, [handle], epoch)
    assert reports.take_doubtful(FOUR) == []
    assert namespace.locate([handle]) == [(handle, (*SERVERS, FOUR))]


def test_a_report_that_was_begun_before_a_registration_counts_for_nothing(
    namespace: Namespace, reports: Reports, epoch: int
) -> None:
    def pages() -> Iterator[tuple[ServerId, list[int], bool]]:
        yield ONE, [], False
        reports.expect(ONE)
        yield ONE, [], True

    reports.hear(pages(), epoch)
    assert reports.is_wanted(ONE, epoch)
    report(reports, ONE, [], epoch)
    assert not reports.is_wanted(ONE, epoch)


def test_a_replica_about_to_be_deleted_is_not_added(namespace: Namespace, reports: Reports, epoch: int) -> None:
    handle = put(namespace, "/f").extents[0].handle
    namespace.add_replicas([handle], FOUR, epoch)
    assert namespace.drop_replica(handle, FOUR, NEEDED, epoch)
    report(reports, FOUR, [handle], epoch)
    assert namespace.locate([handle]) == [(handle, SERVERS)]
    assert deletions(namespace, FOUR) == {handle}


def test_orphans_are_deleted_once_they_are_too_old_to_be_committed(
    namespace: Namespace, reports: Reports, epoch: int
) -> None:
    kept = put(namespace, "/f").extents[0].handle
    abandoned = namespace.next_handles(1)
    report(reports, ONE, [kept, abandoned], epoch)
    assert deletions(namespace, ONE) == set(), "its upload may be going on"
    raise_floor(namespace, epoch)
    young = namespace.next_handles(1)
    report(reports, ONE, [kept, abandoned, young], epoch)
    assert ordered(namespace, ONE) == [abandoned]
    audit(namespace._store)


def test_what_may_have_been_deleted_as_an_orphan_is_not_committed(namespace: Namespace, epoch: int) -> None:
    late = fresh_commit(namespace, "/late", 3)
    raise_floor(namespace, epoch)
    with pytest.raises(errors.UploadExpiredError, match="send it again"):
        namespace.apply(late)
    put(namespace, "/next")
    audit(namespace._store)


def test_the_floor_rises_as_slowly_as_orphans_age(namespace: Namespace, epoch: int) -> None:
    put(namespace, "/f", 5)
    for _ in range(3):
        namespace.watch_orphans(3600, epoch)
    assert namespace._store.command("GET", "orphan_floor") is None
    assert namespace._store.command("ZCARD", "handle_samples") == 1
    samples = namespace._store.prefix + "handle_samples"
    client = namespace._store._client
    ((_, taken),) = client.zrange(samples, 0, -1, withscores=True)
    client.zadd(samples, {"5": taken - 3_700_000, "99": taken + 10**9})
    namespace.watch_orphans(3600, epoch)
    assert int(namespace._store.command("GET", "orphan_floor")) == 5
    assert b"99" not in client.zrange(samples, 0, -1), "a sample from the future is of a clock that was wrong"


def test_a_chunk_from_the_future_stops_everything(namespace: Namespace, reports: Reports, epoch: int) -> None:
    kept = put(namespace, "/f").extents[0].handle
    put(namespace, "/g")
    remove(namespace, "/g")
    put(namespace, "/f", 1)
    namespace.add_replicas([kept], FOUR, epoch)
    abandoned = namespace.next_handles(1)
    raise_floor(namespace, epoch)
    namespace._store.command("SADD", "del:1", 4711)
    stranger = abandoned + 1_000_000
    report(reports, ONE, [kept, abandoned, stranger], epoch)
    since_ms, reason = namespace.deleting_stopped()
    assert since_ms > 0
    assert f"{stranger:x}" in reason
    assert "chunkserver 1" in reason
    assert deletions(namespace, ONE) == {4711}
    assert ordered(namespace, ONE) == []
    assert namespace.collect_garbage(epoch, trash_s=0, grace_s=0) == 0
    assert not namespace.drop_replica(kept, FOUR, NEEDED, epoch)
    assert namespace.next_handles(1) == stranger + 1, "no handle is given out twice"
    put(namespace, "/h"), "writes go on"
    assert namespace.resume_deleting()
    assert not namespace.resume_deleting()
    assert namespace.deleting_stopped() == (0, "")
    raise_floor(namespace, epoch)
    report(reports, ONE, [kept, abandoned, stranger], epoch)
    assert namespace.deleting_stopped() == (0, ""), "a person said so"
    assert deletions(namespace, ONE) == {4711, abandoned, stranger}
    while namespace.collect_garbage(epoch, trash_s=0, grace_s=0):
        pass
    audit(namespace._store)


def test_a_new_life_deletes_nothing_until_all_have_reported(namespace: Namespace, reports: Reports, epoch: int) -> None:
    handle = put(namespace, "/f").extents[0].handle
    namespace.add_replicas([handle], FOUR, epoch)
    report(reports, ONE, [handle], epoch)
    begin_new_life(namespace)
    servers = [server(1), server(4), server(5, ServerState.DEAD)]
    reports.watch(servers, epoch)
    assert not namespace.drop_replica(handle, FOUR, NEEDED, epoch)
    assert reports.is_wanted(ONE, epoch), "what it said in the last life is no proof"
    report(reports, ONE, [handle], epoch)
    reports.watch(servers, epoch)
    assert not namespace.drop_replica(handle, FOUR, NEEDED, epoch)
    report(reports, FOUR, [handle], epoch)
    reports.watch(servers, epoch)
    assert namespace.drop_replica(handle, FOUR, NEEDED, epoch)


def test_a_chunk_of_a_lost_life_is_proof_and_cannot_be_committed(
    namespace: Namespace, reports: Reports, epoch: int
) -> None:
    put(namespace, "/f")
    lost = int(namespace._store.command("GET", "next_handle")) + 5
    begin_new_life(namespace)
    commit = fresh_commit(namespace, "/g")
    old = commit.fresh[0]
    with pytest.raises(errors.UploadExpiredError, match="replaced"):
        namespace.apply(
            type(commit)(
                at("/g"),
                100,
                (type(commit.extents[0])(ChunkHandle(lost), 0, 100),),
                (type(old)(ChunkHandle(lost), SERVERS, b""),),
                0,
                commit.condition,
            )
        )
    namespace.apply(commit)
    report(reports, ONE, [lost], epoch)
    assert "never gave out" in namespace.deleting_stopped()[1]


def test_too_many_orphans_at_once_stop_everything(namespace: Namespace, reports: Reports, epoch: int) -> None:
    first = namespace.next_handles(2 * SLICE + 100)
    raise_floor(namespace, epoch)
    orphans = range(first, first + 2 * SLICE + 1)
    report(reports, ONE, orphans, epoch)
    assert deletions(namespace, ONE) == set()
    assert f"{2 * SLICE + 1} of the {2 * SLICE + 1}" in namespace.deleting_stopped()[1]
    namespace.resume_deleting()
    report(reports, ONE, orphans, epoch)
    assert deletions(namespace, ONE) == set(orphans)


@pytest.mark.parametrize(
    ("surprising", "reported", "expected"),
    [(1000, 1000, False), (1001, 1001, True), (1001, 100_000, False), (5001, 100_000, True), (5000, 100_000, False)],
)
def test_few_orphans_are_no_reason(surprising: int, reported: int, expected: bool) -> None:
    assert is_suspicious(surprising, reported) is expected


def test_what_a_report_leaves_out_is_looked_at(namespace: Namespace, reports: Reports, epoch: int) -> None:
    handles = [extent.handle for extent in put(namespace, "/f", 9).extents]
    report(reports, ONE, handles[2:], epoch)
    assert sorted(reports.take_doubtful(ONE)) == handles[:2]
    assert reports.take_doubtful(ONE) == []
    assert namespace.locate(handles[:1]) == [(handles[0], SERVERS)], "nothing follows from the report alone"
    report(reports, FOUR, [], epoch)
    assert reports.take_doubtful(FOUR) == []


def test_missing_chunks_are_found_by_name() -> None:
    held = array("Q", [2, 5, 9])
    assert list(find_missing([1, 2, 5, 7, 9, 10, 11], held, 10)) == [1, 7, 10]
    assert list(find_missing([3], array("Q"), 10)) == [3]


def test_a_report_is_asked_for_until_all_of_it_has_come(namespace: Namespace, reports: Reports, epoch: int) -> None:
    assert reports.is_wanted(ONE, epoch)
    assert reports.is_wanted(ONE, epoch)
    with pytest.raises(errors.InvalidRequestError, match="broke off"):
        reports.hear([(ONE, [], False)], epoch)
    assert reports.is_wanted(ONE, epoch)
    report(reports, ONE, [], epoch)
    assert not reports.is_wanted(ONE, epoch)
    reports.expect(ONE)
    assert reports.is_wanted(ONE, epoch), "it has registered again"
    report(reports, ONE, [], epoch)
    assert reports.is_wanted(ONE, epoch + 1), "another master led meanwhile"


def test_few_servers_report_at_once(reports: Reports, epoch: int) -> None:
    assert [reports.is_wanted(ServerId(n), epoch) for n in (1, 2, 3)] == [True, True, False]
    report(reports, ONE, [], epoch)
    assert not reports.is_wanted(ONE, epoch)
    assert reports.is_wanted(ServerId(3), epoch)


def test_an_old_leader_hears_no_report(namespace: Namespace, reports: Reports, epoch: int) -> None:
    namespace.release_leadership("m")
    namespace.acquire_leadership("other", 60_000)
    with pytest.raises(errors.StaleEpochError):
        report(reports, ONE, [1], epoch)
    for call in (
        lambda: namespace.delete_orphans(ONE, [ChunkHandle(1)], epoch),
        lambda: namespace.watch_orphans(0, epoch),
        lambda: namespace.check_life(1, epoch),
        lambda: namespace.stop_deleting("x", epoch),
    ):
        with pytest.raises(errors.StaleEpochError):
            call()
