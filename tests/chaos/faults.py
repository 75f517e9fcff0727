"""Faults that strike a running cluster, one at a time, never more than the promises cover.

A fault strikes, the cluster gets time to be whole again, the next one follows. What each may cost is part of its
definition: most may fail no request at all. Damage to replicas is done only to what was whole at the last check, on at
most all servers but one of each chunk. One thread.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from helenite.client.rpc import MasterRpc
from helenite.core.errors import HeleniteError
from helenite.core.pb import common_pb2
from tests.support.cluster import Cluster
from tests.support.processes import data_directory, of_role
from tests.support.rot import Replica, damage, find_replicas

RECOVER_S = 180.0
"""Patience with repair after one fault."""
POLL_S = 0.5
PAUSES_S = (1.0, 3.0, 6.0, 12.0)
DAMAGED_MAX = 60
"""Replicas damaged at one time."""


@dataclass(frozen=True, slots=True)
class Window:
    """When a fault was felt."""

    kind: str
    began_at: float
    healed_at: float
    detail: str


class Director:
    """Chooses faults and carries them out."""

    def __init__(self, cluster: Cluster, rng: random.Random, ballast: Path | None) -> None:
        self.cluster = cluster
        self.windows: list[Window] = []
        self.problems: list[str] = []
        self.fsck_runs = 0
        self.begun = threading.Event()
        """All is well at the start; faults strike from now on."""
        self._rng = rng
        self._ballast = ballast
        self._whole: dict[Path, int] = {}
        """Files of replicas and their sizes, as they were when fsck last found everything healthy."""

    def run(self, stopping: threading.Event) -> None:
        """One fault after the other until told to stop; ends in a healthy cluster."""
        self.recover()
        self.begun.set()
        while not stopping.wait(self._rng.uniform(0.5, 4.0)):
            kind = self._rng.choices(list(FAULTS), [fault.weight for fault in FAULTS.values()])[0]
            began = time.monotonic()
            detail = FAULTS[kind].strike(self)
            self.recover(kind)
            self.windows.append(Window(kind, began, time.monotonic(), detail))

    def excuse(self, began_at: float, ended_at: float) -> str:
        """The fault that explains a failed request of that time; empty when none may."""
        felt = [w for w in self.windows if w.began_at <= ended_at and began_at <= w.healed_at]
        return next((window.kind for window in felt if FAULTS[window.kind].fails_requests), "")

    def during(self, began_at: float, ended_at: float) -> str:
        felt = [w for w in self.windows if w.began_at <= ended_at and began_at <= w.healed_at]
        return ", ".join(window.kind for window in felt) or "no fault"

    def recover(self, after: str = "the start") -> None:
        """Wait until every part is there and every chunk has its replicas, and fsck has read them."""
        deadline = time.monotonic() + RECOVER_S
        said = ""
        while time.monotonic() < deadline:
            if not (said := self._what_lacks()):
                done = self.cluster.helenite("fsck")
                self.fsck_runs += 1
                if done.returncode == 0:
                    self._remember_whole()
                    return
                said = (done.stdout + done.stderr)[-1500:]
                if done.returncode == 2:
                    self.problems.append(f"after {after}: fsck says {said}")
                    return
            threading.Event().wait(POLL_S)
        self.problems.append(f"after {after}: not whole again within {RECOVER_S:.0f} s: {said}")

    def _what_lacks(self) -> str:
        rpc = MasterRpc(self.cluster.masters, 5.0)
        try:
            status = rpc.admin("GetStatus", common_pb2.Empty())
        except HeleniteError as error:
            return str(error)
        finally:
            rpc.close()
        try:
            httpx.options(self.cluster.url, timeout=2.0).raise_for_status()
        except httpx.HTTPError as error:
            return f"the gateway does not answer: {error}"
        away = [str(server.id) for server in status.chunkservers if server.state != "alive"]
        if away:
            return f"chunkservers {', '.join(away)} are not alive"
        if not any(master.state == "leader" for master in status.masters):
            return "no master leads"
        if status.chunks_under_replicated:
            return f"{status.chunks_under_replicated} chunks are under-replicated"
        return ""

    def _remember_whole(self) -> None:
        self._whole = {}
        for pattern in ("chunkserver-*/chunks/??/*", "chunkserver-*/segments/*.seg"):
            for path in self.cluster.directory.glob(pattern):
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    self._whole[path] = path.stat().st_size

    # The faults; each returns what it did

    def kill_chunkserver(self) -> str:
        return self._kill("chunkserver")

    def kill_two_chunkservers(self) -> str:
        return self._kill("chunkserver", 2)

    def kill_worker(self) -> str:
        return self._kill("worker")

    def kill_gateway(self) -> str:
        return self._kill("gateway")

    def kill_master(self) -> str:
        return self._kill("master")

    def kill_redis(self) -> str:
        return self._kill("redis")

    def pause_chunkserver(self) -> str:
        return self._pause("chunkserver", PAUSES_S)

    def pause_master(self) -> str:
        return self._pause("master", PAUSES_S)

    def pause_worker(self) -> str:
        return self._pause("worker", PAUSES_S[:3])

    def pause_redis(self) -> str:
        return self._pause("redis", PAUSES_S[:2])

    def kill_everything(self) -> str:
        self.cluster.kill_everything()
        return f"started again in {self.cluster.start():.1f} s"

    def rot(self) -> str:
        """Bits flip, files are cut short or vanish, on two of four servers."""
        servers = self._rng.sample(of_role(self.cluster, "chunkserver"), 2)
        done: list[str] = []
        for server in servers:
            replicas = [r for r in find_replicas(data_directory(server)) if self._was_whole(r)]
            for replica in self._rng.sample(replicas, min(len(replicas), DAMAGED_MAX // 2)):
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    done.append(damage(replica, self._rng))
        return ", ".join(f"{done.count(way)} x {way}" for way in sorted(set(done)))

    def _was_whole(self, replica: Replica) -> bool:
        return replica.offset + replica.length <= self._whole.get(replica.path, 0)

    def fill_disk(self) -> str:
        """One server's disk has no byte left for a while."""
        if self._ballast is None:
            return "not here"
        seconds = self._rng.uniform(3, 10)
        with full(self._ballast):
            threading.Event().wait(seconds)
        return f"{seconds:.0f} s"

    def _kill(self, role: str, count: int = 1) -> str:
        victims = self._rng.sample(of_role(self.cluster, role), count)
        for victim in victims:
            victim.kill()
        psutil.wait_procs(victims, timeout=10)
        return " ".join(str(victim.pid) for victim in victims)

    def _pause(self, role: str, choice: tuple[float, ...]) -> str:
        victim = self._rng.choice(of_role(self.cluster, role))
        seconds = self._rng.choice(choice)
        victim.suspend()
        threading.Event().wait(seconds)
        victim.resume()
        return f"{victim.pid} for {seconds:.0f} s"


@contextlib.contextmanager
def full(ballast: Path) -> Iterator[None]:
    """The file system that holds `ballast` has no byte left meanwhile."""
    try:
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 20))
        yield
    finally:
        ballast.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Fault:
    """How often it is chosen against the others, and whether requests may fail that meet it."""

    weight: int
    fails_requests: bool
    strike: Callable[[Director], str]


FAULTS: dict[str, Fault] = {
    "kill chunkserver": Fault(8, False, Director.kill_chunkserver),
    "pause chunkserver": Fault(8, False, Director.pause_chunkserver),
    "kill two chunkservers": Fault(2, True, Director.kill_two_chunkservers),
    "kill master": Fault(5, False, Director.kill_master),
    "pause master": Fault(5, False, Director.pause_master),
    "kill worker": Fault(4, True, Director.kill_worker),
    "pause worker": Fault(3, False, Director.pause_worker),
    "kill gateway": Fault(2, True, Director.kill_gateway),
    "kill Redis": Fault(3, True, Director.kill_redis),
    "pause Redis": Fault(3, True, Director.pause_redis),
    "kill everything": Fault(2, True, Director.kill_everything),
    "rot": Fault(8, False, Director.rot),
    "full disk": Fault(4, False, Director.fill_disk),
}
