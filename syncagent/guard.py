"""Stands between a plan and its deletions: more of them than usual wait for a person's word.

Used by `engine`. What is much is decided in `safety`; this remembers, in the journal, what has gone without asking in
the last minutes, and what a person has allowed. One thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from helenite.core.clock import Clock
from syncagent.journal import Journal
from syncagent.model import Tree
from syncagent.plan import Delete, Plan, Step
from syncagent.safety import Deleted, Limits, Stop, check_deletions, count_deletions, within_window

DELETIONS = "deletions"
"""The fact in the journal: [milliseconds, side, count] each."""
TOGETHER_MS = 10_000
"""Deletions so close to one another are noted as one."""


class DeletionGuard:
    """Of one pair of folders."""

    def __init__(self, journal: Journal, clock: Clock, limits: Limits) -> None:
        self._journal = journal
        self._clock = clock
        self._limits = limits
        self._allowed = 0
        self._counts: dict[Delete, int] = {}

    def check(self, plan: Plan) -> Stop | None:
        """Why the plan must wait for a person; None when it need not."""
        self._counts = count_deletions(self._journal, plan)
        if plan.is_empty:
            self._allowed = 0  # what was allowed is done, or is not wanted any more
        if not self._counts:
            return None
        stop = check_deletions(self._counts, self._journal.count_agreed(), self._limits, self._earlier())
        return None if stop is not None and stop.count <= self._allowed else stop

    def take_note(self, done: Iterable[Step]) -> None:
        """Remember the deletions among the steps that were carried out, but for those that a person has allowed."""
        deleted = [step for step in done if isinstance(step, Delete)]
        if deleted and self._allowed:
            self._allowed = 0
        elif deleted:
            log = list(self._earlier())
            for side in {step.side for step in deleted}:
                _add(
                    log,
                    Deleted(self._clock.now_ms(), side, sum(self._counts.get(s, 1) for s in deleted if s.side is side)),
                )
            self._note(log)

    def allow(self) -> None:
        """The deletions of the last plan are wanted; as many may happen."""
        self._allowed = sum(self._counts.values())
        self._note(())

    def forgive(self) -> None:
        """A person has seen what has gone: count anew."""
        self._note(())

    def _earlier(self) -> tuple[Deleted, ...]:
        log = [Deleted(at_ms, Tree(side), count) for at_ms, side, count in self._journal.fact(DELETIONS) or ()]
        return within_window(log, self._clock.now_ms())

    def _note(self, log: Sequence[Deleted]) -> None:
        self._journal.note(DELETIONS, [(deleted.at_ms, deleted.side, deleted.count) for deleted in log])


def _add(log: list[Deleted], fresh: Deleted) -> None:
    for index, old in enumerate(log):
        if old.side is fresh.side and 0 <= fresh.at_ms - old.at_ms < TOGETHER_MS:
            log[index] = Deleted(old.at_ms, old.side, old.count + fresh.count)
            return
    log.append(fresh)
