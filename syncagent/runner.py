"""Keeps one pair of folders equal for as long as the agent runs: calls the engine whenever there is a reason to.

Used by `daemon`. Reasons come in through the `inbox`: hints of the watcher, the server's word that something changed
(a report that it holds back until then), transfers that are over, and time, as a fallback for all of them. Threading:
one thread runs the engine and nothing else touches it; another waits for the server; the watcher has its own. A bug
that ends one of the first two is logged and shown, and the thread begins again.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path as FilePath
from typing import Any

from helenite.core.clock import Clock
from helenite.core.errors import HeleniteError, PermissionDeniedError, UnavailableError
from helenite.core.paths import Path, format_path, parse_path
from syncagent.bell import Bell
from syncagent.engine import Engine, Report, Settings
from syncagent.fates import Customs
from syncagent.history import History, RecordedFolder, RecordedRemote
from syncagent.inbox import Inbox, Work
from syncagent.journal import Journal, open_journal
from syncagent.lanes import Lane, Pools
from syncagent.names import IGNORE_FILE, NameRules, host_label
from syncagent.observe import TOKEN
from syncagent.ports import OverloadedError
from syncagent.questions import find_conflicts
from syncagent.remote import WebDavRemote
from syncagent.selection import Selection
from syncagent.session import Account, Session, Throttles
from syncagent.settings import PairSettings
from syncagent.status import Mood, PairStatus
from syncagent.steady import SteadyWorker
from syncagent.transfers import Lanes
from syncagent.watcher import FolderWatch

log = logging.getLogger(__name__)

GATHER_S = 0.02
"""A hint waits so long for others of the same action."""
ARRIVALS_S = 0.1
"""Transfers that are over are put in place together while others are under way."""
NEWS_S = 0.15
"""Between two words of the server: of a burst of changes the first is told at once, the others together."""
EVERYWHERE_S = 3600.0
"""Whatever hints say, everything is looked at so often."""
POLL_S = 30.0
"""Between looks at a side that does not tell of changes."""
SILENT_S = 1.0
"""After a server did not wait: ours does not while its masters are away. It doubles up to POLL_S, for most never do."""
CHECK_S = 120.0
"""Between self-tests of the watcher."""
WAIT_S = 50
"""So long the server may hold back its answer; what stands between cuts connections that are silent for a minute."""
OFFLINE_S = (1.0, 60.0)
"""The wait after a failure, the first and the longest; it doubles."""
STOP_S = 5.0
"""So long the end of the process waits for a cycle; the next process finds out what it has done."""
TROUBLES_MAX = 100
CONFLICTS_MAX = 100
"""Told in a status."""
BUG = "an error of the agent, see its log"
LOOKING = "looking for changes"


@dataclass(frozen=True, slots=True)
class Tools:
    """What all pairs of the agent share."""

    clock: Clock
    throttles: Throttles
    pools: Pools
    rules: NameRules
    bell: Bell


class PairRunner:
    """One pair of folders, being kept equal."""

    def __init__(self, pair: PairSettings, password: str, directory: FilePath, tools: Tools) -> None:
        self._pair = pair
        self._account = Account(pair.url, pair.user, password)
        self._directory = directory
        self._tools = tools
        self._clock = tools.clock
        self._inbox = Inbox(tools.clock)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.history = History(directory / "history.jsonl", tools.clock)
        self._watch = FolderWatch(pair.folder, self._hear, lambda: self._inbox.poke(everywhere=True))
        self._status = PairStatus(pair.id, pair.folder, pair.url)
        self._is_paused = pair.is_paused
        self._engine: Engine | None = None
        self._engine_key: tuple[str, str, tuple[str, ...]] = ("", "", ())
        self._journal: Journal | None = None
        self._peak = 0  # entries that were left when the present work began
        self._token = ""
        self._failures = 0
        self._wake_at: float | None = None
        self._everywhere_at = 0.0
        self._check_at = 0.0
        self._ask_at = 0.0
        self._asked = threading.Event()  # the server's word is of use again
        self._folder = RecordedFolder(FilePath(pair.folder), self._clock, self.history)
        self._remote = RecordedRemote(self._connect(), self.history, directory)
        self._syncing = SteadyWorker(f"sync-{pair.id}", self._run, self._crash, self._clock)
        self._listening = SteadyWorker(f"listen-{pair.id}", self._listen, self._crash, self._clock)

    @property
    def status(self) -> PairStatus:
        """How it is now; any thread may ask."""
        return replace(self._status, is_settled=self._status.is_settled and self._inbox.is_empty)

    def start(self) -> None:
        self._syncing.start()
        self._listening.start()

    def stop(self) -> None:
        """Begin nothing more. What is under way is found out about by the next process."""
        self._listening.stop(0)  # it may be waiting for the server, and ends by itself
        self._syncing.stop(0)
        self._inbox.poke()
        self._syncing.stop(STOP_S)
        self._inbox.close()
        self._watch.stop()
        self._remote.close()

    def adjust(self, pair: PairSettings) -> None:
        """Go on with other settings; folder and address are the same."""
        self._pair = pair
        self._is_paused = pair.is_paused
        self._inbox.poke(everywhere=not pair.is_paused)

    def call(self, function: Callable[[Engine], Any]) -> Any:
        """Ask or tell the engine something, on its own thread; a cycle follows."""
        return self._inbox.call(lambda: function(self._prepare()))

    def sync_now(self) -> None:
        """Look at everything."""
        self._inbox.poke(everywhere=True)

    # The engine's thread

    def _run(self, stopping: threading.Event) -> None:
        self._watch.start()
        self._inbox.poke(everywhere=True)
        try:
            while not stopping.is_set():
                self._attend(self._inbox.take(None if self._is_paused else self._wake_at), stopping)
        finally:
            if self._engine is not None:
                engine, self._engine, self._journal = self._engine, None, None
                engine.close()

    def _attend(self, work: Work, stopping: threading.Event) -> None:
        for function, future in work.calls:
            try:
                future.set_result(function())
            except HeleniteError as error:
                future.set_exception(error)
            finally:
                if not future.done():
                    future.set_exception(UnavailableError(BUG))
        if stopping.is_set():
            return
        if self._is_paused:
            self._tell(Mood.PAUSED, "paused")
        elif work.is_due or work.calls:
            self._work(work)

    def _work(self, work: Work) -> None:
        """One cycle, and what it means for the next."""
        began = self._clock.monotonic_s()
        if began >= self._check_at:
            self._check_watch()
        is_everywhere = work.is_everywhere or began >= self._everywhere_at
        has_reason = is_everywhere or work.has_news or self._failures > 0
        asks = has_reason or not self._token or began >= self._ask_at
        if work.dirty or is_everywhere:
            self._tell(Mood.SYNCING, LOOKING, is_settled=False)
        try:
            report = self._prepare().cycle(work.dirty, everywhere=is_everywhere, asks=asks)
        except HeleniteError as error:
            self._fail(error)
            return
        self._failures = 0
        now = self._clock.monotonic_s()
        if is_everywhere:
            self._everywhere_at = now + (POLL_S if self._watch.trouble else EVERYWHERE_S)
        assert self._journal is not None
        self._token = self._journal.fact(TOKEN) or ""
        times = [self._everywhere_at, self._check_at, *([report.wake_at] if report.wake_at else [])]
        self._wake_at = min(times) if self._token else min(*times, now + POLL_S)
        self._conclude(report)
        if asks:
            self._ask_at = now + POLL_S
            self._asked.set()

    def _prepare(self) -> Engine:
        """The engine, working by the present rules and day: both are in its settings."""
        day = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC).astimezone().date().isoformat()
        key = (self._ignore_file(), day, self._pair.excluded)
        if self._engine is not None and key == self._engine_key:
            return self._engine
        selection = Selection(key[0], [parse_path(f"/{path}") for path in self._pair.excluded])
        customs = Customs(self._pair.id, f"{day} {host_label(socket.gethostname())}", self._tools.rules)
        self._engine_key = key
        if self._engine is None:
            self._engine = self._make_engine(Settings(customs, selection))
        else:
            self._engine.adjust(Settings(customs, selection))
        return self._engine

    def _make_engine(self, settings: Settings) -> Engine:
        damaged = f"journal-damaged-{self._clock.now_ms()}"
        self._journal = open_journal(self._directory / "journal", damaged)
        pools = self._tools.pools
        lanes = Lanes(Lane(pools.small, self._arrive), Lane(pools.large, self._arrive))
        return Engine(self._folder, self._remote, self._journal, self._clock, settings, lanes)

    def _ignore_file(self) -> str:
        try:
            return (FilePath(self._pair.folder) / IGNORE_FILE).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        except OSError as error:
            log.warning("%s cannot be read: %s", IGNORE_FILE, error)
            return self._engine_key[0]

    def _check_watch(self) -> None:
        """The watcher's self-test; when it fails, try once more with a new one, and look everywhere."""
        self._check_at = self._clock.monotonic_s() + CHECK_S
        if self._status.cycles == 0 or self._watch.check():
            return
        log.warning("%s: %s", self._pair.folder, self._watch.trouble)
        self._watch.start()
        self._everywhere_at = 0.0

    def _connect(self) -> Session:
        return Session(self._account, self._clock, self._tools.throttles)

    # Telling

    def _crash(self, pause_s: float) -> None:
        """A bug ended one of the threads; the log says which."""
        self._status = replace(self._status, crashes=self._status.crashes + 1)
        self._tell(Mood.ATTENTION, f"{BUG}; it is tried again in {pause_s:.0f} s", problem=BUG)

    def _fail(self, error: HeleniteError) -> None:
        """A side cannot be looked at: wait, longer each time."""
        first, longest = OFFLINE_S
        wait_s = min(first * 2.0 ** min(self._failures, 10), longest)
        wait_s = max(wait_s, error.wait_s) if isinstance(error, OverloadedError) else wait_s
        self._failures += 1
        self._wake_at = self._clock.monotonic_s() + wait_s
        if isinstance(error, UnavailableError):
            self._tell(Mood.OFFLINE, str(error), is_settled=False)
        else:
            is_refused = isinstance(error, PermissionDeniedError)
            log.warning("%s: %s%s", self._pair.folder, "refused: " if is_refused else "", error)
            self._tell(Mood.ATTENTION, str(error), problem=str(error), is_settled=False)

    def _conclude(self, report: Report) -> None:
        troubles = [_readable(f"{format_path(trouble.path)}: {trouble.reason}") for trouble in report.troubles]
        for trouble in troubles:
            if trouble not in self._status.troubles:
                log.info("%s: %s", self._pair.folder, trouble)
        self._count(report)
        kept = tuple(troubles[:TROUBLES_MAX])
        if report.stop is not None:
            stop = report.stop
            decisions = ("start-over",) if stop.side is None else ("allow", "undo")
            self._tell(Mood.ATTENTION, stop.sentence, problem=stop.sentence, troubles=kept, decisions=decisions)
        elif report.is_quiet:
            self._tell(Mood.IDLE, "up to date", troubles=kept, is_settled=True)
        else:
            self._tell(Mood.SYNCING, "syncing", troubles=kept)

    def _count(self, report: Report) -> None:
        """What is done and left, and which conflict copies there are."""
        assert self._journal is not None
        left = 0 if report.is_quiet else self._journal.count_unsettled()
        self._peak = max(self._peak, left) if left else 0
        conflicts = tuple(find_conflicts(self._journal)[:CONFLICTS_MAX])
        self._status = replace(self._status, left=left, done=self._peak - left, conflicts=conflicts)

    def _tell(
        self,
        mood: Mood,
        sentence: str,
        *,
        problem: str = "",
        decisions: tuple[str, ...] = (),
        troubles: tuple[str, ...] = (),
        is_settled: bool = False,
    ) -> None:
        cycles = self._status.cycles + (sentence != LOOKING)
        self._status = replace(
            self._status,
            mood=mood,
            sentence=sentence,
            problem=problem,
            decisions=decisions,
            troubles=troubles,
            is_settled=is_settled,
            cycles=cycles,
            watch_trouble=self._watch.trouble,
        )
        self._tools.bell.ring()

    # Reasons for a cycle

    def _hear(self, directory: Path) -> None:
        self._inbox.hint(directory, GATHER_S)

    def _arrive(self, left: int) -> None:
        self._inbox.poke(ARRIVALS_S if left else 0.0)

    def _listen(self, stopping: threading.Event) -> None:
        """Wait for the server's word, again and again."""
        remote = WebDavRemote(self._connect())
        told_at, pause_s = -NEWS_S, SILENT_S
        while not stopping.is_set():
            self._asked.wait(POLL_S)
            stopping.wait(told_at + NEWS_S - self._clock.monotonic_s())
            token = self._token
            self._asked.clear()
            if self._is_paused or not token or stopping.is_set():
                continue
            try:
                has_news = remote.wait(token, WAIT_S)
            except HeleniteError as error:
                log.info("%s: waiting for the server: %s", self._pair.folder, error)
                stopping.wait(OFFLINE_S[0])
                has_news = True  # the engine finds out what is wrong
            if has_news is None:
                stopping.wait(pause_s)
                pause_s = min(2 * pause_s, POLL_S)
            else:
                pause_s = SILENT_S
            if has_news is False:
                self._asked.set()
            else:
                told_at = self._clock.monotonic_s()
                self._inbox.poke(has_news=True)
        remote.close()


def _readable(text: str) -> str:
    """As it can be printed: names need not be valid UTF-8."""
    return text.encode(errors="backslashreplace").decode()
