"""One pair of folders, kept equal: look at both sides, plan, check, carry out, until there is nothing left to do.

The daemon owns an Engine for each pair and calls `cycle` when something calls for it: a watcher's hint, a push of the
server, the time that the last report names. The engine has no threads and no timers of its own (transfers may be given
some), and is used by one thread.

A cycle that cannot trust a side (folder or server replaced, unreachable, a look that breaks off) changes nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace

from helenite.core.clock import Clock
from helenite.core.errors import (
    EntryExistsError,
    EntryNotFoundError,
    HeleniteError,
    HistoryLostError,
    ParentNotFoundError,
    PreconditionFailedError,
    SequenceExpiredError,
    UnavailableError,
    WrongKindError,
)
from helenite.core.paths import Path
from syncagent import records
from syncagent.executor import Outcome, StepExecutor
from syncagent.fates import Customs
from syncagent.guard import DeletionGuard
from syncagent.journal import Journal
from syncagent.leaving import SELECTION, Leaving
from syncagent.model import NodeId, Tree, Trouble, path_of
from syncagent.observe import ROOT_TAG, TOKEN, observe_changes, observe_tree
from syncagent.patience import FAILED_MAX_S, FAILED_S, UNREACHABLE_MAX_S, Patience
from syncagent.plan import Delete, Pair, Plan, Problem, Step, Write
from syncagent.ports import Folder, OverloadedError, Remote, ServerIdentity
from syncagent.recognition import Recognised, recognise
from syncagent.reconcile import reconcile
from syncagent.safety import SERVER_RESTORED, Limits, Stop, check_folder, check_server
from syncagent.scan import lasting_troubles, scan
from syncagent.selection import Selection
from syncagent.transfers import Lanes, Transfers

NEW_MAX = 5_000
"""New nodes that are planned at a time: bounds the memory of a first sync."""
ROUNDS_MAX = 10_000
"""Plans in one cycle; each brings the sides closer, so this only ends a cycle in which a bug goes round in circles."""
STALE_RETRIES_MAX = 3
"""So often in one cycle the sides are looked at again because a step found something else than was planned for."""
LATE_S = 120.0
"""So long after nobody could tell what came of a request, it may still come to something: a server goes on with what it
has begun, and waits for one of its processes that is being started again."""

STALE = (PreconditionFailedError, EntryExistsError, EntryNotFoundError, ParentNotFoundError, WrongKindError)
"""Failures that mean: look again, something was changed a moment ago."""

SERVER = "server"
PAIR = "pair"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a person or the daemon chose for one pair."""

    customs: Customs
    selection: Selection
    limits: Limits = field(default_factory=Limits)


@dataclass(slots=True)
class Report:
    """What a cycle did, and what it could not do."""

    steps: list[Write] = field(default_factory=list)
    failed: list[tuple[Step, HeleniteError]] = field(default_factory=list)
    problems: tuple[Problem, ...] = ()
    troubles: list[Trouble] = field(default_factory=list)
    stop: Stop | None = None
    wake_at: float | None = None
    """Monotonic time at which something that is held can go on; None: nothing is."""
    is_quiet: bool = False
    """Both sides agree, but for problems and troubles."""


class Engine:
    """Keeps one local folder and one folder of the server equal."""

    def __init__(
        self, folder: Folder, remote: Remote, journal: Journal, clock: Clock, settings: Settings, lanes: Lanes
    ) -> None:
        self._folder = folder
        self._remote = remote
        self._journal = journal
        self._clock = clock
        self._settings = settings
        self._patience = Patience()
        self._transfers = Transfers(folder, remote, journal, lanes)
        self._executor = StepExecutor(folder, remote, journal, settings.selection, self._transfers)
        self._dirty: set[Path] = set()
        self._local_troubles: list[Trouble] = []
        self._server_troubles: list[Trouble] = []
        self._must_look_everywhere = True
        self._must_ask = False
        self._has_recovered = False
        self._is_unsure = False  # what became of a request has to be asked, before it is made again
        self._certain_at = 0.0  # monotonic; what became of all requests is known from then on
        self._guard = DeletionGuard(journal, clock, settings.limits)
        self._leaving = Leaving(folder, journal)
        self._last_plan = Plan()

    @property
    def journal(self) -> Journal:
        return self._journal

    @property
    def last_plan(self) -> Plan:
        """What was planned last, for `explain` and for those who ask before a deletion."""
        return self._last_plan

    def cycle(self, dirty: Iterable[Path] = (), *, everywhere: bool = False, asks: bool = True) -> Report:
        """Bring both sides together as far as possible.

        Args:
            dirty: local directories in which something may have changed.
            everywhere: look at the whole local folder, and ask the server who it is.
            asks: ask the server what has changed. Without, what is known of it may be old; steps are conditional, and
                one that finds something else makes the cycle ask after all.

        Raises:
            UnavailableError, ProtocolError, PermissionDeniedError: a side cannot be looked at; nothing was changed, and
                the next cycle looks everywhere.
        """
        self._dirty.update(dirty)
        report = Report()
        if self._look(report, everywhere=everywhere, asks=asks):
            self._work(report)
        return report

    def preview(self) -> Plan:
        """What the next cycle would begin with; nothing is changed but the journal's observations."""
        report = Report()
        return self._plan(frozenset()) if self._look(report, everywhere=True) else Plan()

    def adjust(self, settings: Settings) -> None:
        """Work by other settings from the next cycle on; another selection makes it look everywhere."""
        self._settings = settings

    def close(self) -> None:
        """Wait for the transfers under way, and close the journal."""
        self._transfers.cancel()
        self._journal.close()

    # What a person decides after a stop

    def allow_deletions(self) -> None:
        """The deletions of the last plan are wanted; as many may happen."""
        self._guard.allow()

    def undo_deletions(self) -> None:
        """The deletions of the last plan are not wanted: what is still on one side comes back on the other."""
        with self._journal.transaction():
            self._guard.forgive()
            for step in self._last_plan.steps:
                if isinstance(step, Delete):
                    records.rescue(self._journal, step.node)

    def start_over(self) -> None:
        """Take the sides as they are, a replaced folder or server included: unite them, delete nothing."""
        with self._journal.transaction():
            self._journal.forget_agreements()
            self._guard.forgive()
            for name in (SERVER, PAIR, TOKEN, ROOT_TAG):
                self._journal.note(name, None)
        self._must_look_everywhere = True

    # The parts of a cycle

    def _look(self, report: Report, *, everywhere: bool, asks: bool = True) -> bool:
        """Bring the journal up to date with both sides; False when they are not who they should be."""
        selection = self._leaving.selection(self._settings.selection)
        self._executor.select(selection)
        is_other = self._journal.fact(SELECTION) != selection.key
        everywhere = everywhere or self._must_look_everywhere or is_other
        self._must_look_everywhere = True  # until this look has come to its end
        report.stop = self._check_folder() or (self._check_server() if everywhere else None)
        if report.stop is not None:
            return False
        if not self._has_recovered:
            self._folder.recover()
            self._has_recovered = True
            if not self._folder.under_way.is_empty:  # what an earlier process asked for may still come to something
                self._certain_at = self._clock.monotonic_s() + LATE_S
        self._collect(report)  # before the server is asked, so that what it says of it makes sense
        with self._journal.transaction():
            rules = self._settings.customs.rules
            local = scan(self._folder, self._journal, selection, rules, None if everywhere else self._dirty)
            if self._folder.marker() != self._journal.fact(PAIR):
                raise UnavailableError("the folder went away while it was looked at")
        must_ask = self._must_ask or self._is_unsure
        if (asks or everywhere or must_ask) and not self._ask(report, selection, is_other=is_other):
            return False
        if is_other:
            self._journal.note(SELECTION, selection.key)
        lasting = [] if everywhere else lasting_troubles(self._folder, self._local_troubles, self._dirty)
        self._local_troubles = [*lasting, *local.troubles]
        self._dirty.clear()
        self._must_look_everywhere = False
        report.troubles = [*self._local_troubles, *self._server_troubles]
        return True

    def _ask(self, report: Report, selection: Selection, *, is_other: bool) -> bool:
        """Learn what has changed on the server; False when it is not who it should be."""
        try:
            remote = None if is_other else observe_changes(self._remote, self._journal, selection)
        except HistoryLostError:
            report.stop = SERVER_RESTORED
            return False
        except SequenceExpiredError:
            remote, is_other = None, True
        if remote is None:
            report.stop = self._check_server()
            if report.stop is not None:
                return False
            remote = observe_tree(self._remote, self._journal, selection, everything=is_other)
        self._must_ask = self._is_unsure = False
        self._transfers.looked(remote.removed)
        self._server_troubles = remote.troubles
        return True

    def _check_folder(self) -> Stop | None:
        """Whether this is the folder that was synced; on the first sync, mark it."""
        pair, found = self._journal.fact(PAIR), self._folder.marker()
        if pair is not None:
            return check_folder(pair, found)
        self._folder.mark(self._settings.customs.agent)
        self._journal.note(PAIR, self._settings.customs.agent)
        return None

    def _check_server(self) -> Stop | None:
        """Whether this is the server that was synced with."""
        known, identity = self._journal.fact(SERVER), self._remote.identity()
        stop = check_server(None if known is None else ServerIdentity(**known), identity)
        if known is None:
            self._journal.note(SERVER, asdict(identity))
        return stop

    def _work(self, report: Report) -> None:
        """Plan and carry out until nothing is left that can be done now."""
        retries = 0
        for _ in range(ROUNDS_MAX):
            plan, held = self._plan_next()
            self._last_plan = plan
            report.problems = plan.problems
            report.stop = self._guard.check(plan)
            if plan.is_empty or report.stop is not None:
                report.is_quiet = plan.is_empty and not held
                break
            outcome = self._executor.execute(plan)
            self._guard.take_note(outcome.done)
            is_stale = self._take_note(report, outcome)
            if outcome.is_full:
                break  # the next arrival calls for another cycle
            if is_stale and retries < STALE_RETRIES_MAX:
                retries += 1
                if not self._look(report, everywhere=False):
                    break
        now = self._clock.monotonic_s()
        if report.is_quiet and now >= self._certain_at:
            self._folder.under_way.forget()
        if report.is_quiet:
            report.troubles += self._leaving.clear(self._settings.selection)
        reasons = [*self._patience.reasons().items(), *((problem.node, problem.reason) for problem in report.problems)]
        report.troubles += self._locate(reasons)
        report.wake_at = now if self._must_ask else self._patience.wake_at(now)

    def _locate(self, reasons: Iterable[tuple[NodeId, str]]) -> list[Trouble]:
        """Why entries could not be brought over, by their paths."""
        troubles = []
        for node, reason in reasons:
            with contextlib.suppress(KeyError, EntryNotFoundError):  # it is gone by now
                side = Tree.REMOTE if self._journal.node(node).local is None else Tree.LOCAL
                troubles.append(Trouble(path_of(self._journal, side, node), reason))
        return troubles

    def _held(self) -> frozenset[NodeId]:
        nodes = self._journal.unsettled_nodes(NEW_MAX)
        held = self._patience.held(nodes, self._clock.monotonic_s(), self._clock.now_ms())
        return held | self._transfers.running

    def _plan(self, held: frozenset[NodeId]) -> Plan:
        customs = replace(self._settings.customs, held=held)
        on_the_way = self._transfers.running
        nodes = self._journal.unsettled(NEW_MAX, on_the_way)
        plan = reconcile(self._journal, nodes, customs)
        if plan.is_empty and len(nodes) >= NEW_MAX:
            # The first ones cannot be brought over, so the others have to be seen.
            plan = reconcile(self._journal, self._journal.unsettled(-1, on_the_way), customs)
        return plan

    def _plan_next(self) -> tuple[Plan, frozenset[NodeId]]:
        """A plan that counts nothing of our own doing for somebody else's; and who is left alone in it."""
        held = self._held()
        plan = self._plan(held)
        found = self._recognise(plan)
        if found.is_news or not found.unclear <= held:
            held = self._held() | found.unclear
            plan = self._plan(held)
        return plan, held

    def _recognise(self, plan: Plan) -> Recognised:
        """What turns out to be our own doing."""
        if self._folder.under_way.is_empty:
            return Recognised()
        running = self._transfers.running
        nodes = self._journal.unsettled(NEW_MAX, running)
        return recognise(plan, nodes, self._journal, self._folder, running)

    def _collect(self, report: Report) -> None:
        """Take over what transfers have brought since the last cycle."""
        outcome = Outcome()
        self._executor.collect(outcome)
        self._take_note(report, outcome)

    def _take_note(self, report: Report, outcome: Outcome) -> bool:
        """Report what became of steps; whether one failed because a side is not as it was."""
        report.steps += [step for step in outcome.done if isinstance(step, Write)]
        report.failed += outcome.failed
        self._dirty |= outcome.dirty
        self._must_ask |= outcome.is_doubtful
        return self._let_wait(outcome.failed)

    def _let_wait(self, failed: list[tuple[Step, HeleniteError]]) -> bool:
        """Let the nodes of failed steps wait; whether one failed because a side is not as it was."""
        for step, error in failed:
            if not isinstance(step, Pair):
                self._fail(step.node, error)
        return any(isinstance(error, STALE) for _, error in failed)

    def _fail(self, node: NodeId, error: HeleniteError) -> None:
        if not isinstance(error, STALE):
            self._is_unsure = True
            self._certain_at = self._clock.monotonic_s() + LATE_S
        self._patience.failed(
            node,
            self._clock.monotonic_s(),
            str(error),
            is_stale=isinstance(error, STALE),
            least_s=error.wait_s if isinstance(error, OverloadedError) else FAILED_S,
            longest_s=UNREACHABLE_MAX_S if isinstance(error, UnavailableError) else FAILED_MAX_S,
        )
