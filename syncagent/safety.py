"""Decides when to stop and ask a person, because what looks like a deletion may be a disaster.

Used by `engine` before it believes a side, and by `guard` before a plan is carried out. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from syncagent.model import NodeId, Tree, View
from syncagent.plan import Delete, Plan
from syncagent.ports import ServerIdentity

WINDOW_MS = 10 * 60 * 1000
"""Deletions within so long a time count together: a slow `rm -r`, or a program that clears away file by file."""


class Danger(StrEnum):
    """Why a sync stops until a person has decided."""

    FOLDER_REPLACED = "folder replaced"
    SERVER_REPLACED = "server replaced"
    SERVER_RESTORED = "server restored"
    MANY_DELETIONS = "many deletions"


@dataclass(frozen=True, slots=True)
class Stop:
    """What to tell the person. `side`: where entries would be deleted."""

    danger: Danger
    sentence: str
    side: Tree | None = None
    count: int = 0


SERVER_RESTORED = Stop(
    Danger.SERVER_RESTORED, "The server was restored from an older copy; newer files may be missing there."
)


@dataclass(frozen=True, slots=True)
class Limits:
    """More deletions than both of these within WINDOW_MS are asked about. Renames are none."""

    count: int = 50
    share: float = 0.25


def check_folder(expected: str, found: str | None) -> Stop | None:
    """Whether the local folder is the one that was synced. Without its marker it may be an empty mount point."""
    if found == expected:
        return None
    what = "has no marker of this sync" if found is None else "belongs to another sync"
    return Stop(Danger.FOLDER_REPLACED, f"The local folder {what}: it was replaced, or its disk is not mounted.")


def check_server(expected: ServerIdentity | None, found: ServerIdentity) -> Stop | None:
    """Whether the server is the one that was synced with, and has not gone back in time."""
    if expected is None:
        return None
    if (expected.instance, expected.root) != (found.instance, found.root):
        return Stop(Danger.SERVER_REPLACED, "The server, or the folder on it, is not the one that was synced before.")
    return SERVER_RESTORED if expected.fingerprint != found.fingerprint else None


@dataclass(frozen=True, slots=True)
class Deleted:
    """Deletions that were carried out on one side without asking."""

    at_ms: int
    side: Tree
    count: int


def count_deletions(view: View, plan: Plan) -> dict[Delete, int]:
    """The deletions of a plan, each with how many entries it takes: a directory goes with all that is in it."""
    deletions = [step for step in plan.steps if isinstance(step, Delete)]
    return {step: _count_beneath(view, step.side, step.node) for step in deletions}


def check_deletions(
    counts: Mapping[Delete, int], agreed_count: int, limits: Limits, earlier: Iterable[Deleted] = ()
) -> Stop | None:
    """Whether so much would be deleted on one side that a person should see it first.

    Args:
        counts: what is about to be carried out, as `count_deletions` gives it.
        agreed_count: how many nodes both sides have agreed on.
        limits: how much goes without asking.
        earlier: what has gone without asking a moment ago (`within_window`): many small deletions are one large one.
    """
    for side in (Tree.LOCAL, Tree.REMOTE):
        count = sum(count for step, count in counts.items() if step.side is side)
        before = sum(deleted.count for deleted in earlier if deleted.side is side)
        total = count + before
        if count and total > limits.count and total > limits.share * (agreed_count + before):
            where = "on this device" if side is Tree.LOCAL else "on the server"
            after = f", after {before} in the last {WINDOW_MS // 60_000} minutes" if before else ""
            sentence = f"{count} of {agreed_count} entries would be deleted {where}{after}."
            return Stop(Danger.MANY_DELETIONS, sentence, side, count)
    return None


def within_window(earlier: Iterable[Deleted], now_ms: int) -> tuple[Deleted, ...]:
    """Those that are not long ago; a clock that was set back makes none of them last longer."""
    return tuple(deleted for deleted in earlier if abs(now_ms - deleted.at_ms) < WINDOW_MS)


def _count_beneath(view: View, side: Tree, top: NodeId) -> int:
    count, stack = 0, [top]
    while stack:
        count += 1
        stack.extend(view.children(side, stack.pop()))
    return count
