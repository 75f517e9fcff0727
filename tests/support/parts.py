"""A real cluster whose parts get settings of their own: what `helenite up` starts, started from here.

For tests that put a proxy or another clock in front of one part. Nothing is restarted: a part that dies fails the test.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil

from helenite.cli import up
from helenite.cli.cluster_dir import ClusterDir, ClusterInfo
from helenite.cli.embedded_redis import EmbeddedRedis
from helenite.cli.supervisor import Child, Program, Supervisor
from tests.support.cluster import START_S, Cluster
from tests.support.ports import free_port

Environment = Mapping[str, str]


class Parts(Cluster):
    """One master, one gateway worker and some chunkservers; `of` names what a part gets besides `environment`.

    Parts are called as their logs are: redis, master-1, chunkserver-1, gateway.
    """

    def __init__(
        self,
        directory: Path,
        *,
        chunkservers: int = 3,
        master: str = "",
        environment: dict[str, str] | None = None,
        of: Mapping[str, Environment] | None = None,
    ) -> None:
        super().__init__(directory, environment=environment)
        self._of = of or {}
        self._chunkservers = chunkservers
        self._master = master
        self._place = ClusterDir(directory)
        self._redis = EmbeddedRedis(self._place.redis)
        self._supervisor = Supervisor()
        self._children: list[Child] = []

    def start(self) -> float:
        """Start everything and wait until it is ready; the seconds that took."""
        began = time.monotonic()
        master, port = self._master or f"127.0.0.1:{free_port()}", free_port()
        plan = up.UpPlan(self.directory, "127.0.0.1", port, self._chunkservers, 1, 3, 1, True, "", "")
        self._place.create()
        with _environment(self._of.get("redis", {})):
            self._redis.start()
        shared = {**os.environ, **self.environment, **up.shared_environment(plan, (master,), self._redis.url)}
        try:
            self._run(*up.master_programs(self._place, (master,), shared))
            self._run(*up.chunkserver_programs(self._place, plan, shared))
            self._run(up.gateway_program(self._place, plan, shared))
            self._supervisor.wait_ready(START_S, threading.Event())
        except BaseException:
            self._supervisor.stop()
            self._redis.stop()
            raise
        self.url = f"http://127.0.0.1:{port}/"
        self._place.save_info(ClusterInfo(os.getpid(), (master,), self.url))
        return time.monotonic() - began

    def _run(self, *programs: Program) -> None:
        own = [replace(it, environment={**it.environment, **self._of.get(it.name, {})}) for it in programs]
        self._children += self._supervisor.start(*own)

    def stop(self) -> None:
        """Stop everything; whatever has died before is told."""
        dead = [child.program.name for child in self._children if child.pid is None]
        self._place.forget_info()
        self._supervisor.stop()
        self._redis.stop()
        self._children.clear()
        assert not dead, f"{dead} died\n{self.logs()}"

    def processes(self) -> list[psutil.Process]:
        """Redis and everything else that was started."""
        pids = [self._redis.pid, *(child.pid for child in self._children)]
        return [psutil.Process(pid) for pid in pids if pid is not None]


@contextmanager
def _environment(values: Environment) -> Iterator[None]:
    """For a child that takes over ours."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
