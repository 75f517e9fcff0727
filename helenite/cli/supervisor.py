"""Runs the processes of a cluster on one machine: starts them, restarts what dies, stops them in order.

Used by `up`. Each child writes to its own log, leads its own process group (a terminal's Ctrl-C reaches the supervisor
alone, so that the order of stopping is ours) and tells through a pipe that it is ready. Single-threaded.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from helenite.core.errors import ConfigurationError, UnavailableError
from helenite.core.process import CONFIGURATION_EXIT, Backoff

log = logging.getLogger(__name__)

STOP_S = 15.0
"""Patience for a child to end after SIGTERM; then SIGKILL, which durable data survives."""
LOG_BYTES_MAX = 32 * 1024 * 1024
"""A log longer than this is set aside (one generation) when its process starts."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run as one child."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log_path: Path
    is_replaceable: bool = False
    """Whether the others of its stage can do without it: when it dies at the start, nobody waits for it."""


class Child:
    """One supervised process."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._ready_pipe = -1
        self._is_ready = False
        self._was_ready = False
        self._has_failed = False
        self._told = ""
        self._started_at = 0.0
        self._restart_at = 0.0
        self._backoff = Backoff()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Start it now."""
        _set_aside(self.program.log_path)
        read_end, write_end = os.pipe()
        environment = dict(self.program.environment) | {
            "HELENITE_SUPERVISED": "1",
            "HELENITE_READY_FD": str(write_end),
        }
        try:
            with self.program.log_path.open("ab") as output:
                self._process = subprocess.Popen(
                    self.program.command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    pass_fds=(write_end,),
                )
        finally:
            os.close(write_end)
        self._close_pipe()
        self._ready_pipe, self._is_ready = read_end, False
        self._started_at = time.monotonic()

    def is_ready(self) -> bool:
        """Whether it has said so since its last start."""
        if not self._is_ready and self._ready_pipe >= 0:
            readable, _, _ = select.select([self._ready_pipe], [], [], 0)
            if readable:
                self._is_ready = bool(os.read(self._ready_pipe, 16))
                self._was_ready = self._was_ready or self._is_ready
                self._has_failed = False
                self._close_pipe()
        return self._is_ready

    def is_given_up(self) -> bool:
        """Whether a start need not wait for it: it died before it was ready, and the others of its stage can do."""
        return self.program.is_replaceable and self._has_failed

    def keep_alive(self) -> None:
        """Start it again when it has died and its pause is over.

        ConfigurationError, with its last words, when it says that its settings are wrong. Once it has served with them
        they cannot be: then its status means something that passes, such as a port that is not free yet.
        """
        if self._process is None or (status := self._process.poll()) is None:
            self.is_ready()  # so that its pipe is read and closed
            return
        if status == CONFIGURATION_EXIT and not self._was_ready:
            raise ConfigurationError(f"{self.program.name} did not start: {self.last_words()}")
        now = time.monotonic()
        if self._restart_at == 0.0:
            self._restart_at = now + self._backoff.pause_s(now - self._started_at)
            self._has_failed = True
            self._tell_end(status)
        if now >= self._restart_at:
            self._restart_at = 0.0
            self.start()

    def _tell_end(self, status: int) -> None:
        """Once, and again when it ends otherwise: one that cannot start ends every few seconds."""
        words = f"status {status} ({self.last_words()})"
        if words != self._told:
            self._told = words
            log.warning(
                "%s ended with %s and is started again, as often as that takes; see %s",
                self.program.name, words, self.program.log_path,
            )  # fmt: skip

    def last_words(self) -> str:
        """The last line of its log."""
        try:
            lines = self.program.log_path.read_text(errors="replace").strip().splitlines()
        except OSError as error:
            return str(error)
        return lines[-1] if lines else "it said nothing"

    def ask_to_stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait_stopped(self, deadline: float) -> None:
        """Wait until it has ended; SIGKILL at `deadline` (monotonic seconds)."""
        if self._process is not None:
            try:
                self._process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("%s does not stop and is killed", self.program.name)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._close_pipe()

    def _close_pipe(self) -> None:
        if self._ready_pipe >= 0:
            os.close(self._ready_pipe)
            self._ready_pipe = -1


class Supervisor:
    """All children; later ones stand on earlier ones and are stopped before them."""

    def __init__(self) -> None:
        self._stages: list[list[Child]] = []

    def start(self, *programs: Program) -> list[Child]:
        """Start one more stage; its children are stopped together."""
        stage = [Child(program) for program in programs]
        self._stages.append(stage)
        for child in stage:
            child.start()
        return stage

    def check(self) -> None:
        """Restart what has died."""
        for stage in self._stages:
            for child in stage:
                child.keep_alive()

    def is_ready(self) -> bool:
        """Whether every child is, but for those that their stage can do without; of no stage is nobody ready."""
        return all(
            any(child.is_ready() for child in stage) and all(child.is_ready() or child.is_given_up() for child in stage)
            for stage in self._stages
        )

    def waiting_for(self) -> str:
        """Names of the children that are not ready."""
        return ", ".join(c.program.name for stage in self._stages for c in stage if not c.is_ready())

    def stop(self) -> None:
        """Stop the stages from last to first."""
        while self._stages:
            stage = self._stages.pop()
            for child in stage:
                child.ask_to_stop()
            deadline = time.monotonic() + STOP_S
            for child in stage:
                child.wait_stopped(deadline)

    def wait_ready(self, timeout_s: float, stopping: threading.Event) -> bool:
        """Supervise until every child is ready; False when asked to stop meanwhile."""
        deadline = time.monotonic() + timeout_s
        while not self.is_ready():
            self.check()
            if stopping.wait(0.02):
                return False
            if time.monotonic() > deadline:
                raise UnavailableError(f"not ready after {timeout_s:.0f} s: {self.waiting_for()}; see the logs")
        return True


def _set_aside(path: Path) -> None:
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.replace(path.with_suffix(".log.1"))
