"""Real sync agents for tests: `python -m syncagent` as processes, each with a home and a folder of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from helenite.core.clock import Clock
from helenite.core.errors import HeleniteError, UnavailableError
from helenite.core.paths import ROOT
from syncagent.control import ask
from syncagent.model import Kind
from syncagent.names import STATE_DIRECTORY, is_conflict_copy
from syncagent.ports import RemoteEntry
from syncagent.remote import WebDavRemote
from syncagent.session import Account, Session, Throttles
from syncagent.settings import Home
from syncagent.throttle import Throttle
from tests.support.waiting import wait_until

AGENT = (sys.executable, "-m", "syncagent")
START_S = 60.0
SETTLE_S = 180.0
"""After failures an agent waits 1, 2, 4 ... seconds, and on a busy machine there may be some."""

Tree = dict[str, bytes | None]
"""Contents by path; None is a directory. A link is its target after an arrow."""


class Agent:
    """One device."""

    def __init__(self, base: Path, name: str, environment: dict[str, str] | None = None) -> None:
        self.environment = os.environ | (environment or {})
        self.home = Home(base / f"home-{name}")
        self.folder = base / name
        self.log = base / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*AGENT, *arguments, "--home", str(self.home.path)],
            input=text,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def add(self, url: str, *options: str, password: str = "") -> None:
        done = self.command("add", url, str(self.folder), *options, text=f"{password}\n")
        assert done.returncode == 0, done.stderr

    def start(self, *options: str) -> None:
        with self.log.open("ab") as log:
            arguments = [*AGENT, "run", *(options or ("--no-tray",)), "--home", str(self.home.path)]
            self.process = subprocess.Popen(
                arguments, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment
            )
        wait_until(self.answers, START_S)

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            self.status()
        except UnavailableError:
            return False
        return True

    def stop(self) -> None:
        """As Ctrl-C does."""
        if self.process is not None:
            process, self.process = self.process, None
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0, self.log.read_text()[-3000:]

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)
        self.process = None

    def status(self) -> dict[str, Any]:
        pair: dict[str, Any] = ask(self.home, "status")["pairs"][0]
        return pair

    def is_settled(self) -> bool:
        return bool(self.status()["is_settled"])

    def history(self) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = ask(self.home, "history", count=1000)["events"]
        return events

    def look_everywhere(self) -> None:
        """A whole cycle."""
        cycles = self.status()["cycles"]
        ask(self.home, "sync")
        wait_until(lambda: self.status()["cycles"] > cycles and self.is_settled(), SETTLE_S)

    def tree(self) -> Tree:
        found: Tree = {}
        for directory, directories, files in os.walk(self.folder):
            if STATE_DIRECTORY in directories:
                directories.remove(STATE_DIRECTORY)
            for name in [*directories, *files]:
                path = Path(directory, name)
                key = path.relative_to(self.folder).as_posix()
                if path.is_symlink():
                    found[key] = b"-> " + os.fsencode(path.readlink())
                elif path.is_dir() or path.is_file():  # not a pipe, and not a socket
                    found[key] = None if path.is_dir() else path.read_bytes()
        return found

    def staged(self) -> list[Path]:
        """What is on its way."""
        staging = self.folder / STATE_DIRECTORY / "staging"
        return list(staging.iterdir()) if staging.exists() else []

    def staged_bytes(self) -> int:
        """How much of it is here already. What is complete goes away while this looks."""
        total = 0
        for file in self.staged():
            with contextlib.suppress(FileNotFoundError):
                total += file.stat().st_size
        return total

    def lift_limits(self) -> None:
        """As `limit --up 0 --down 0` does; no process is started for that."""
        settings = self.home.load()
        if settings.up_bytes_per_s is settings.down_bytes_per_s is None:
            return
        with self.home.edit() as draft:
            draft.settings = replace(draft.settings, up_bytes_per_s=None, down_bytes_per_s=None)
        ask(self.home, "reload")

    def trashed(self) -> list[bytes]:
        """Contents in the local trash."""
        trash = self.folder / STATE_DIRECTORY / "trash"
        return [path.read_bytes() for path in trash.rglob("*") if path.is_file()]


class ServerView:
    """The synced folder on the server, looked at from outside."""

    def __init__(self, url: str, scratch: Path) -> None:
        clock = Clock()
        self.remote = WebDavRemote(Session(Account(url), clock, Throttles(Throttle(clock), Throttle(clock))))
        self._scratch = scratch
        self._seen: dict[tuple[str, str], bytes] = {}  # by resource id and ETag: one content for ever

    def tree(self) -> Tree:
        found: Tree = {}
        stack = [ROOT]
        while stack:
            for entry in self.remote.list(stack.pop()):
                key = "/".join(entry.path)
                if entry.kind is Kind.DIRECTORY:
                    found[key] = None
                    stack.append(entry.path)
                    continue
                content = self._content(entry)
                found[key] = b"-> " + content if entry.kind is Kind.LINK else content
        return found

    def _content(self, entry: RemoteEntry) -> bytes:
        known = (entry.stamp.resource, entry.stamp.etag)
        if known not in self._seen:
            self.remote.fetch(entry.path, entry.stamp, self._scratch)
            self._seen[known] = self._scratch.read_bytes()
            self._scratch.unlink()
        return self._seen[known]


def settle(server: ServerView, *agents: Agent, within_s: float = SETTLE_S) -> Tree:
    """Wait until agents and server are equal and nobody has anything to do, and check what must hold then."""
    tree: Tree = {}

    def are_settled() -> bool:
        return all(agent.is_settled() for agent in agents)

    def are_equal() -> bool:
        nonlocal tree
        try:
            if not are_settled():  # which costs little: trees are only read when this may be the last time
                return False
            tree = agents[0].tree()
            return all(agent.tree() == tree for agent in agents[1:]) and server.tree() == tree and are_settled()
        except (FileNotFoundError, HeleniteError):
            return False  # something changed or went away while we looked

    try:
        wait_until(are_equal, within_s)
    except AssertionError as error:
        states = [(agent.status(), sorted(agent.tree())) for agent in agents]
        raise AssertionError(f"{error}: {states}, server {sorted(server.tree())}") from error
    assert not [path for path in tree if ".helenite-" in path and not path.endswith(".heleniteignore")]
    check_copies(tree)
    token = server.remote.token()
    for agent in agents:
        agent.look_everywhere()
    assert server.remote.token() == token, "a cycle after all was equal has written something"
    assert [agent.tree() for agent in agents] == [tree] * len(agents)
    for agent in agents:
        assert agent.status()["crashes"] == 0, agent.log.read_text()[-5000:]
        leftovers = [file.name for file in agent.staged() if not file.name.startswith("part-")]
        assert leftovers == []
    return tree


def check_copies(tree: Tree) -> None:
    """No conflict copy is there twice, or equals what it is a copy of."""
    for path, content in tree.items():
        name = path.rpartition("/")[2]
        if is_conflict_copy(name) and content is not None:
            stem = path[: len(path) - len(name) + name.index(" (")]
            twins = [
                other for other, its in tree.items() if its == content and other.startswith(stem) and other != path
            ]
            assert not [twin for twin in twins if "/" not in twin[len(stem) :]], (path, twins)
