"""Who may do what where: the one place that says so.

Used by `request` before anything is looked up, once for each path that a request touches. For now every user who may
log in sees and changes the whole tree. Pure.
"""

from __future__ import annotations

from enum import Enum, auto

from helenite.core.errors import PermissionDeniedError
from helenite.core.paths import Path, format_path


class Verb(Enum):
    """Kinds of access, not methods: COPY reads its source and writes its target."""

    READ = auto()
    WRITE = auto()


def is_allowed(principal: str, verb: Verb, path: Path) -> bool:
    """Whether `principal` (empty = anonymous, where the gateway is open) may do this."""
    del principal, verb, path
    return True


def demand(principal: str, verb: Verb, path: Path) -> None:
    """PermissionDeniedError unless it is allowed."""
    if not is_allowed(principal, verb, path):
        raise PermissionDeniedError(f"{principal or 'anonymous'} may not {verb.name.lower()} {format_path(path)}")
