"""Decides what a person is told unasked: what needs them, once, and nothing else.

Used by `driver`. A stop or another problem is told when it begins, a conflict copy when it appears; progress, pauses
and a server that cannot be reached are not told. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from syncagent.status import AgentStatus

LINES_MAX = 4


@dataclass(frozen=True, slots=True)
class Note:
    """A notification of the desktop."""

    title: str
    text: str


def find_news(before: AgentStatus | None, now: AgentStatus) -> Note | None:
    """What to tell after the status changed; `before` is None at the start, when old conflicts are no news."""
    old = {} if before is None else {pair.id: pair for pair in before.pairs}
    problems, conflicts = [], []
    for pair in now.pairs:
        known = old.get(pair.id)
        if pair.problem and (known is None or known.problem != pair.problem):
            problems.append(f"{pair.folder}: {pair.problem}")
        if known is not None and known.cycles:
            conflicts += [f"{pair.folder}{path}" for path in pair.conflicts if path not in known.conflicts]
    if problems:
        return Note("Helenite needs you", _few([*problems, *conflicts]))
    if conflicts:
        return Note("Both sides changed a file; both are kept", _few(conflicts))
    return None


def _few(lines: list[str]) -> str:
    more = len(lines) - LINES_MAX
    return "\n".join([*lines[:LINES_MAX], *([f"and {more} more"] if more > 0 else [])])
