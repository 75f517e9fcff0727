"""Chunkservers die, hang and rot under readers and writers: it costs time, never a request or a wrong byte."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from helenite.core.model import MIB
from tests.support.cluster import Cluster
from tests.support.waiting import wait_until

STALL_S = {"GET": 3.0, "PUT": 5.0}
"""Longest time that a chunkserver's trouble costs one request."""
USUAL = 5
"""Times the slowest request before the trouble: what a busy machine may cost besides."""
EACH = 10
"""Requests of each client, before the trouble and while it lasts."""


def chunkserver(cluster: Cluster, number: int) -> psutil.Process:
    pids = sorted(server["pid"] for server in cluster.status()["chunkservers"])
    return psutil.Process(pids[number])


@contextlib.contextmanager
def gone(victim: psutil.Process, how: str) -> Iterator[None]:
    """The process is killed (and restarted by its supervisor) or hangs meanwhile."""
    victim.send_signal(signal.SIGKILL if how == "kill" else signal.SIGSTOP)
    try:
        yield
    finally:
        if how == "hang":
            victim.resume()


@pytest.mark.parametrize("how", ["kill", "hang"])
def test_a_reader_fails_over_in_mid_stream(cluster: Cluster, how: str) -> None:
    cluster.start()
    content = os.urandom(96 * MIB)
    httpx.put(cluster.url + "large", content=content, timeout=60).raise_for_status()
    checksum = hashlib.sha256()
    with httpx.stream("GET", cluster.url + "large", timeout=60) as reply, contextlib.ExitStack() as later:
        for number, piece in enumerate(reply.iter_raw(MIB)):
            if number == 2:
                later.enter_context(gone(chunkserver(cluster, 0), how))
            checksum.update(piece)
    assert checksum.hexdigest() == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("how", ["kill", "hang"])
def test_a_writer_sends_again(cluster: Cluster, how: str) -> None:
    cluster.start()
    checksum = hashlib.sha256()
    victim = chunkserver(cluster, 1)
    with contextlib.ExitStack() as later:

        def pieces() -> Iterator[bytes]:
            for number in range(96):
                if number == 20:
                    later.enter_context(gone(victim, how))
                piece = os.urandom(MIB)
                checksum.update(piece)
                yield piece

        assert httpx.put(cluster.url + "large", content=pieces(), timeout=60).status_code == 201
    assert hashlib.sha256(httpx.get(cluster.url + "large", timeout=60).content).hexdigest() == checksum.hexdigest()


@pytest.mark.parametrize("how", ["kill", "hang"])
def test_mixed_load_sees_no_failure_and_short_stalls(cluster: Cluster, how: str) -> None:
    """Nobody waits for the end of a hang: each client goes on meanwhile."""
    cluster.start()
    stopping = threading.Event()
    slowest = {"GET": 0.0, "PUT": 0.0}
    done = [0] * 8

    def load(seed: int) -> None:
        rng = random.Random(seed)
        with httpx.Client(base_url=cluster.url, timeout=60) as client:
            client.put(f"/{seed}-0", content=b"first")
            while not stopping.is_set():
                method = rng.choice(("GET", "PUT"))
                began = time.monotonic()
                if method == "PUT":
                    reply = client.put(
                        f"/{seed}-{done[seed]}", content=rng.randbytes(rng.choice((100, 50_000, 2_000_000)))
                    )
                else:
                    reply = client.get(f"/{seed}-0")
                assert reply.is_success, reply.text
                slowest[method] = max(slowest[method], time.monotonic() - began)
                done[seed] += 1

    def goes_on(running: list[Future[None]]) -> None:
        before = list(done)
        wait_until(
            lambda: (
                any(each.done() for each in running)
                or all(now >= then + EACH for now, then in zip(done, before, strict=True))
            ),
            60,
        )

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(load, seed) for seed in range(8)]
        try:
            goes_on(running)
            usual = dict(slowest)
            with gone(chunkserver(cluster, 2), how):
                goes_on(running)
        finally:
            stopping.set()
        for worker in running:
            worker.result()
    for method, stall_s in STALL_S.items():
        assert slowest[method] < stall_s + USUAL * usual[method], (slowest, usual)
    cluster.check_fsck(0, 1)


def damage(path: Path, rng: random.Random) -> None:
    """Flip a bit somewhere in the data of a chunk's file or segment."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        at = rng.randrange(64, size - 64)
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ (1 << rng.randrange(8))]))


def replicas(cluster: Cluster, number: int) -> list[Path]:
    """Files of one chunkserver that hold chunks."""
    root = cluster.directory / f"chunkserver-{number}"
    found = [*root.glob("chunks/??/*"), *root.glob("segments/*.seg")]
    return [path for path in found if path.stat().st_size > 200]


def test_rot_is_survived_while_one_replica_is_good(cluster: Cluster) -> None:
    cluster.start()
    rng = random.Random(1)
    contents = {f"file {number}": rng.randbytes(size) for number, size in enumerate((5_000, 300_000, 20_000_000))}
    for name, content in contents.items():
        httpx.put(cluster.url + name, content=content, timeout=60).raise_for_status()
    for number in (1, 2):
        for path in replicas(cluster, number):
            for _ in range(5):
                damage(path, rng)
    for name, content in contents.items():
        assert httpx.get(cluster.url + name, timeout=60).content == content
    cluster.check_fsck(1)
    for name, content in contents.items():
        assert httpx.get(cluster.url + name, timeout=60).content == content


def test_when_every_replica_rots_the_answer_breaks_off_and_fsck_names_the_file(cluster: Cluster) -> None:
    cluster.start()
    content = os.urandom(20_000_000)
    httpx.put(cluster.url + "lost", content=content, timeout=60).raise_for_status()
    httpx.put(cluster.url + "kept", content=b"kept", timeout=60).raise_for_status()
    for number in (1, 2, 3):
        for path in (cluster.directory / f"chunkserver-{number}").glob("chunks/??/*"):
            os.truncate(path, path.stat().st_size // 2)
    got = b""
    with contextlib.suppress(httpx.HTTPError), httpx.stream("GET", cluster.url + "lost", timeout=60) as reply:
        for piece in reply.iter_raw():
            got += piece
        assert reply.status_code != 200 or len(got) < len(content)
    assert got == content[: len(got)] or len(got) < 1000
    assert httpx.get(cluster.url + "kept", timeout=60).content == b"kept"
    done = cluster.helenite("fsck")
    assert done.returncode == 2
    assert "LOST      /lost" in done.stdout
    assert "/kept" not in done.stdout
