"""Leadership, the chunk table, chunkservers, members, users: what the loops and the other services ask for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from helenite.core import errors
from helenite.core.model import Chunkserver, ServerId, ServerState
from helenite.master.namespace import Namespace
from tests.support.entries import SERVERS, at, put
from tests.support.redis import open_namespace

SERVER = Chunkserver(
    ServerId(0), "uuid-1", "h:1", "h:2", "/run/d.sock", "h", "r1", 77, ServerState.ALIVE, 1000, 500, 500, 3
)


def test_all_masters_agree_on_the_identity(redis_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: open_namespace(redis_url, "identity").__enter__(), range(4)))
    assert len({(each.cluster_id, each.capability_key) for each in opened}) == 1
    for each in opened:
        each.close()


def test_one_leads_until_it_stops_renewing(namespace: Namespace) -> None:
    assert namespace.acquire_leadership("a", 60_000) == (True, 1)
    assert namespace.acquire_leadership("b", 60_000) == (False, 1)
    assert namespace.acquire_leadership("a", 60_000) == (True, 1)
    namespace.release_leadership("b")
    assert namespace.leader_id() == "a"
    namespace.release_leadership("a")
    assert namespace.leader_id() == ""
    assert namespace.acquire_leadership("b", 1) == (True, 2)
    while namespace.leader_id():
        pass  # one millisecond
    assert namespace.acquire_leadership("b", 60_000) == (True, 3), "who lost the lease gets a new epoch"


def test_handles_are_never_given_twice(namespace: Namespace) -> None:
    with ThreadPoolExecutor(8) as pool:
        firsts = list(pool.map(lambda _: namespace.next_handles(10), range(50)))
    assert len({handle for first in firsts for handle in range(first, first + 10)}) == 500


def test_replicas_come_and_go(namespace: Namespace) -> None:
    put(namespace, "/f")
    handle = namespace.lookup(at("/f")).entry.extents[0].handle
    _, epoch = namespace.acquire_leadership("m", 60_000)
    assert namespace.add_replicas([handle], ServerId(40_000), epoch) == [True]
    assert namespace.add_replicas([handle], ServerId(40_000), epoch) == [True]
    assert namespace.remove_replica(handle, ServerId(2), epoch)
    assert namespace.locate([handle]) == [(handle, (1, 3, 40_000))]
    for server in (1, 3, 40_000):
        namespace.remove_replica(handle, ServerId(server), epoch)
    assert namespace.locate([handle]) == [(handle, ())]
    assert namespace.add_replicas([handle], ServerId(2), epoch) == [True], "a chunk without replicas is still known"
    assert namespace.add_replicas([handle + 1], ServerId(1), epoch) == [False]


def test_the_chunk_table_is_scanned_in_pages(namespace: Namespace) -> None:
    put(namespace, "/f", 9_000)
    namespace.next_handles(2_000_000)
    put(namespace, "/g", 3)
    found, cursor, pages = [], 0, 0
    while True:
        page, cursor = namespace.scan_chunks(cursor)
        found += page
        pages += 1
        if cursor == 0:
            break
    assert pages > 2
    expected = [*range(1, 9_001), *range(2_009_001, 2_009_004)]
    assert sorted(handle for handle, _ in found) == expected
    assert {servers for _, servers in found} == {SERVERS}


def test_a_chunkserver_keeps_its_id(namespace: Namespace) -> None:
    first = namespace.assign_server(SERVER)
    second = namespace.assign_server(replace(SERVER, uuid="uuid-2"))
    assert (first, second) == (1, 2)
    assert namespace.assign_server(replace(SERVER, id=first, address="new:1")) == first
    assert namespace.assign_server(SERVER) == first, "it lost the note of its id"
    assert namespace.assign_server(replace(SERVER, id=ServerId(9), uuid="uuid-9")) == 9, "of a restored backup"
    assert namespace.assign_server(replace(SERVER, uuid="uuid-10")) == 10
    with pytest.raises(errors.ForeignClusterError):
        namespace.assign_server(replace(SERVER, id=second, uuid="uuid-3"))
    found = {server.id: server for server in namespace.list_servers()}
    assert set(found) == {1, 2, 9, 10}
    assert (found[ServerId(1)].uuid, found[ServerId(1)].data_socket, found[ServerId(1)].pid) == (
        "uuid-1",
        "/run/d.sock",
        77,
    )


def test_members_are_listed_while_they_call(namespace: Namespace) -> None:
    namespace.announce_member("master", "m1", "h:1", 5, 60)
    namespace.announce_member("gateway", "g1", "h:2", 6, 60)
    namespace.announce_member("master", "m2", "h:3", 7, 0)
    assert {(m.id, m.kind, m.address, m.pid, m.is_alive) for m in namespace.list_members()} == {
        ("m1", "master", "h:1", 5, True),
        ("g1", "gateway", "h:2", 6, True),
        ("m2", "master", "h:3", 7, False),
    }
    assert namespace.master_addresses() == ["h:1"]


def test_users(namespace: Namespace) -> None:
    assert namespace.get_user("ann") is None
    namespace.put_user("ann", "$argon2a")
    first = namespace.get_user("ann")
    assert first is not None
    assert first.created_at_ms > 0
    namespace.put_user("ann", "$argon2b")
    namespace.put_user("Äb", "$argon2c")
    second = namespace.get_user("ann")
    assert second is not None
    assert (second.password_hash, second.created_at_ms) == ("$argon2b", first.created_at_ms)
    assert [user.name for user in namespace.list_users()] == ["ann", "Äb"]
    assert namespace.remove_user("ann")
    assert not namespace.remove_user("ann")
