"""Locks as RFC 4918 sections 6 and 7 have them, in tables: who conflicts with whom, which change needs whose token."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from helenite.core import errors
from helenite.core.model import LockScope
from helenite.master.mutations import RefreshLock, ReleaseLock, RestoreTrashed, SetProperties
from helenite.master.namespace import Namespace
from tests.support.entries import at, copy, entry_of, holding, lock, mkdir, move, put, remove
from tests.support.redis_audit import audit, keys

X, S = LockScope.EXCLUSIVE, LockScope.SHARED


@pytest.fixture
def tree(namespace: Namespace) -> Namespace:
    """/d/e/f and /g."""
    mkdir(namespace, "/d")
    mkdir(namespace, "/d/e")
    put(namespace, "/d/e/f")
    put(namespace, "/g")
    return namespace


CONFLICTS = [
    # held lock (path, infinite, scope), wanted lock, whether they conflict
    (("/g", False, X), ("/g", False, X), True),
    (("/g", False, X), ("/g", False, S), True),
    (("/g", False, S), ("/g", False, X), True),
    (("/g", False, S), ("/g", False, S), False),
    (("/d", True, X), ("/d/e/f", False, X), True),
    (("/d", True, X), ("/d/e/f", False, S), True),
    (("/d", True, S), ("/d/e/f", False, S), False),
    (("/d", False, X), ("/d/e/f", False, X), False),
    (("/d", False, X), ("/d/e", True, X), False),
    (("/d/e/f", False, X), ("/d", True, X), True),
    (("/d/e/f", False, S), ("/d", True, X), True),
    (("/d/e/f", False, S), ("/d", True, S), False),
    (("/d/e/f", False, X), ("/d", False, X), False),
    (("/d", True, X), ("/g", False, X), False),
    (("/", True, X), ("/g", False, X), True),
    (("/g", False, X), ("/", True, X), True),
    (("/d", True, X), ("/d/new", False, X), True),
    (("/d", False, X), ("/d/e/new", False, X), False),
]


@pytest.mark.parametrize(("held", "wanted", "is_conflict"), CONFLICTS)
def test_conflicts(
    tree: Namespace, held: tuple[str, bool, LockScope], wanted: tuple[str, bool, LockScope], is_conflict: bool
) -> None:
    lock(tree, held[0], "held", is_infinite=held[1], scope=held[2])
    before = tree.usage()
    if is_conflict:
        with pytest.raises(errors.LockedError):
            lock(tree, wanted[0], "wanted", is_infinite=wanted[1], scope=wanted[2])
        assert tree.usage() == before, "no empty file was left"
    else:
        assert lock(tree, wanted[0], "wanted", is_infinite=wanted[1], scope=wanted[2]).lock is not None
    audit(tree._store)


NEEDS = [
    # locked path, infinite, what is done with no token, whether it is refused
    ("/g", False, lambda n, c: put(n, "/g", 1, c), True),
    ("/g", False, lambda n, c: remove(n, "/g", c), True),
    ("/g", False, lambda n, c: move(n, "/g", "/h", condition=c), True),
    ("/g", False, lambda n, c: copy(n, "/g", "/h", condition=c), False),
    ("/g", False, lambda n, c: copy(n, "/d", "/g", overwrite=True, condition=c), True),
    ("/g", False, lambda n, c: move(n, "/d/e/f", "/g", overwrite=True, condition=c), True),
    ("/g", False, lambda n, c: n.apply(SetProperties(at("/g"), {"{a}b": b""}, condition=c)), True),
    ("/g", False, lambda n, c: put(n, "/h", 1, c), False),
    ("/d/e/f", False, lambda n, c: remove(n, "/d", c), True),
    ("/d/e/f", False, lambda n, c: move(n, "/d", "/h", condition=c), True),
    ("/d/e/f", False, lambda n, c: move(n, "/g", "/d", overwrite=True, condition=c), True),
    ("/d/e/f", False, lambda n, c: put(n, "/d/e/h", 1, c), False),
    ("/d/e/f", False, lambda n, c: n.apply(SetProperties(at("/d/e"), {"{a}b": b""}, condition=c)), False),
    ("/d/e", False, lambda n, c: put(n, "/d/e/h", 1, c), True),
    ("/d/e", False, lambda n, c: mkdir(n, "/d/e/h", c), True),
    ("/d/e", False, lambda n, c: lock(n, "/d/e/h", "other", condition=c), True),
    ("/d/e", False, lambda n, c: put(n, "/d/e/f", 1, c), False),
    ("/d/e", False, lambda n, c: remove(n, "/d/e/f", c), True),
    ("/d/e", False, lambda n, c: move(n, "/d/e/f", "/h", condition=c), True),
    ("/d/e", False, lambda n, c: move(n, "/g", "/d/e/h", condition=c), True),
    ("/d/e", False, lambda n, c: copy(n, "/g", "/d/e/h", condition=c), True),
    ("/d", False, lambda n, c: put(n, "/d/e/h", 1, c), False),
    ("/d", True, lambda n, c: put(n, "/d/e/h", 1, c), True),
    ("/d", True, lambda n, c: put(n, "/d/e/f", 1, c), True),
    ("/d", True, lambda n, c: remove(n, "/d/e/f", c), True),
    ("/d", True, lambda n, c: remove(n, "/g", c), False),
    ("/", False, lambda n, c: put(n, "/h", 1, c), True),
    ("/", False, lambda n, c: put(n, "/d/h", 1, c), False),
    ("/", True, lambda n, c: put(n, "/d/h", 1, c), True),
]


@pytest.mark.parametrize(("locked", "is_infinite", "act", "is_refused"), NEEDS)
def test_what_needs_the_token(
    tree: Namespace, locked: str, is_infinite: bool, act: Callable[..., object], is_refused: bool
) -> None:
    lock(tree, locked, "t", is_infinite=is_infinite, condition=holding(principal="ann"))
    if is_refused:
        for wrong in (holding(), holding("x"), holding("t"), holding("t", principal="bob"), holding(principal="ann")):
            before = tree.last_sequence()
            with pytest.raises(errors.LockedError):
                act(tree, wrong)
            assert tree.last_sequence() == before
    act(tree, holding("t", principal="ann"))
    audit(tree._store)


def test_one_of_the_shared_locks_is_enough(tree: Namespace) -> None:
    lock(tree, "/g", "t1", scope=S)
    lock(tree, "/g", "t2", scope=S)
    put(tree, "/g", 1, holding("t2"))


def test_removing_a_tree_needs_every_lock_beneath(tree: Namespace) -> None:
    lock(tree, "/d/e", "t1")
    lock(tree, "/d/e/f", "t2")
    with pytest.raises(errors.LockedError):
        remove(tree, "/d", holding("t1"))
    with pytest.raises(errors.LockedError):
        remove(tree, "/d", holding("t2"))
    remove(tree, "/d", holding("t1", "t2"))
    assert not {key for key in keys(tree._store) if key[:2] in {"l:", "b:"} or key == "locks"}


def test_locks_stay_behind_when_their_entry_moves(tree: Namespace) -> None:
    lock(tree, "/g", "t")
    move(tree, "/g", "/h", condition=holding("t"))
    assert tree.lookup(at("/h"), with_locks=True).locks == ()
    with pytest.raises(errors.LockNotFoundError):
        tree.apply(ReleaseLock(at("/h"), "t"))


def test_a_lock_outlives_what_is_moved_over_its_entry(tree: Namespace) -> None:
    """The way of Office: write a temporary file, move it over the locked one, unlock."""
    lock(tree, "/g", "t")
    move(tree, "/d/e/f", "/g", overwrite=True, condition=holding("t"))
    with pytest.raises(errors.LockedError):
        put(tree, "/g")
    assert [held.path for held in tree.lookup(at("/g"), with_locks=True).locks] == ["/g"]
    tree.apply(ReleaseLock(at("/g"), "t"))
    put(tree, "/g")
    audit(tree._store)


def test_locking_a_free_name_makes_an_empty_file(tree: Namespace) -> None:
    outcome = lock(tree, "/d/new", "t")
    assert outcome.is_created
    assert entry_of(outcome).size_bytes == 0
    assert tree.read_feed(outcome.sequence - 1, 10)[0][0].verb == "commit"
    with pytest.raises(errors.ParentNotFoundError):
        lock(tree, "/no/such", "t2")


def test_a_look_up_shows_own_and_inherited_locks(tree: Namespace) -> None:
    lock(tree, "/d", "t1", is_infinite=True, scope=S)
    lock(tree, "/d/e/f", "t2", scope=S)
    lock(tree, "/d/e", "t3", scope=S)
    assert {held.token for held in tree.lookup(at("/d/e/f"), with_locks=True).locks} == {"t1", "t2"}
    page = tree.list_directory(at("/d/e"), with_locks=True)
    assert {held.token for held in page.directory.locks} == {"t1", "t3"}
    (found,) = page.entries[0].locks
    assert found.token == "t2"
    assert (found.path, found.scope, found.is_infinite, found.owner) == ("/d/e/f", S, False, b"<owner/>")


def test_refresh_and_release_need_a_covered_path_and_the_principal(tree: Namespace) -> None:
    lock(tree, "/d", "t", is_infinite=True, condition=holding(principal="ann"))
    with pytest.raises(errors.LockNotFoundError):
        tree.apply(RefreshLock(at("/g"), "t", 60, "ann"))
    with pytest.raises(errors.LockNotFoundError):
        tree.apply(ReleaseLock(at("/d"), "other", "ann"))
    with pytest.raises(errors.PermissionDeniedError):
        tree.apply(RefreshLock(at("/d"), "t", 60, "bob"))
    with pytest.raises(errors.PermissionDeniedError):
        tree.apply(ReleaseLock(at("/d"), "t", ""))
    refreshed = tree.apply(RefreshLock(at("/d/e/f"), "t", 7200, "ann")).lock
    assert refreshed is not None
    assert refreshed.timeout_s == 7200
    tree.apply(ReleaseLock(at("/d/e/f"), "t", "ann"))
    put(tree, "/d/e/f")


def test_an_expired_lock_counts_for_nothing_and_is_swept(tree: Namespace) -> None:
    outcome = lock(tree, "/g", "t", timeout_s=3600)
    assert outcome.lock is not None
    _, epoch = tree.acquire_leadership("m", 60_000)
    assert tree.collect_garbage(epoch, trash_s=3600, grace_s=3600) == 0
    _expire(tree, "t")
    put(tree, "/g")
    assert tree.lookup(at("/g"), with_locks=True).locks == ()
    with pytest.raises(errors.LockNotFoundError):
        tree.apply(RefreshLock(at("/g"), "t", 60))
    lock(tree, "/g", "t2")
    assert tree.collect_garbage(epoch, trash_s=3600, grace_s=3600) >= 1
    assert tree._store.command("HKEYS", "locks") == [b"t2"]
    audit(tree._store)


def test_a_restored_entry_needs_its_directory_unlocked(tree: Namespace) -> None:
    outcome = remove(tree, "/d/e")
    lock(tree, "/d", "t")
    with pytest.raises(errors.LockedError):
        tree.apply(RestoreTrashed(outcome.sequence))
    tree.apply(RestoreTrashed(outcome.sequence, at("/e")))


def test_locks_have_a_maximum(tree: Namespace) -> None:
    lock(tree, "/g", "t")
    held = tree._store.command("HGET", "locks", "t")
    filler = [part for i in range(9_999) for part in (f"filler{i}", held)]
    tree._store.command("HSET", "locks", *filler)
    with pytest.raises(errors.QuotaExceededError):
        lock(tree, "/d", "t2")


def _expire(namespace: Namespace, token: str) -> None:
    """Let a lock's time be over (the scripts ask Redis' clock, which no test can turn)."""
    namespace._store._client.eval(
        "local lock = cmsgpack.unpack(redis.call('HGET', KEYS[1], ARGV[1])) lock.expires_at_ms = 1 "
        "redis.call('HSET', KEYS[1], ARGV[1], cmsgpack.pack(lock))",
        1,
        namespace._store.prefix + "locks",
        token,
    )
