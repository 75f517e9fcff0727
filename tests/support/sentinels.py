"""Redis with replicas under real sentinels, on loopback, in a directory of its own."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from helenite.cli.embedded_redis import find_server
from tests.support.ports import free_ports
from tests.support.waiting import wait_until

SERVICE = "helenite-test"
DOWN_MS = 3000
"""Silence after which the sentinels take the master for dead; longer than a busy machine makes anybody wait."""


class Sentinels:
    """Two servers, the first a master, and three sentinels that watch them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        ports = free_ports(5)
        self.servers, self.sentinels = ports[:2], ports[2:]
        self.front = self.servers[0]
        """The port by which the replica and the sentinels know the first server: a proxy's, if set before the start."""
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}/0"

    def start(self) -> None:
        self.start_server(self.servers[0], None)
        self.start_server(self.servers[1], self.front)
        for port in self.sentinels:
            self._start(
                port,
                f"sentinel monitor {SERVICE} 127.0.0.1 {self.front} 2\n"
                f"sentinel down-after-milliseconds {SERVICE} {DOWN_MS}\n"
                f"sentinel failover-timeout {SERVICE} 4000\n",
                "--sentinel",
            )
        wait_until(lambda: self.replica_count() == 1, 20)
        wait_until(lambda: all(self._knows_all(port) for port in self.sentinels), 20)

    def start_server(self, port: int, master: int | None, more: str = "") -> None:
        more += "" if master is None else f"replicaof 127.0.0.1 {master}\n"
        # No server here loses its power, and a disk that is busy for a second must not make one seem dead.
        self._start(port, f"appendonly yes\nappendfsync no\nsave ''\nrepl-diskless-sync-delay 0\n{more}")

    def _start(self, port: int, configuration: str, *options: str) -> None:
        if (ended := self._processes.pop(port, None)) is not None:
            ended.wait(10)
        directory = self._directory / str(port)
        directory.mkdir(exist_ok=True)
        path = directory / "redis.conf"
        if not path.exists():  # sentinels and servers keep what they have learnt in it
            path.write_text(f"port {port}\nbind 127.0.0.1\ndir {directory}\nprotected-mode no\n{configuration}")
        with (directory / "log").open("ab") as log:
            self._processes[port] = subprocess.Popen(
                [str(find_server()), str(path), *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        client = redis.Redis(port=port)
        wait_until(lambda: self._pings(client), 20)

    @staticmethod
    def _pings(client: redis.Redis) -> bool:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False

    def _knows_all(self, port: int) -> bool:
        state = redis.Redis(port=port).sentinel_master(SERVICE)
        return state["num-other-sentinels"] == 2 and state["num-slaves"] == 1

    def master(self) -> int:
        """The port of the server that the sentinels name now."""
        host_and_port = redis.Redis(port=self.sentinels[0]).sentinel_get_master_addr_by_name(SERVICE)
        return int(host_and_port[1])

    def replica_count(self) -> int:
        return int(redis.Redis(port=self.master()).info("replication")["connected_slaves"])

    def send(self, port: int, number: signal.Signals) -> None:
        """A signal to the server on this port."""
        self._processes[port].send_signal(number)

    def stop(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)


@contextmanager
def running_sentinels(directory: Path) -> Iterator[Sentinels]:
    made = Sentinels(directory)
    try:
        made.start()
        yield made
    finally:
        made.stop()
