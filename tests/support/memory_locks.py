"""Locks of the FileSystem in memory (RFC 4918 sections 6 and 7). Used by `memory_filesystem` under its lock."""

from __future__ import annotations

from dataclasses import replace

from helenite.core import errors
from helenite.core.clock import Clock
from helenite.core.model import Condition, Lock, LockScope
from helenite.core.paths import Path, format_path, is_within, parse_path


class LockTable:
    """All locks that have not expired."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._locks: dict[str, Lock] = {}

    def add(self, lock: Lock) -> None:
        self._locks[lock.token] = lock

    def expiry_ms(self, timeout_s: int) -> int:
        """When a lock that is taken or refreshed now expires."""
        return self._clock.now_ms() + 1000 * timeout_s

    def refresh(self, path: Path, token: str, timeout_s: int, principal: str) -> Lock:
        made = replace(self._own(path, token, principal), timeout_s=timeout_s, expires_at_ms=self.expiry_ms(timeout_s))
        self.add(made)
        return made

    def remove(self, path: Path, token: str, principal: str) -> None:
        lock = self._own(path, token, principal)
        del self._locks[lock.token]

    def drop(self, path: Path) -> None:
        """Those at a place that is gone, and beneath it."""
        self._locks = {t: lock for t, lock in self._locks.items() if not is_within(parse_path(lock.path), path)}

    def covering(self, path: Path) -> list[Lock]:
        return [lock for lock in self._living() if _covers(lock, path)]

    def check(
        self, path: Path, condition: Condition, *, is_new: bool, is_tree: bool = False, is_member: bool = False
    ) -> None:
        """LockedError unless each place that the change touches is free or one of its locks was submitted.

        A new or vanishing member also needs the lock of its parent (RFC 4918 section 7.4).
        """
        places = [self.covering(path)]
        if (is_new or is_member) and path:
            places.append(self.covering(path[:-1]))
        if is_tree:
            below = [lock for lock in self._living() if is_within(parse_path(lock.path), path)]
            places.extend([lock] for lock in below if lock.scope is LockScope.EXCLUSIVE)
            shared = {lock.path for lock in below if lock.scope is LockScope.SHARED}
            places.extend([lock for lock in below if lock.path == root] for root in shared)
        for locks in places:
            held = [k for k in locks if k.token in condition.tokens and k.principal == condition.principal]
            if locks and not held:
                raise errors.LockedError(f"{locks[0].path} is locked")

    def check_conflicts(self, path: Path, scope: LockScope, *, is_infinite: bool) -> None:
        """LockedError when a new lock could not stand beside those that there are."""
        for lock in self._living():
            touches = _covers(lock, path) or (is_infinite and is_within(parse_path(lock.path), path))
            if touches and LockScope.EXCLUSIVE in {scope, lock.scope}:
                raise errors.LockedError(f"{lock.path} is locked")

    def _living(self) -> list[Lock]:
        now = self._clock.now_ms()
        self._locks = {token: lock for token, lock in self._locks.items() if lock.expires_at_ms > now}
        return list(self._locks.values())

    def _own(self, path: Path, token: str, principal: str) -> Lock:
        for lock in self.covering(path):
            if lock.token == token:
                if lock.principal != principal:
                    raise errors.PermissionDeniedError("the lock belongs to somebody else")
                return lock
        raise errors.LockNotFoundError(f"no lock on {format_path(path)} has this token")


def _covers(lock: Lock, path: Path) -> bool:
    root = parse_path(lock.path)
    return root == path or (lock.is_infinite and is_within(path, root))
