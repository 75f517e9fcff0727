"""The agent's process: runs all pairs of one home, and does what the commands say.

Started by `helenite sync run` (or `python -m syncagent`). One daemon serves a home, which its lock makes sure of. It
reads the settings when it starts and when a command has changed them. Threading: commands come on the threads of
`control`; one lock guards the set of runners; the trashes are emptied on a thread of their own.
"""

from __future__ import annotations

import logging
import platform
import threading
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path as FilePath
from typing import Any

import filelock

from helenite.core.clock import Clock
from helenite.core.errors import ConfigurationError, InvalidRequestError
from helenite.core.paths import parse_path
from syncagent.bell import Bell
from syncagent.companion import Companion
from syncagent.control import Answer, ControlServer
from syncagent.credentials import load_password
from syncagent.engine import Engine
from syncagent.history import Event
from syncagent.lanes import Pools
from syncagent.names import STATE_DIRECTORY, NameRules
from syncagent.questions import explain, find_conflicts
from syncagent.runner import PairRunner, Tools
from syncagent.session import Throttles
from syncagent.settings import AgentSettings, Home, PairSettings
from syncagent.status import AgentStatus, Recent
from syncagent.steady import SteadyWorker
from syncagent.throttle import Throttle
from syncagent.trash import empty_trash

log = logging.getLogger(__name__)

HISTORY_MAX = 1_000
RECENT_MAX = 20
"""Files in a status."""
WATCH_S = 25.0
"""So long an answer to `watch` is held back while nothing changes."""
HOUSEKEEPING_S = 3600.0
SIGNAL_S = 0.5
"""Some systems hand over a signal only between two waits."""
AWAY_S = 10.0
"""So long this process does not run only when the machine sleeps, or as good as does (or its clock was set)."""
DECISIONS = {"allow": Engine.allow_deletions, "undo": Engine.undo_deletions, "start-over": Engine.start_over}
"""What a person can say to a stop."""


class Daemon:
    """All pairs of one home."""

    def __init__(self, home: Home, clock: Clock, no_tray: str = "") -> None:
        """`no_tray`: why there shall be no icon; empty: there shall be one, where there is a desktop."""
        self._home = home
        self._clock = clock
        throttles = Throttles(Throttle(clock), Throttle(clock))
        self._tools = Tools(clock, throttles, Pools(), name_rules(), Bell())
        self._lock = threading.Lock()  # guards the two below
        self._runners: dict[str, PairRunner] = {}
        self._settings = AgentSettings()
        self._stopping = threading.Event()
        self._no_tray = no_tray
        self._companion = None if no_tray else Companion(home, clock, self._tools.bell)

    def run(self, stopping: threading.Event) -> None:
        """Until it is told to stop; ConfigurationError when another process runs this home."""
        self._stopping = stopping
        self._home.make()
        lock = self._home.running_lock
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise ConfigurationError(f"an agent is already running for {self._home.path}") from error
        with lock:
            self._reload()
            control = ControlServer(self._home, self._answer)
            control.start()
            housekeeping = SteadyWorker("housekeeping", self._keep_house, lambda _: None, self._clock)
            housekeeping.start()
            if self._companion is not None:
                self._companion.start()
            log.info("the agent runs, with %d folders", len(self._runners))
            self._mind(stopping)
            control.stop()
            self._tools.bell.end()
            housekeeping.stop(0)
            self._stop()

    def _mind(self, stopping: threading.Event) -> None:
        """Wait for the end. When the machine has slept meanwhile, nobody may have told what changed."""
        seen_ms = self._clock.now_ms()
        while not stopping.wait(SIGNAL_S):
            before_ms, seen_ms = seen_ms, self._clock.now_ms()
            if seen_ms - before_ms > AWAY_S * 1000:
                log.info("back after %d s: looking everywhere", (seen_ms - before_ms) // 1000)
                with self._lock:
                    runners = list(self._runners.values())
                for runner in runners:
                    runner.sync_now()

    def _stop(self) -> None:
        for throttle in (self._tools.throttles.up, self._tools.throttles.down):
            throttle.stop()
        self._tools.pools.stop()
        with self._lock:
            runners = list(self._runners.values())
        for runner in runners:
            runner.stop()
        if self._companion is not None:
            self._companion.stop()

    def _keep_house(self, stopping: threading.Event) -> None:
        """What is to be done once an hour."""
        while not stopping.wait(HOUSEKEEPING_S):
            with self._lock:
                settings = self._settings
            for pair in settings.pairs:
                trash = FilePath(pair.folder, STATE_DIRECTORY, "trash")
                gone = empty_trash(trash, self._clock.now_ms(), settings.trash_days, settings.trash_bytes)
                if gone:
                    log.info("%s: %d things left the trash", pair.folder, len(gone))

    def _reload(self) -> None:
        """Make the runners what the settings say."""
        settings = self._home.load()
        with self._lock:
            wanted = {pair.id: pair for pair in settings.pairs}
            known = {pair.id: pair for pair in self._settings.pairs}
            gone = [pair for pair in self._runners if not _is_same(known[pair], wanted.get(pair))]
            stopped = [self._runners.pop(pair) for pair in gone]
            fresh = [pair for pair in settings.pairs if pair.id not in self._runners]
            self._settings = settings
        for runner in stopped:
            runner.stop()
        self._tools.throttles.up.limit(settings.up_bytes_per_s)
        self._tools.throttles.down.limit(settings.down_bytes_per_s)
        for pair in fresh:
            self._start(pair)
        for pair in settings.pairs:
            if known.get(pair.id, pair) != pair:
                self._runner(pair.id).adjust(pair)

    def _start(self, pair: PairSettings) -> None:
        password = load_password(self._home, pair.id) if pair.user else ""
        runner = PairRunner(pair, password, self._home.pair_dir(pair.id), self._tools)
        with self._lock:
            self._runners[pair.id] = runner
        runner.start()

    def _runner(self, which: str) -> PairRunner:
        with self._lock:
            return self._runners[self._settings.choose(which).id]

    # Commands

    def _answer(self, command: str, values: dict[str, Any]) -> Answer:
        which = str(values.get("pair", ""))
        match command:
            case "status":
                return self._describe()
            case "watch":
                seen = self._tools.bell.wait(int(values["seen"]), WATCH_S)
                return self._describe() | {"seen": seen}
            case "reload":
                self._reload()
            case "quit":
                self._stopping.set()
            case "sync":
                self._runner(which).sync_now()
            case "history":
                count = min(int(values["count"]), HISTORY_MAX)
                return {"events": [asdict(event) for event in self._runner(which).history.last(count)]}
            case _:
                return self._ask(which, command, values)
        return {}

    def _describe(self) -> Answer:
        """An AgentStatus."""
        with self._lock:
            runners = list(self._runners.values())
        events = [(event, runner.status.folder) for runner in runners for event in runner.history.recent]
        tray = f"not shown: {self._no_tray}" if self._companion is None else self._companion.state
        return asdict(AgentStatus(tuple(runner.status for runner in runners), _recent_files(events), tray))

    def _ask(self, which: str, command: str, values: dict[str, Any]) -> Answer:
        """What only the engine's thread can answer."""
        runner = self._runner(which)
        match command:
            case "conflicts":
                return {"conflicts": runner.call(lambda engine: find_conflicts(engine.journal))}
            case "explain":
                path = parse_path(str(values["path"]))
                found: Answer = runner.call(lambda engine: explain(engine, path))
                return found
            case "decide":
                decision = str(values["decision"])
                runner.call(lambda engine: _decide(runner, engine, decision))
                return {}
            case _:
                raise InvalidRequestError(f"the agent knows no command {command!r}")


def _decide(runner: PairRunner, engine: Engine, decision: str) -> None:
    """Carry out what a person says to a stop; on the engine's thread, where no cycle is under way."""
    offered = runner.status.decisions
    if decision not in offered:
        asked = f"the answers to it are: {', '.join(offered)}" if offered else "the agent has asked nothing"
        raise InvalidRequestError(f"{decision} is no answer; {asked}")
    DECISIONS[decision](engine)


def _recent_files(events: Iterable[tuple[Event, str]]) -> tuple[Recent, ...]:
    """The files that were brought over last, each once, newest first."""
    found: dict[tuple[str, str], Recent] = {}
    for event, folder in sorted(events, key=lambda pair: pair[0].at_ms, reverse=True):
        if event.verb in {"sent", "received"}:
            found.setdefault((folder, event.path), Recent(event.at_ms, folder, event.path))
    return tuple(found.values())[:RECENT_MAX]


def _is_same(old: PairSettings, new: PairSettings | None) -> bool:
    """Whether a pair goes on, but perhaps paused or with other folders left out."""
    return new is not None and (old.url, old.folder, old.user) == (new.url, new.folder, new.user)


def name_rules() -> NameRules:
    """What this system's file systems make of names, as they come out of the box."""
    match platform.system():
        case "Windows":
            return NameRules(ignores_case=True, windows=True)
        case "Darwin":
            return NameRules(ignores_case=True, ignores_normalization=True)
        case _:
            return NameRules()
