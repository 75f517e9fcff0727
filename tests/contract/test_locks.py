"""Locks, live with the namespace."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

import pytest

from helenite.client.filesystem import FileSystem
from helenite.core import errors
from helenite.core.model import Condition, LockScope
from helenite.core.paths import Path
from tests.support.contract import get, holding, names, put, take_lock


def test_a_lock_protects_its_entry(fs: FileSystem, home: Path) -> None:
    path = (*home, "f")
    put(fs, path, b"old")
    token = take_lock(fs, path, "ann")
    mutations = (
        lambda condition: put(fs, path, b"new", condition=condition),
        lambda condition: fs.set_properties(path, set_values={"{a}b": b"<b/>"}, condition=condition),
        lambda condition: (
            fs.copy(path, (*home, "c"), overwrite=True, condition=condition)
            and fs.move((*home, "c"), path, overwrite=True, condition=condition)
        ),
    )
    for wrong in (holding(), holding("urn:uuid:none", principal="ann"), holding(token, principal="bob")):
        for mutate in mutations:
            with pytest.raises(errors.LockedError):
                mutate(wrong)
        with pytest.raises(errors.LockedError):
            fs.remove(path, condition=wrong)
        with pytest.raises(errors.LockedError):
            fs.move(path, (*home, "g"), overwrite=True, condition=wrong)
    assert get(fs, path) == b"old"
    for mutate in mutations[:2]:
        mutate(holding(token, principal="ann"))
    assert get(fs, path) == b"new"
    fs.remove(path, condition=holding(token, principal="ann"))
    put(fs, path)
    assert fs.lookup(path, with_locks=True).locks == ()


def test_what_a_lock_looks_like(fs: FileSystem, home: Path) -> None:
    path = (*home, "f")
    put(fs, path)
    token = uuid.uuid4().urn
    lock, entry, is_new = fs.lock(
        path,
        token=token,
        scope=LockScope.SHARED,
        is_infinite=True,
        owner=b"<owner/>",
        timeout_s=77,
        condition=Condition(principal="ann"),
    )
    assert (lock.token, lock.scope, lock.owner, lock.principal, lock.timeout_s) == (
        token,
        LockScope.SHARED,
        b"<owner/>",
        "ann",
        77,
    )
    assert (lock.path, entry.name, is_new) == ("/" + "/".join(path), "f", False)
    assert fs.lookup(path, with_locks=True).locks == (lock,)
    assert next(iter(fs.list(home, with_locks=True)[1])).locks == (lock,)


def test_deep_and_shallow_locks_of_a_directory(fs: FileSystem, home: Path) -> None:
    fs.make_directory((*home, "d"))
    put(fs, (*home, "d", "f"))
    for is_infinite in (False, True):
        token = take_lock(fs, (*home, "d"), is_infinite=is_infinite)
        for change in (
            lambda c: put(fs, (*home, "d", "new"), condition=c),
            lambda c: fs.make_directory((*home, "d", "new"), condition=c),
            lambda c: fs.remove((*home, "d", "f"), condition=c),
            lambda c: fs.move((*home, "d", "f"), (*home, "away"), overwrite=False, condition=c),
        ):
            with pytest.raises(errors.LockedError):
                change(holding())
        if is_infinite:
            with pytest.raises(errors.LockedError):
                put(fs, (*home, "d", "f"), b"y")
            assert [k.token for k in fs.lookup((*home, "d", "f"), with_locks=True).locks] == [token]
        else:
            put(fs, (*home, "d", "f"), b"y")
            assert fs.lookup((*home, "d", "f"), with_locks=True).locks == ()
        put(fs, (*home, "d", "new"), condition=holding(token))
        fs.remove((*home, "d", "new"), condition=holding(token))
        fs.unlock((*home, "d"), token=token, principal="")


def test_a_listing_shows_what_its_entries_inherit_however_large(fs: FileSystem, home: Path) -> None:
    fs.make_directory((*home, "d"))
    fs.make_directory((*home, "d", "e"))
    for i in range(1200):
        fs.make_directory((*home, "d", "e", f"{i}"))
    owner = b"<owner>" + b"x" * 16_000 + b"</owner>"
    deep, shallow = uuid.uuid4().urn, uuid.uuid4().urn
    for path, token, is_infinite in (((*home, "d"), deep, True), ((*home, "d", "e"), shallow, False)):
        fs.lock(path, token=token, scope=LockScope.SHARED, is_infinite=is_infinite, owner=owner, timeout_s=60)
    own = take_lock(fs, (*home, "d", "e", "7"), scope=LockScope.SHARED)
    directory, views = fs.list((*home, "d", "e"), with_locks=True)
    assert {lock.token for lock in directory.locks} == {deep, shallow}
    seen = {view.entry.name: [lock.token for lock in view.locks] for view in views}
    assert len(seen) == 1200
    assert sorted(seen.pop("7")) == sorted([own, deep])
    assert all(tokens == [deep] for tokens in seen.values())


def test_a_locked_child_protects_its_ancestors(fs: FileSystem, home: Path) -> None:
    fs.make_directory((*home, "d"))
    put(fs, (*home, "d", "f"))
    token = take_lock(fs, (*home, "d", "f"))
    for change in (
        lambda c: fs.remove((*home, "d"), condition=c),
        lambda c: fs.move((*home, "d"), (*home, "e"), overwrite=False, condition=c),
    ):
        with pytest.raises(errors.LockedError):
            change(holding())
    fs.move((*home, "d"), (*home, "e"), overwrite=False, condition=holding(token))
    assert fs.lookup((*home, "e", "f"), with_locks=True).locks == ()  # a MOVE leaves locks behind (RFC 4918 7.6)


def test_conflicting_locks(fs: FileSystem, home: Path) -> None:
    fs.make_directory((*home, "d"))
    put(fs, (*home, "d", "f"))
    token = take_lock(fs, (*home, "d", "f"), scope=LockScope.SHARED)
    other = take_lock(fs, (*home, "d", "f"), scope=LockScope.SHARED)
    with pytest.raises(errors.LockedError):
        take_lock(fs, (*home, "d", "f"))
    with pytest.raises(errors.LockedError):
        take_lock(fs, (*home, "d"), is_infinite=True)
    take_lock(fs, (*home, "d"), is_infinite=False)
    put(fs, (*home, "d", "f"), b"y", condition=holding(token))
    with pytest.raises(errors.LockedError):
        put(fs, (*home, "d", "f"), b"y")
    put(fs, (*home, "d", "f"), b"y", condition=holding(other))


def test_a_lock_of_a_free_name_makes_an_empty_file(fs: FileSystem, home: Path) -> None:
    token = uuid.uuid4().urn
    _, entry, is_new = fs.lock(
        (*home, "new"), token=token, scope=LockScope.EXCLUSIVE, is_infinite=False, owner=b"", timeout_s=60
    )
    assert (is_new, entry.size_bytes) == (True, 0)
    assert get(fs, (*home, "new")) == b""
    deep = take_lock(fs, home, is_infinite=False)
    with pytest.raises(errors.LockedError):
        take_lock(fs, (*home, "refused"))
    assert names(fs, home) == {"new"}
    fs.unlock(home, token=deep, principal="")


def test_refreshing_and_unlocking(fs: FileSystem, home: Path) -> None:
    fs.make_directory((*home, "d"))
    put(fs, (*home, "d", "f"))
    put(fs, (*home, "other"))
    token = take_lock(fs, (*home, "d"), "ann", is_infinite=True, timeout_s=60)
    refreshed = fs.refresh_lock((*home, "d", "f"), token=token, timeout_s=900, principal="ann")
    assert (refreshed.timeout_s, refreshed.token) == (900, token)
    for call in (
        lambda: fs.refresh_lock((*home, "other"), token=token, timeout_s=60, principal="ann"),
        lambda: fs.unlock((*home, "other"), token=token, principal="ann"),
        lambda: fs.unlock((*home, "d"), token="urn:uuid:none", principal="ann"),
    ):
        with pytest.raises(errors.LockNotFoundError):
            call()
    with pytest.raises(errors.PermissionDeniedError):
        fs.unlock((*home, "d"), token=token, principal="bob")
    fs.unlock((*home, "d", "f"), token=token, principal="ann")
    assert fs.lookup((*home, "d"), with_locks=True).locks == ()


def test_locks_end(fs: FileSystem, home: Path) -> None:
    put(fs, (*home, "f"))
    take_lock(fs, (*home, "f"), timeout_s=1)
    _wait_until(lambda: fs.lookup((*home, "f"), with_locks=True).locks == ())
    put(fs, (*home, "f"), b"y")


def _wait_until(holds: Any) -> None:
    deadline = time.monotonic() + 10
    pause = threading.Event()
    while not holds():
        assert time.monotonic() < deadline, "nothing happened in time"
        pause.wait(0.05)
