"""A real cluster for tests: `helenite up` as a child process, as a person would run it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from helenite.cli.cluster_dir import ClusterDir
from helenite.cli.status import to_values
from helenite.client.rpc import MasterRpc
from helenite.core.pb import common_pb2

START_S = 60.0
STATUS_S = 30.0
HELENITE = (sys.executable, "-m", "helenite.cli")
LANES_OFF = {"HELENITE_WEBDAV_CACHES": "no", "HELENITE_CALL_PORT": "no"}
"""Nothing remembered, every call by gRPC; with `hide_sockets` nothing is left of what makes Helenite fast."""


def run_helenite(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run([*HELENITE, *arguments], capture_output=True, text=True, timeout=120, check=False, **options)


class Cluster:
    """One data directory and, while started, the `helenite up` that serves it."""

    hides_sockets = False
    """Whether `hide_sockets` follows each start."""

    def __init__(self, directory: Path, *options: str, environment: dict[str, str] | None = None) -> None:
        self.environment = environment or {}
        self.directory = directory
        self.options = options
        self.url = ""
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> float:
        """Start it and wait for its line; the seconds that took."""
        began = time.monotonic()
        port = () if "--port" in self.options else ("--port", "0")
        self._process = subprocess.Popen(
            [*HELENITE, "up", "--dir", str(self.directory), *port, *self.options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | self.environment,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("Helenite is ready: "):
            _, errors = self._process.communicate(timeout=START_S)
            raise AssertionError(f"helenite up said {line!r} and {errors!r}\n{self.logs()}")
        self.url = line.removeprefix("Helenite is ready: ").strip()
        if self.hides_sockets:
            self.hide_sockets()
        return time.monotonic() - began

    def stop(self) -> None:
        """SIGTERM, as a person's Ctrl-C; it must end by itself with 0."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=90)
        assert process.returncode == 0, errors

    def kill_everything(self) -> None:
        """kill -9 of every process of the cluster at once."""
        victims = self.processes()
        for victim in victims:
            victim.suspend()  # so that none can react to another's death
        for victim in victims:
            victim.kill()
        psutil.wait_procs(victims, timeout=10)
        self.forget()

    def forget(self) -> None:
        """The supervisor has been killed: reap it."""
        assert self._process is not None
        self._process.communicate(timeout=10)
        self._process = None

    def processes(self) -> list[psutil.Process]:
        """The supervisor and everything it started."""
        assert self._process is not None
        supervisor = psutil.Process(self._process.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def child(self, name: str) -> psutil.Process:
        """A process by what stands in its command line, such as helenite.master; waits for one that is restarted."""
        deadline = time.monotonic() + START_S
        while True:
            for process in self.processes():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if name in " ".join(process.cmdline()):
                        return process
            assert time.monotonic() < deadline, f"no {name} is running"
            threading.Event().wait(0.1)

    @property
    def masters(self) -> tuple[str, ...]:
        info = ClusterDir(self.directory).load_info()
        assert info is not None
        return info.masters

    def helenite(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """A command on this cluster."""
        environment = dict(os.environ, HELENITE_DIR=str(self.directory), COLUMNS="200")
        return run_helenite(*arguments, env=environment, **options)

    def status(self) -> dict[str, Any]:
        """What `helenite status --json` prints, without a process for each look."""
        rpc = MasterRpc(self.masters, STATUS_S)
        try:
            return to_values(rpc.admin("GetStatus", common_pb2.Empty()))
        finally:
            rpc.close()

    def hide_sockets(self) -> None:
        """As if the chunkservers were on other machines: no descriptors are passed, bytes come by the data port."""
        for path in self.directory.glob("chunkserver-*/data.sock"):
            path.unlink()

    def check_fsck(self, *allowed: int) -> None:
        """fsck must end with one of these, or with 0."""
        done = self.helenite("fsck")
        assert done.returncode in (allowed or (0,)), done.stdout + done.stderr

    def logs(self) -> str:
        """The ends of all logs, for a failing test."""
        texts = (f"== {path.name}\n{path.read_text()[-2000:]}" for path in sorted(self.directory.glob("logs/*.log")))
        return "\n".join(texts)
