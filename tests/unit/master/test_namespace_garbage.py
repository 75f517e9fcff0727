"""Garbage collection: what may go and when, in bounded steps, whatever stops it in between."""

from __future__ import annotations

import pytest

from helenite.core import errors
from helenite.core.model import Condition, ServerId
from helenite.master.mutations import Commit, EmptyTrash, SetProperties
from helenite.master.namespace import Namespace
from tests.support.entries import SERVERS, at, copy, mkdir, ordered, put, remove
from tests.support.redis_audit import CONSTANTS, audit, chunk_table, keys

HOUR = 3600


def collect(namespace: Namespace, epoch: int, *, trash_s: int = HOUR, grace_s: int = 0) -> int:
    """Steps until there is nothing to do, the books recounted after each: a crash may come after any of them."""
    steps = 0
    while namespace.collect_garbage(epoch, trash_s=trash_s, grace_s=grace_s):
        audit(namespace._store)
        steps += 1
    return steps


def deletions(namespace: Namespace) -> set[int]:
    return {handle for server in SERVERS for handle in ordered(namespace, server)}


def test_overwritten_chunks_are_freed_after_their_grace(namespace: Namespace, epoch: int) -> None:
    put(namespace, "/f", 2)
    (first, second) = namespace.lookup(at("/f")).entry.extents
    put(namespace, "/f", 1)
    collect(namespace, epoch, grace_s=HOUR)
    assert deletions(namespace) == set()
    assert namespace.locate([first.handle])[0][1] == SERVERS, "readers of the old revision still find it"
    assert first.handle not in {handle for handle, _ in namespace.scan_chunks()[0]}
    collect(namespace, epoch)
    assert deletions(namespace) == {first.handle, second.handle}
    assert namespace.locate([first.handle]) == [(first.handle, ())]
    namespace.confirm_deletions(ServerId(2), [first.handle])
    assert ordered(namespace, ServerId(2)) == [second.handle]
    assert set(ordered(namespace, ServerId(3))) == {first.handle, second.handle}


def test_shared_chunks_live_as_long_as_any_file_names_them(namespace: Namespace, epoch: int) -> None:
    old = put(namespace, "/f", 3)
    extents = namespace.lookup(at("/f")).entry.extents
    copy(namespace, "/f", "/g")
    namespace.apply(Commit(at("/f"), 200, (extents[0], extents[0]), (), condition=Condition.exactly(old)))
    collect(namespace, epoch)
    assert deletions(namespace) == set()
    remove(namespace, "/g")
    namespace.apply(EmptyTrash())
    collect(namespace, epoch)
    assert deletions(namespace) == {extents[1].handle, extents[2].handle}
    put(namespace, "/f", 0)
    collect(namespace, epoch)
    assert deletions(namespace) == {extent.handle for extent in extents}


def test_trash_expires(namespace: Namespace, epoch: int) -> None:
    put(namespace, "/f")
    remove(namespace, "/f")
    collect(namespace, epoch, trash_s=HOUR)
    assert len(namespace.list_trash()) == 1
    collect(namespace, epoch, trash_s=0)
    assert namespace.list_trash() == []
    assert len(deletions(namespace)) == 1


def test_a_large_tree_goes_in_bounded_steps(namespace: Namespace, epoch: int) -> None:
    mkdir(namespace, "/d")
    put(namespace, "/d/f0", 2)
    namespace.apply(SetProperties(at("/d/f0"), {"{a}b": b""}))
    for i in range(1, 40):
        copy(namespace, "/d/f0", f"/d/f{i}")
    for i in range(40):
        copy(namespace, "/d", f"/d{i}")
    copy(namespace, "/d", "/d0/inner")
    assert namespace.usage().file_count == 42 * 40
    handles = set(chunk_table(namespace._store))
    for name in ("d", *(f"d{i}" for i in range(40))):
        remove(namespace, f"/{name}")
    namespace.apply(EmptyTrash())
    assert collect(namespace, epoch) > 5
    assert deletions(namespace) == handles
    for server in SERVERS:
        namespace.confirm_deletions(server, handles)
    assert keys(namespace._store) <= CONSTANTS
    assert namespace._store.command("HKEYS", "q") == [b"1"]


def test_a_long_file_is_released_piece_by_piece(namespace: Namespace, epoch: int) -> None:
    put(namespace, "/f", 10_000)
    put(namespace, "/f", 1)
    assert namespace._store.command("LLEN", "gc") == 1
    steps = collect(namespace, epoch)
    assert steps >= 10_000 / 4_000
    assert len(deletions(namespace)) == 10_000
    audit(namespace._store)


def test_an_interrupted_copy_is_cleared_away(namespace: Namespace, epoch: int) -> None:
    mkdir(namespace, "/d")
    put(namespace, "/d/f")
    store = namespace._store
    _, source, staged = store.run("copy", _copy_request())
    step = {"operation": b"step", "staged": staged, "jobs": [(source, [staged], "0")], "budget": 500}
    assert store.run("copy_step", step) == store.run("copy_step", step), "a repeat after a lost reply does nothing"
    audit(store)
    assert collect(namespace, epoch) == 0, "it may still be going on"
    store.command("HSET", "staging", staged, 1)
    collect(namespace, epoch)
    assert f"d:{staged}" not in keys(store)
    with pytest.raises(errors.UnavailableError):
        store.run("copy_step", {**step, "operation": b"late"})
    with pytest.raises(errors.UnavailableError):
        store.run("copy", {**_copy_request(), "staged": staged, "staged_from": source})
    audit(store)
    assert deletions(namespace) == set()


def test_a_copy_of_a_tree_attaches_only_while_its_source_is_there(namespace: Namespace) -> None:
    mkdir(namespace, "/d")
    store = namespace._store
    _, source, staged = store.run("copy", _copy_request())
    remove(namespace, "/d")
    mkdir(namespace, "/d")
    with pytest.raises(errors.UnavailableError):
        store.run("copy", {**_copy_request(), "staged": staged, "staged_from": source})


def _copy_request() -> dict[str, object]:
    condition = {"expect": "any", "id": 0, "revision": 0, "tokens": [], "principal": ""}
    return {
        "source": [b"d"],
        "target": [b"x"],
        "overwrite": False,
        "is_shallow": False,
        "operation": b"op",
        "has_trash": True,
        "condition": condition,
        "target_condition": condition,
    }


def test_an_old_leader_is_refused(namespace: Namespace, epoch: int) -> None:
    put(namespace, "/f")
    handle = namespace.lookup(at("/f")).entry.extents[0].handle
    namespace.release_leadership("m")
    leads, newer = namespace.acquire_leadership("other", 600_000)
    assert leads
    assert newer > epoch
    for act in (
        lambda: namespace.collect_garbage(epoch, trash_s=0, grace_s=0),
        lambda: namespace.add_replicas([handle], ServerId(9), epoch),
        lambda: namespace.remove_replica(handle, ServerId(1), epoch),
    ):
        with pytest.raises(errors.StaleEpochError):
            act()
    assert namespace.locate([handle]) == [(handle, SERVERS)]


def test_a_large_directory_is_taken_apart_to_its_end(namespace: Namespace, epoch: int) -> None:
    """A hash keeps its empty buckets: a scan that always began at 0 would stop finding anything."""
    mkdir(namespace, "/large")
    names = [
        (f"{number}".encode().rjust(16, b"o"), Commit(at(f"/large/{number}"), 0, (), ())) for number in range(20_000)
    ]
    for start in range(0, len(names), 1_000):
        namespace.mutate(names[start : start + 1_000])
    remove(namespace, "/large")
    namespace.apply(EmptyTrash())
    steps = 0
    while namespace.collect_garbage(epoch, trash_s=HOUR, grace_s=0):
        steps += 1
        assert steps < 1_000
    assert namespace.usage().file_count == 0
    assert keys(namespace._store) <= CONSTANTS
