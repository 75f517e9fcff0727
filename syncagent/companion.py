"""Keeps the tray running beside the daemon, as a child process: whatever a desktop does to it, the agent goes on.

Used by `daemon`. A tray that ends without being asked is started again after a pause that grows: a panel may come later
than the agent, or be started anew. Threading: one thread starts the child and reads what it says.
"""

from __future__ import annotations

import subprocess
import sys
import threading

from helenite.core.clock import Clock
from syncagent.bell import Bell
from syncagent.settings import Home
from syncagent.steady import SteadyWorker

PAUSE_S = (2.0, 600.0)
"""Before the second attempt, and the longest; it doubles. An attempt costs a fifth of a second of computing."""
END_S = 3.0
"""So long the child may take to find out that the daemon is gone, and then to obey a signal."""


class Companion:
    """The tray of one home."""

    def __init__(self, home: Home, clock: Clock, bell: Bell) -> None:
        self._home = home
        self._bell = bell
        self._lock = threading.Lock()  # guards the child: none is started after `stop`
        self._child: subprocess.Popen[str] | None = None
        self._worker = SteadyWorker("tray", self._run, self._crash, clock)
        self.state = "starting"
        """`shown`, or why it is not."""

    def start(self) -> None:
        self._worker.start()

    def stop(self) -> None:
        """End the child too."""
        self._worker.stop(0)
        with self._lock:
            child = self._child
        if child is not None:
            _end(child)
        self._worker.stop(END_S)

    def _run(self, stopping: threading.Event) -> None:
        pause_s, longest = PAUSE_S
        while not stopping.is_set():
            was_shown = self._attend(stopping)
            pause_s = PAUSE_S[0] if was_shown else min(pause_s * 2, longest)
            stopping.wait(pause_s)

    def _attend(self, stopping: threading.Event) -> bool:
        """Run one child to its end; whether it has shown an icon."""
        with self._lock:
            if stopping.is_set():
                return False
            child = self._child = subprocess.Popen(
                [sys.executable, "-m", "syncagent.tray", str(self._home.path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
        last = ""
        was_shown = False
        assert child.stdout is not None
        with child.stdout:
            for line in child.stdout:
                last = line.strip() or last
                if last == "shown":
                    was_shown = True
                    self._tell("shown")
        status = child.wait()
        self._tell(f"not shown: {last}" if last and last != "shown" else f"not shown: it ended with {status}")
        return was_shown

    def _tell(self, state: str) -> None:
        self.state = state
        self._bell.ring()

    def _crash(self, pause_s: float) -> None:
        self._tell(f"not shown: an error of the agent, see its log; it is tried again in {pause_s:.0f} s")


def _end(child: subprocess.Popen[str]) -> None:
    """It ends by itself when the daemon does not answer any more, and takes its files with it."""
    for urge in (child.terminate, child.kill):
        try:
            child.wait(END_S)
        except subprocess.TimeoutExpired:
            urge()
    child.wait()
