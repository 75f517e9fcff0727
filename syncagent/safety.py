"""Decides when to stop and ask a person, because what looks like a deletion may be a disaster.

Used by `engine` before it believes a side and before it carries out a plan. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from syncagent.model import NodeId, Tree, View
from syncagent.plan import Delete, Plan
from syncagent.ports import ServerIdentity


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


@dataclass(frozen=True, slots=True)
class Limits:
    """More deletions than both of these at once are asked about. Renames are none."""

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
    if expected.fingerprint != found.fingerprint:
        return Stop(
            Danger.SERVER_RESTORED, "The server was restored from an older copy; newer files may be missing there."
        )
    return None


def check_deletions(view: View, plan: Plan, agreed_count: int, limits: Limits) -> Stop | None:
    """Whether a plan deletes so much on one side that a person should see it first.

    Args:
        view: to count what is in the directories that are deleted.
        plan: what is about to be carried out.
        agreed_count: how many nodes both sides had agreed on.
        limits: how much goes without asking.
    """
    for side in (Tree.LOCAL, Tree.REMOTE):
        tops = [step.node for step in plan.steps if isinstance(step, Delete) and step.side is side]
        count = _count_beneath(view, side, tops)
        if count > limits.count and count > limits.share * agreed_count:
            where = "on this device" if side is Tree.LOCAL else "on the server"
            sentence = f"{count} of {agreed_count} entries would be deleted {where}."
            return Stop(Danger.MANY_DELETIONS, sentence, side, count)
    return None


def _count_beneath(view: View, side: Tree, tops: Iterable[NodeId]) -> int:
    count, stack = 0, list(tops)
    while stack:
        count += 1
        stack.extend(view.children(side, stack.pop()))
    return count
