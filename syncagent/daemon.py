"""The agent's process: runs all pairs of one home, and does what the commands say.

Started by `helenite sync run` (or `python -m syncagent`). One daemon serves a home, which its lock makes sure of. It
reads the settings when it starts and when a command has changed them. Threading: commands come on the threads of
`control`; one lock guards the set of runners.
"""

from __future__ import annotations

import logging
import platform
import threading
from dataclasses import asdict
from typing import Any

import filelock

from helenite.core.clock import Clock
from helenite.core.errors import ConfigurationError, InvalidRequestError
from helenite.core.paths import parse_path
from syncagent.control import Answer, ControlServer
from syncagent.credentials import load_password
from syncagent.engine import Engine
from syncagent.lanes import Pools
from syncagent.names import NameRules
from syncagent.questions import explain, find_conflicts
from syncagent.runner import PairRunner, Tools
from syncagent.session import Throttles
from syncagent.settings import AgentSettings, Home, PairSettings
from syncagent.throttle import Throttle

log = logging.getLogger(__name__)

HISTORY_MAX = 1_000
DECISIONS = {"allow": Engine.allow_deletions, "undo": Engine.undo_deletions, "start-over": Engine.start_over}
"""What a person can say to a stop."""


class Daemon:
    """All pairs of one home."""

    def __init__(self, home: Home, clock: Clock) -> None:
        self._home = home
        self._clock = clock
        self._tools = Tools(clock, Throttles(Throttle(clock), Throttle(clock)), Pools(), name_rules())
        self._lock = threading.Lock()  # guards the two below
        self._runners: dict[str, PairRunner] = {}
        self._settings = AgentSettings()
        self._quitting = threading.Event()

    def run(self, stopping: threading.Event) -> None:
        """Until it is told to stop; ConfigurationError when another process runs this home."""
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
            log.info("the agent runs, with %d folders", len(self._runners))
            while not stopping.wait(0.2) and not self._quitting.is_set():
                pass
            control.stop()
            self._stop()

    def _stop(self) -> None:
        for throttle in (self._tools.throttles.up, self._tools.throttles.down):
            throttle.stop()
        self._tools.pools.stop()
        with self._lock:
            runners = list(self._runners.values())
        for runner in runners:
            runner.stop()

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
            if known.get(pair.id, pair).is_paused is not pair.is_paused:
                self._runner(pair.id).pause(is_paused=pair.is_paused)

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
                with self._lock:
                    runners = list(self._runners.values())
                return {"pairs": [asdict(runner.status) for runner in runners]}
            case "reload":
                self._reload()
            case "quit":
                self._quitting.set()
            case "sync":
                self._runner(which).sync_now()
            case "history":
                count = min(int(values["count"]), HISTORY_MAX)
                return {"events": [asdict(event) for event in self._runner(which).history.last(count)]}
            case _:
                return self._ask(which, command, values)
        return {}

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
                runner.call(DECISIONS[str(values["decision"])])
                return {}
            case _:
                raise InvalidRequestError(f"the agent knows no command {command!r}")


def _is_same(old: PairSettings, new: PairSettings | None) -> bool:
    """Whether a pair goes on as it is, but perhaps paused."""
    if new is None:
        return False
    return (old.url, old.folder, old.user, old.excluded) == (new.url, new.folder, new.user, new.excluded)


def name_rules() -> NameRules:
    """What this system's file systems make of names, as they come out of the box."""
    match platform.system():
        case "Windows":
            return NameRules(ignores_case=True, windows=True)
        case "Darwin":
            return NameRules(ignores_case=True, ignores_normalization=True)
        case _:
            return NameRules()
