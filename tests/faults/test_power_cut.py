"""The power fails: what was acknowledged is on the disk, not only in the page cache.

kill -9 leaves the page cache to the kernel, which writes it; so it proves nothing about fsync. Here the data directory
lies on an ext4 of its own that is shut down without flushing, as a disk that loses its power. What was not synced is
gone, and the second test shows that it is: with --relaxed, acknowledged files are lost.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import httpx
import pytest

from tests.support.cluster import Cluster
from tests.support.manifest import Content, Digest
from tests.support.waiting import wait_until

EXT4_IOC_SHUTDOWN = 0x8004587D
WITHOUT_FLUSHING = 2
DISK_BYTES = 3 << 30
WRITERS = 4
BUSY_S = 60.0
ACKNOWLEDGED = 60
"""Files before the power fails."""
SIZES = (0, 100, 4_096, 70_000, 2_000_000)
RESERVE = {"HELENITE_RESERVE_BYTES": "64MiB"}


class Disk:
    """An ext4 in a file, which can lose its power."""

    def __init__(self, directory: Path) -> None:
        self._image = directory / "disk.img"
        self.place = directory / "disk"
        self.place.mkdir()
        with self._image.open("wb") as file:
            file.truncate(DISK_BYTES)
        subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=1", str(self._image)], check=True)

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", str(self._image), str(self.place)], check=True)

    def cut(self) -> None:
        """From now on nothing reaches the disk any more, neither data nor journal."""
        descriptor = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", WITHOUT_FLUSHING))
        finally:
            os.close(descriptor)

    def unmount(self) -> None:
        """When nobody uses it any more: a child that was being started when its supervisor died ends by itself."""
        wait_until(lambda: subprocess.run(["umount", str(self.place)], check=False).returncode == 0, BUSY_S)


@pytest.fixture
def disk(tmp_path: Path, need: Callable[..., None]) -> Iterator[Disk]:
    need("mkfs.ext4", "losetup")
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("needs root and loop devices")
    made = Disk(tmp_path)
    made.mount()
    try:
        yield made
    finally:
        if made.place.is_mount():
            made.unmount()
        shutil.rmtree(tmp_path, ignore_errors=True)


def write_until_cut(url: str, seed: int, cut: threading.Event, told: dict[str, Content]) -> None:
    """Write files, each under a name of its own or over an older one; note what was acknowledged before the cut."""
    with httpx.Client(base_url=url, timeout=60) as client:
        for number in range(10_000):
            content = Content(seed * 100_000 + number, SIZES[number % len(SIZES)])
            path = f"/{seed}-{number % 50}"
            try:
                is_done = client.put(path, content=content.whole()).is_success
            except httpx.HTTPError:
                is_done = False
            if cut.is_set():
                told.pop(path, None)  # perhaps overwritten, perhaps not: either is right
                return
            assert is_done, path
            told[path] = content


def survivors(cluster: Cluster, disk: Disk, enough: int | None = None) -> tuple[dict[str, Content], list[str]]:
    """Write, cut the power, start again: what was acknowledged, and what of it is gone or wrong, up to `enough`."""
    cluster.start()
    cut = threading.Event()
    told: list[dict[str, Content]] = [{} for _ in range(WRITERS)]
    with ThreadPoolExecutor(WRITERS) as pool:
        running = [pool.submit(write_until_cut, cluster.url, seed, cut, told[seed]) for seed in range(WRITERS)]
        try:
            wait_until(lambda: any(map(Future.done, running)) or sum(map(len, told)) > ACKNOWLEDGED, BUSY_S)
            threading.Event().wait(1)  # some of them are overwritten meanwhile
        finally:  # the pool waits for its writers
            cut.set()  # before the disk stops: what is acknowledged from here on is not counted
        disk.cut()
        cluster.kill_everything()
        for writer in running:
            writer.result()
    disk.unmount()
    disk.mount()
    cluster.start()
    acknowledged = {path: content for each in told for path, content in each.items()}
    with httpx.Client(base_url=cluster.url, timeout=60) as client:
        bad = (path for path, content in acknowledged.items() if not is_there(client, path, content))
        return acknowledged, list(islice(bad, enough))


def is_there(client: httpx.Client, path: str, content: Content) -> bool:
    try:
        reply = client.get(path)
    except httpx.HTTPError:
        return False
    return reply.is_success and Digest.of(reply.content) == content.digest()


def test_nothing_acknowledged_is_missing(disk: Disk) -> None:
    with Cluster(disk.place / "data", "--workers", "1", environment=RESERVE) as cluster:
        cluster.stop()
        for _ in range(2):
            acknowledged, bad = survivors(cluster, disk)
            assert len(acknowledged) > ACKNOWLEDGED - WRITERS
            assert bad == []
            cluster.check_fsck()
            cluster.stop()


def test_the_test_can_fail(disk: Disk) -> None:
    with Cluster(disk.place / "data", "--relaxed", "--workers", "1", environment=RESERVE) as cluster:
        cluster.stop()
        acknowledged, bad = survivors(cluster, disk, enough=1)  # each that is lost takes a second
        assert len(acknowledged) > ACKNOWLEDGED - WRITERS
        assert bad, "nothing was lost without fsync: the power was not cut"
