"""What a chunkserver is told to delete: never a replica that is, or has meanwhile become, one of too few."""

from __future__ import annotations

import pytest

from helenite.core import errors
from helenite.core.model import ChunkHandle, ServerId
from helenite.master.namespace import Namespace
from helenite.master.stored import Needed
from tests.support.entries import NEEDED, SERVERS, ordered, put, remove
from tests.support.redis import open_namespace

ONE, TWO, THREE, FOUR = map(ServerId, (1, 2, 3, 4))


@pytest.fixture
def chunk(namespace: Namespace) -> ChunkHandle:
    """A chunk on servers 1, 2 and 3."""
    return put(namespace, "/f").extents[0].handle


def alive(*servers: int, keep: int = 3) -> Needed:
    return Needed(keep, frozenset(map(ServerId, servers)))


def holders(namespace: Namespace, handle: ChunkHandle) -> tuple[ServerId, ...]:
    return namespace.locate([handle])[0][1]


def make_surplus(namespace: Namespace, handle: ChunkHandle, epoch: int) -> None:
    """Server 4 gets a replica too many and is to delete it."""
    namespace.add_replicas([handle], FOUR, epoch)
    assert namespace.drop_replica(handle, FOUR, NEEDED, epoch)


def test_only_servers_that_are_alive_and_stay_count(namespace: Namespace, chunk: ChunkHandle, epoch: int) -> None:
    namespace.add_replicas([chunk], FOUR, epoch)
    assert not namespace.drop_replica(chunk, FOUR, alive(1, 2, 4), epoch), "3 is dead"
    namespace.set_draining(TWO, is_on=True)
    assert not namespace.drop_replica(chunk, FOUR, alive(1, 2, 3, 4), epoch), "2 is about to go"
    namespace.set_draining(TWO, is_on=False)
    assert namespace.drop_replica(chunk, FOUR, alive(1, 2, 3, 4), epoch)
    assert not namespace.drop_replica(chunk, FOUR, alive(1, 2, 3, 4), epoch), "it is not named any more"
    assert holders(namespace, chunk) == SERVERS


def test_a_surplus_replica_that_came_to_be_needed_is_not_deleted(
    namespace: Namespace, chunk: ChunkHandle, epoch: int
) -> None:
    make_surplus(namespace, chunk, epoch)
    assert ordered(namespace, FOUR) == [chunk]
    for server in (ONE, TWO, THREE):
        namespace.remove_replica(chunk, server, epoch)
    doomed, called_off = namespace.take_deletions(FOUR, 10, NEEDED, epoch)
    assert (doomed, called_off) == ([], [chunk]), "the server has the last replica, if it has it still"
    assert namespace.take_deletions(FOUR, 10, NEEDED, epoch) == ([], [])
    namespace.add_replicas([chunk], FOUR, epoch)
    assert holders(namespace, chunk) == (FOUR,)


def test_so_while_others_are_silent(namespace: Namespace, chunk: ChunkHandle, epoch: int) -> None:
    make_surplus(namespace, chunk, epoch)
    assert namespace.take_deletions(FOUR, 10, alive(1, 4), epoch) == ([], [chunk])


def test_a_needed_replica_is_saved_while_deletions_are_stopped(
    namespace: Namespace, chunk: ChunkHandle, epoch: int
) -> None:
    make_surplus(namespace, chunk, epoch)
    namespace.stop_deleting("a test", epoch)
    assert namespace.take_deletions(FOUR, 10, NEEDED, epoch) == ([], [])
    assert namespace.take_deletions(FOUR, 10, alive(4), epoch) == ([], [chunk])


def test_who_holds_a_replica_after_all_is_not_told_to_delete_it(
    namespace: Namespace, chunk: ChunkHandle, epoch: int
) -> None:
    make_surplus(namespace, chunk, epoch)
    namespace.add_replicas([chunk], FOUR, epoch)  # repair had ordered a copy there meanwhile
    assert ordered(namespace, FOUR) == []
    assert holders(namespace, chunk) == (*SERVERS, FOUR)


def test_chunks_that_left_the_table_are_deleted_everywhere(
    namespace: Namespace, chunk: ChunkHandle, epoch: int
) -> None:
    make_surplus(namespace, chunk, epoch)
    remove(namespace, "/f")
    while namespace.collect_garbage(epoch, trash_s=0, grace_s=0):
        pass
    for server in (*SERVERS, FOUR):
        assert ordered(namespace, server, alive()) == [chunk]
        namespace.confirm_deletions(server, [chunk])
        assert ordered(namespace, server) == []


def test_a_chunk_that_is_back_in_the_table_is_kept(namespace: Namespace, chunk: ChunkHandle, epoch: int) -> None:
    namespace._store.command("SADD", "del:1", chunk)
    assert namespace.take_deletions(ONE, 10, NEEDED, epoch) == ([], [chunk])


def test_an_old_leader_hands_out_nothing(namespace: Namespace, chunk: ChunkHandle, epoch: int) -> None:
    make_surplus(namespace, chunk, epoch)
    with pytest.raises(errors.StaleEpochError):
        namespace.take_deletions(FOUR, 10, NEEDED, epoch - 1)


def test_another_redis_does_not_remember_what_was_surplus(redis_url: str) -> None:
    with open_namespace(redis_url, "put-back") as namespace:
        epoch = namespace.acquire_leadership("m", 60_000)[1]
        chunk = put(namespace, "/f").extents[0].handle
        make_surplus(namespace, chunk, epoch)
        namespace._store.command("HSET", "servers", 4, b"")
        namespace._store.command("SADD", "del:4", 99)
        namespace._store.command("SET", "life", "0" * 40)  # an older copy of the data, under another process
    with open_namespace(redis_url, "put-back") as namespace:
        store = namespace._store
        assert not store.command("EXISTS", "surplus:4"), "4 may have got the replica back since, as the last one"
        assert store.command("SMEMBERS", "del:4") == {b"99"}, "what left the table never comes back"


def test_a_replica_that_waits_for_its_deletion_is_no_news(namespace: Namespace, chunk: ChunkHandle, epoch: int) -> None:
    make_surplus(namespace, chunk, epoch)
    page = namespace.hear_report(FOUR, [chunk], epoch)
    assert (page.unnamed, page.orphans) == ([], [])


def test_an_absurd_handle_stops_deletions_but_uses_up_no_others(namespace: Namespace, epoch: int) -> None:
    before = int(namespace._store.command("GET", "next_handle") or 0)
    namespace.hear_report(ONE, [ChunkHandle(10**14 - 1), ChunkHandle(before + 1_000_000)], epoch)
    assert "never gave out" in namespace.deleting_stopped()[1]
    assert namespace.next_handles(1) == before + 1_000_001
    put(namespace, "/g")


def test_a_forgotten_server_leaves_nothing(namespace: Namespace, chunk: ChunkHandle, epoch: int) -> None:
    make_surplus(namespace, chunk, epoch)
    namespace._store.command("SADD", "del:4", 99)
    namespace.forget_server(FOUR)
    assert ordered(namespace, FOUR) == []
