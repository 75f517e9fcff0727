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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from helenite.core.model import MIB
from tests.support.cluster import Cluster

READ_STALL_S = 3.0
WRITE_STALL_S = 5.0


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
    cluster.start()
    stopping = threading.Event()
    slowest = {"GET": 0.0, "PUT": 0.0}

    def load(seed: int) -> int:
        rng = random.Random(seed)
        done = 0
        with httpx.Client(base_url=cluster.url, timeout=60) as client:
            client.put(f"/{seed}-0", content=b"first")
            while not stopping.is_set():
                method = rng.choice(("GET", "PUT"))
                began = time.monotonic()
                if method == "PUT":
                    reply = client.put(f"/{seed}-{done}", content=rng.randbytes(rng.choice((100, 50_000, 2_000_000))))
                else:
                    reply = client.get(f"/{seed}-0")
                assert reply.is_success, reply.text
                slowest[method] = max(slowest[method], time.monotonic() - began)
                done += 1
        return done

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(load, seed) for seed in range(8)]
        stopping.wait(2)
        with gone(chunkserver(cluster, 2), how):
            stopping.wait(8)
        stopping.set()
        assert sum(worker.result() for worker in running) > 100
    assert slowest["GET"] < READ_STALL_S, slowest
    assert slowest["PUT"] < WRITE_STALL_S, slowest
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
    httpx.put(cluster.url + "kept", content=b"kept").raise_for_status()
    for number in (1, 2, 3):
        for path in (cluster.directory / f"chunkserver-{number}").glob("chunks/??/*"):
            os.truncate(path, path.stat().st_size // 2)
    got = b""
    with contextlib.suppress(httpx.HTTPError), httpx.stream("GET", cluster.url + "lost", timeout=60) as reply:
        for piece in reply.iter_raw():
            got += piece
        assert reply.status_code != 200 or len(got) < len(content)
    assert got == content[: len(got)] or len(got) < 1000
    assert httpx.get(cluster.url + "kept").content == b"kept"
    done = cluster.helenite("fsck")
    assert done.returncode == 2
    assert "LOST      /lost" in done.stdout
    assert "/kept" not in done.stdout
