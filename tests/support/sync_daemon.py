"""The agent's daemon on a thread of the test, with one folder."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from helenite.core.clock import Clock
from helenite.core.errors import UnavailableError
from syncagent.control import ask
from syncagent.daemon import Daemon
from syncagent.settings import AgentSettings, Home, PairSettings
from syncagent.status import AgentStatus, PairStatus, parse_status
from tests.support.memory_filesystem import MemoryFileSystem
from tests.support.waiting import wait_until


class JumpingClock(Clock):
    """Wall time that can leap, as it does when a machine wakes up; monotonic time stood still meanwhile."""

    def __init__(self) -> None:
        self.slept_s = 0.0

    def now_ms(self) -> int:
        return super().now_ms() + int(self.slept_s * 1000)


class Running:
    """A daemon on a thread."""

    def __init__(self, base: Path, url: str) -> None:
        self.home = Home(base / "h")
        self.folder = base / "folder"
        self.folder.mkdir()
        self.pair = PairSettings("p1", f"{url}/home", str(self.folder))
        self.clock = JumpingClock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.keep(self.pair)

    def keep(self, *pairs: PairSettings, **others: Any) -> None:
        with self.home.edit() as draft:
            draft.settings = AgentSettings(pairs, **others)

    def start(self) -> None:
        daemon = Daemon(self.home, self.clock, "not wanted")
        self._thread = threading.Thread(target=daemon.run, args=(self._stopping,))
        self._thread.start()
        wait_until(self.answers)

    def answers(self) -> bool:
        try:
            return bool(self.status)
        except UnavailableError:
            return False

    def stop(self) -> None:
        self._stopping.set()
        assert self._thread is not None
        self._thread.join(20)
        assert not self._thread.is_alive()

    @property
    def status(self) -> AgentStatus:
        return parse_status(ask(self.home, "status"))

    @property
    def pair_status(self) -> PairStatus:
        return self.status.pairs[0]

    def settles(self) -> None:
        wait_until(lambda: self.pair_status.is_settled, 20)


def names(fs: MemoryFileSystem, *directory: str) -> set[str]:
    """What the folder has on the server."""
    return {view.entry.name for view in fs.list(("home", *directory))[1]}
