"""The gateway: `python -m webdav`, configured by HELENITE_* variables (config.GatewaySettings).

This parent holds the port, starts the workers that share it (SO_REUSEPORT), restarts what dies and stops all in order.
It imports nothing heavy, so it costs a few megabytes. One loop sleeps until a signal, a child or a clock wants it.
"""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field

from helenite.client.coherence import TABLE_BYTES
from helenite.config import GatewaySettings
from helenite.core.errors import ConfigurationError
from helenite.core.process import CONFIGURATION_EXIT, Backoff, die_with_parent, start_logging, tell_ready

log = logging.getLogger("webdav")

STOP_S = 10.0
"""Patience for workers to end after SIGTERM; then SIGKILL."""


@dataclass(slots=True)
class Child:
    """One worker process."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    ready_pipe: int = -1
    is_ready: bool = False
    started_at: float = 0.0
    restart_at: float = 0.0
    backoff: Backoff = field(default_factory=Backoff)

    def start(self, host: str, port: int, gateway_id: str, table: int) -> None:
        """Start it now; a pipe tells when it serves. `table` is the descriptor that all workers share."""
        self._close_pipe()
        self.ready_pipe, theirs = os.pipe()
        place = f"{host} {port} {gateway_id} {self.number} {os.getpid()} {table}".split()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "webdav", "--worker", *place],
                env=os.environ | {"HELENITE_READY_FD": str(theirs)},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a terminal's Ctrl-C reaches the parent alone, which stops them in order
                pass_fds=(theirs, table),
            )
        finally:
            os.close(theirs)
        self.is_ready = False
        self.started_at = time.monotonic()

    def check_ready(self) -> None:
        """Called when the pipe has something to say."""
        self.is_ready = bool(os.read(self.ready_pipe, 16))
        self._close_pipe()

    def reap(self) -> int | None:
        """The exit status when it has ended since the last call; its restart is planned."""
        if self.process is None or (status := self.process.poll()) is None:
            return None
        now = time.monotonic()
        self.restart_at = now + self.backoff.pause_s(now - self.started_at)
        self.process = None
        return status

    def stop(self, deadline: float) -> None:
        """Wait for its end, by force at the deadline."""
        if self.process is not None:
            try:
                self.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("worker %d did not stop in time", self.number)
                self.process.kill()
                self.process.wait()
        self._close_pipe()

    def _close_pipe(self) -> None:
        if self.ready_pipe >= 0:
            os.close(self.ready_pipe)
            self.ready_pipe = -1


class Parent:
    """Supervises the workers."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._gateway_id = secrets.token_hex(8)
        self._children = [Child(number) for number in range(settings.workers or os.cpu_count() or 1)]
        self._wake, self._wake_writer = os.pipe()
        self._was_ready = False
        self._table = shared_memory(TABLE_BYTES)

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; the exit status."""
        host, _, port = self._settings.listen.rpartition(":")
        host = host.strip("[]")
        with hold_port(host, int(port)) as held:
            self._watch_signals()
            bound_port = held.getsockname()[1]
            try:
                return self._supervise(host, bound_port)
            finally:
                self._stop_all()

    def _watch_signals(self) -> None:
        """Signals become bytes in a pipe, so that the loop sleeps in one place and no handler does anything."""
        os.set_blocking(self._wake, False)
        os.set_blocking(self._wake_writer, False)
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)

    def _supervise(self, host: str, port: int) -> int:
        while True:
            now = time.monotonic()
            for child in self._children:
                if child.process is None and child.restart_at <= now:
                    child.start(host, port, self._gateway_id, self._table)
            if self._wait(now):
                return 0
            for child in self._children:
                status = child.reap()
                if status == CONFIGURATION_EXIT:
                    return CONFIGURATION_EXIT
                if status is not None:
                    log.error("worker %d ended with status %d and is started again", child.number, status)
            self._tell_if_ready(host, port)

    def _wait(self, now: float) -> bool:
        """Sleep until something happens; True when it is time to stop."""
        pending = [child.restart_at - now for child in self._children if child.process is None]
        pipes = {child.ready_pipe: child for child in self._children if child.ready_pipe >= 0}
        readable, _, _ = select.select([self._wake, *pipes], [], [], max(0.0, min(pending)) if pending else None)
        for pipe in readable:
            if pipe in pipes:
                pipes[pipe].check_ready()
        signals = os.read(self._wake, 256) if self._wake in readable else b""
        return signal.SIGTERM in signals or signal.SIGINT in signals

    def _tell_if_ready(self, host: str, port: int) -> None:
        if not self._was_ready and all(child.is_ready for child in self._children):
            self._was_ready = True
            log.info("serving on %s port %d with %d workers", host, port, len(self._children))
            tell_ready(self._settings.ready_fd)

    def _stop_all(self) -> None:
        for child in self._children:
            if child.process is not None:
                child.process.terminate()
        deadline = time.monotonic() + STOP_S
        for child in self._children:
            child.stop(deadline)


def shared_memory(size: int) -> int:
    """The descriptor of memory that children can map too; where there is no such thing, of a file without a name."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("helenite-coherence")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor


def hold_port(host: str, port: int) -> socket.socket:
    """A bound socket that keeps the port for our workers; ConfigurationError when somebody else has it.

    The first, exclusive attempt finds out: with SO_REUSEPORT alone a second gateway would silently take a share.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as exclusive:
            exclusive.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            exclusive.bind((host, port))
            port = exclusive.getsockname()[1]
        held = socket.socket(family, socket.SOCK_STREAM)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((host, port))
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host} port {port}: {error.strerror or error}") from None
    return held


def main() -> int:
    """The parent, or with `--worker` one of its workers."""
    parser = argparse.ArgumentParser(prog="python -m webdav", description="Helenite's WebDAV gateway.")
    parser.add_argument("--worker", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        settings = GatewaySettings.from_env(os.environ)
        if options.worker:
            return _run_worker(settings, options.worker)
        start_logging(settings.log_level)
        if settings.supervised:
            die_with_parent()
        return Parent(settings).run()
    except ConfigurationError as error:
        print(f"webdav: {error}", file=sys.stderr)
        return CONFIGURATION_EXIT


def _run_worker(settings: GatewaySettings, words: list[str]) -> int:
    from webdav.worker import Place, run  # noqa: PLC0415 - only workers pay for gRPC and WsgiDAV

    host, port, gateway_id, number, parent_pid, table = words
    return run(settings, Place(host, int(port), gateway_id, int(number), int(parent_pid), int(table)))


if __name__ == "__main__":
    sys.exit(main())
