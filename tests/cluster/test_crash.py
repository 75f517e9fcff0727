"""kill -9 of everything at once, in mid-write: what was acknowledged is there, nothing else is half there."""

from __future__ import annotations

import hashlib
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.support.cluster import Cluster
from tests.support.waiting import wait_until

WRITERS = 6
CYCLES = 2
ACKNOWLEDGED = 30
"""Names in each cycle, before the end."""


class Manifest:
    """What clients were told: the sums of each name that was acknowledged, written after the 2xx."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.acknowledged: dict[str, str] = {}
        self.attempted: dict[str, set[str]] = {}

    def attempt(self, name: str, content: bytes) -> None:
        with self._lock:
            self.attempted.setdefault(name, set()).add(hashlib.sha256(content).hexdigest())

    def acknowledge(self, name: str, content: bytes) -> None:
        with self._lock:
            self.acknowledged[name] = hashlib.sha256(content).hexdigest()
            self.attempted[name] = {self.acknowledged[name]}


def write_until_cut(url: str, manifest: Manifest, seed: int, stopping: threading.Event) -> None:
    rng = random.Random(seed)
    with httpx.Client(base_url=url, timeout=60) as client:
        while not stopping.is_set():
            name = f"/w{seed}-{rng.randrange(20)}"
            content = rng.randbytes(rng.choice([0, 1, 4096, 70_000, 2_000_000]))
            manifest.attempt(name, content)
            try:
                if client.put(name, content=content).is_success:
                    manifest.acknowledge(name, content)
            except httpx.HTTPError:
                return


@pytest.mark.parametrize("seed", [1])
def test_everything_acknowledged_survives(cluster: Cluster, seed: int) -> None:
    manifest = Manifest()
    rng = random.Random(seed)
    for cycle in range(CYCLES):
        cluster.start()
        enough = len(manifest.acknowledged) + ACKNOWLEDGED
        stopping = threading.Event()
        with ThreadPoolExecutor(WRITERS) as pool:
            running = [
                pool.submit(write_until_cut, cluster.url, manifest, 100 * cycle + i, stopping) for i in range(WRITERS)
            ]
            try:
                wait_until(lambda enough=enough: len(manifest.acknowledged) >= enough, 60)
                stopping.wait(rng.random())
                cluster.kill_everything()
            finally:  # the pool waits for its writers
                stopping.set()
            for writer in running:
                writer.result()
    cluster.start()
    with httpx.Client(base_url=cluster.url, timeout=60) as client:
        for name, allowed in manifest.attempted.items():
            reply = client.get(name)
            if reply.status_code == 404:
                assert name not in manifest.acknowledged, name
            else:
                # The last write may have been cut after its commit and before its reply: then it is there, whole.
                assert hashlib.sha256(reply.content).hexdigest() in allowed, name
    cluster.check_fsck()
