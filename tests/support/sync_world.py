"""Agents with real folders and real journals around one server in memory, in a time that only the test moves.

`Agent` is one machine: it can be synced, crashed at any call to disk or server, and used by a person, also in the
middle of a cycle. `World` knows what must not get lost: each content that a person wrote and nobody since overwrote or
deleted where it could be seen.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path as FilePath
from random import Random
from typing import Any

import pytest

from helenite.core.clock import Clock
from helenite.core.errors import HeleniteError
from syncagent import folder as folder_module
from syncagent.engine import Engine, Report, Settings
from syncagent.fates import Customs
from syncagent.folder import LocalFolder
from syncagent.journal import open_journal
from syncagent.names import STATE_DIRECTORY, is_aside
from syncagent.safety import Limits
from syncagent.selection import Selection
from syncagent.transfers import Lanes
from tests.support.sync_server import MemoryServer

Listing = dict[str, bytes | None]


class Crash(BaseException):
    """The process dies here."""


class TestClock(Clock):
    """Time that stands still."""

    __test__ = False

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def now_ms(self) -> int:
        return int(super().now_ms() + self.now * 1000)  # ahead of all files, so that none counts as just written

    def monotonic_s(self) -> float:
        return self.now


class LateExecutor(Executor):
    """Transfers that are carried out some time, when the test says so: cycles and people go on meanwhile."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._jobs: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._jobs.append((future, lambda: fn(*args, **kwargs)))
        return future

    def run_some(self, count: int) -> int:
        """Carry out some of them, in any order; how many there were. What kills the process leaves here."""
        done = 0
        while self._jobs and done < count:
            future, job = self._jobs.pop(self._random.randrange(len(self._jobs)))
            if future.set_running_or_notify_cancel():
                done += 1
                try:
                    future.set_result(job())
                except HeleniteError as error:
                    future.set_exception(error)
                except BaseException as death:
                    future.set_exception(death)
                    raise
        return done


class Agent:
    """One machine with one synced folder."""

    def __init__(self, base: FilePath, name: str, server: MemoryServer, clock: TestClock) -> None:
        self.name = name
        self.root = base / name
        self.root.mkdir()
        self.server = server
        self.clock = clock
        self.selection = Selection()
        self.limits = Limits(count=10_000)
        self.lanes = Lanes()
        self.late: LateExecutor | None = None
        self._journal_file = base / f"{name}.journal" / "journal"
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            journal = open_journal(self._journal_file, "damaged")
            customs = Customs(self.name, f"2026-11-24 {self.name}")
            settings = Settings(customs, self.selection, self.limits)
            folder = LocalFolder(self.root, self.clock)
            self._engine = Engine(folder, self.server, journal, self.clock, settings, self.lanes)
        return self._engine

    def cycle(self, *dirty: str) -> Report:
        """One cycle over everything, or over some directories."""
        paths = [tuple(path.split("/")) if path else () for path in dirty]
        return self.engine.cycle(paths, everywhere=not dirty)

    def settle(self, cycles_max: int = 40) -> Report:
        """Cycles until nothing is left to do."""
        for _ in range(cycles_max):
            report = self.cycle()
            if report.stop is not None or (report.is_quiet and not report.steps):
                return report
            self.clock.now += 400
        raise AssertionError(f"{self.name} does not come to rest: {report}")

    def be_late(self, random: Random) -> None:
        """From now on transfers take their time."""
        self.late = LateExecutor(random)
        self.lanes = Lanes(self.late, self.late)

    def restart(self, *, lose_journal: bool = False) -> None:
        """The process ends, whatever it was doing, and starts again."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        if lose_journal:
            shutil.rmtree(self._journal_file.parent, ignore_errors=True)

    def listing(self) -> Listing:
        """What a person sees in the folder."""
        found: Listing = {}
        for directory, directories, files in os.walk(self.root):
            here = FilePath(directory)
            if here == self.root:
                directories.remove(STATE_DIRECTORY) if STATE_DIRECTORY in directories else None
            for name in (*directories, *files):
                path = here / name
                key = str(path.relative_to(self.root))
                if path.is_symlink():
                    found[key] = str(path.readlink()).encode()
                else:
                    found[key] = None if path.is_dir() else path.read_bytes()
        return found

    def staged(self) -> list[str]:
        staging = self.root / STATE_DIRECTORY / "staging"
        return sorted(path.name for path in staging.iterdir()) if staging.exists() else []

    def trashed(self) -> set[bytes]:
        trash = self.root / STATE_DIRECTORY / "trash"
        return {path.read_bytes() for path in trash.rglob("*") if path.is_file() and not path.is_symlink()}


class World:
    """Agents, a server, and what must not get lost."""

    def __init__(self, base: FilePath, random: Random, server: MemoryServer, count: int) -> None:
        self.random = random
        self.clock = TestClock()
        self.server = server
        self.agents = [Agent(base, f"agent{number}", server, self.clock) for number in range(count)]
        self.precious: set[bytes] = set()
        self._written = 0

    def new_content(self) -> bytes:
        self._written += 1
        content = f"content {self._written} ".encode() * self.random.randrange(1, 4)
        self.precious.add(content)
        return content

    def release(self, path: FilePath) -> None:
        """A person is about to overwrite or delete what is here."""
        for file in [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]:
            if file.is_file() and not file.is_symlink():
                self.precious.discard(file.read_bytes())

    def act(self, agent: Agent) -> None:
        """A person does something in an agent's folder."""
        random, root = self.random, agent.root
        present = sorted(
            path for path in root.rglob("*") if STATE_DIRECTORY not in path.parts and not path.name.endswith("~")
        )
        present = [path for path in present if not is_aside(path.name)]
        folders = [root, *(path for path in present if path.is_dir() and not path.is_symlink())]
        files = [path for path in present if path.is_file() and not path.is_symlink()]
        target = random.choice(folders) / random.choice("abcd")
        match random.choice(("write", "write", "edit", "edit", "save", "move", "move", "mkdir", "remove")):
            case "write" if not target.exists():
                target.write_bytes(self.new_content())
            case "edit" if files:
                file = random.choice(files)
                self.release(file)
                with file.open("r+b") as opened:
                    opened.truncate(0)
                    opened.write(self.new_content())
            case "save" if files:
                file = random.choice(files)
                fresh = file.with_name(file.name + "~")
                fresh.write_bytes(self.new_content())
                self.release(file)
                fresh.replace(file)
            case "move" if present and not target.exists():
                source = random.choice(present)
                if source not in target.parents and source != target:
                    source.rename(target)
            case "mkdir" if not target.exists():
                target.mkdir()
            case "remove" if present:
                victim = random.choice(present)
                self.release(victim)
                shutil.rmtree(victim) if victim.is_dir() and not victim.is_symlink() else victim.unlink()

    def settle(self) -> None:
        """All agents in turn until nobody has anything to do."""
        for _ in range(60):
            steps = 0
            for agent in self.agents:
                report = agent.cycle()
                assert report.stop is None, report.stop
                steps += len(report.steps) + (not report.is_quiet)
                if agent.late is not None:
                    agent.late.run_some(1_000)
            self.clock.now += 400
            if not steps:
                return
        raise AssertionError(f"the agents do not come to rest; the last report: {report}")

    def check(self) -> None:
        """What must hold when all is quiet."""
        listing = self.server.listing()
        for agent in self.agents:
            assert agent.listing() == listing, f"{agent.name} is not as the server"
            assert not [name for name in agent.staged() if not name.startswith("part-")], agent.staged()
        assert not [path for path in listing if is_aside(path.rsplit("/", 1)[-1])]
        lost = self.precious - set(listing.values())
        assert not lost, f"lost: {lost}"
        before = self.server.write_count()
        for agent in self.agents:
            assert not agent.cycle().steps
        assert self.server.write_count() == before


@contextlib.contextmanager
def disturbing(patch: pytest.MonkeyPatch, hook: Callable[[str, str], None]) -> Iterator[None]:
    """Call the hook before and after each rename on the local disk."""
    with patch.context() as inner:
        for name in ("exchange", "move_to_free_name"):
            inner.setattr(folder_module, name, _hooked(name, getattr(folder_module, name), hook))
        yield


def _hooked(
    name: str, function: Callable[[str, str], object], hook: Callable[[str, str], None]
) -> Callable[..., object]:
    def hooked(source: str, target: str) -> object:
        hook("before", name)
        answer = function(source, target)
        hook("after", name)
        return answer

    return hooked


Make = Callable[..., World]


def write(agent: Agent, path: str, content: bytes = b"1") -> FilePath:
    file = agent.root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def requests_of(server: MemoryServer, act: Callable[[], object]) -> dict[str, int]:
    """The writing and fetching requests that something took."""
    before = dict(server.requests)
    act()
    names = ("store", "make_directory", "move", "delete", "set_attributes", "fetch")
    counts = {name: server.requests.get(name, 0) - before.get(name, 0) for name in names}
    return {name: count for name, count in counts.items() if count}
