"""The promise of repair, measured: a lost server of four is made up for within a minute, and readers keep half."""

from __future__ import annotations

import os
import random
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import httpx
import psutil
import pytest

from helenite.client.filesystem import FileSystem
from helenite.config import ClientSettings
from helenite.core.pb import common_pb2
from tests.support.cluster import Cluster

SETTINGS = {"HELENITE_SUSPECT_AFTER_S": "2", "HELENITE_DEAD_AFTER_S": "4"}
CHUNKS = 2_000
LARGE_EVERY = 10
DEADLINE_S = 60.0


class Reader:
    """A client that reads all the time, and how much it got when."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self.times: list[float] = []
        self.failed = 0
        self._done = self._pool.submit(self._run)

    def stop(self) -> None:
        self._stopping.set()
        self._done.result(timeout=60)
        self._pool.shutdown()

    def rate(self, since: float, until: float) -> float:
        """Requests per second."""
        return sum(since <= at < until for at in self.times) / (until - since)

    def longest_stall(self, since: float, until: float) -> float:
        inside = [since, *(at for at in self.times if since <= at < until), until]
        return max(after - before for before, after in pairwise(inside))

    def _run(self) -> None:
        rng = random.Random(1)
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._stopping.is_set():
                reply = client.get(f"/{rng.randrange(CHUNKS)}")
                self.failed += reply.status_code != 200
                self.times.append(time.monotonic())


def fill(cluster: Cluster) -> None:
    with httpx.Client(base_url=cluster.url, timeout=60) as client:
        for number in range(CHUNKS):
            size = 4_000_000 if number % LARGE_EVERY == 0 else 50_000
            client.put(f"/{number}", content=os.urandom(size)).raise_for_status()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_lost_server_of_four_is_made_up_for_within_a_minute(tmp_path: Path) -> None:
    with Cluster(tmp_path / "c", "--chunkservers", "4", environment=SETTINGS) as cluster:
        fill(cluster)
        reader = Reader(cluster.url)
        threading.Event().wait(10)
        victim = cluster.status()["chunkservers"][1]
        directory = Path(psutil.Process(victim["pid"]).environ()["HELENITE_CHUNK_DIR"])
        killed_at = time.monotonic()
        psutil.Process(victim["pid"]).kill()
        shutil.rmtree(directory)
        directory.touch()  # so that the server cannot start again
        dead_at = whole_at = 0.0
        is_counted = False  # the count of what lacks replicas is some seconds old
        with FileSystem(ClientSettings(masters=cluster.masters)) as client:
            while not whole_at:
                assert time.monotonic() < killed_at + 4 * DEADLINE_S
                status = client.rpc.admin("GetStatus", common_pb2.Empty())
                if not dead_at and status.chunkservers[1].state == "dead":
                    dead_at = time.monotonic()
                is_counted = is_counted or bool(dead_at and status.chunks_under_replicated)
                if is_counted and status.chunks_under_replicated == 0:
                    whole_at = time.monotonic()
                threading.Event().wait(0.5)
        reader.stop()
        before, during = reader.rate(killed_at - 8, killed_at), reader.rate(dead_at, whole_at)
        sys.stdout.write(
            f"\nfull redundancy {whole_at - killed_at:.1f} s after the kill, {whole_at - dead_at:.1f} s after death; "
            f"reads {before:.0f}/s before, {during:.0f}/s during repair; "
            f"longest stall {reader.longest_stall(killed_at, whole_at):.2f} s; {reader.failed} failed\n"
        )
        assert whole_at - killed_at < DEADLINE_S
        assert during > before / 2
        assert reader.failed == 0
        directory.unlink()
