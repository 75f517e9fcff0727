"""Disks and Redis fill up: writes are refused soon, with a reason; reads and deletes go on; room heals everything."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis

from tests.chaos.faults import full
from tests.support.cluster import Cluster
from tests.support.manifest import Content
from tests.support.waiting import wait_until

DISK = "900m"
SOON_S = 10.0
"""An answer that came late came at the deadline of 30 s."""
HEALED_S = 60.0
ENVIRONMENT = {
    "HELENITE_RESERVE_BYTES": "100MiB",
    "HELENITE_TRASH_S": "1",
    "HELENITE_GC_GRACE_S": "1",
    "HELENITE_CHUNK_BYTES": "2MiB",
}
FILE_BYTES = 10_000_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few hundred megabytes."""
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("needs root to mount a tmpfs")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def put(client: httpx.Client, number: int, size: int = FILE_BYTES) -> httpx.Response:
    return client.put(f"/{number}", content=Content(number, size).whole())


def fill(client: httpx.Client, most: int = 200, size: int = FILE_BYTES) -> tuple[int, httpx.Response]:
    """Write until refused: how many files were acknowledged, and the refusal."""
    for number in range(most):
        reply = put(client, number, size)
        if not reply.is_success:
            return number, reply
    raise AssertionError(f"{most} files fit")


def assert_refused(reply: httpx.Response) -> None:
    """With a status that fits, soon, in a sentence."""
    assert reply.status_code == 507 or (reply.status_code == 503 and "Retry-After" in reply.headers), reply.text
    assert len(reply.text.strip()) > 20
    assert reply.elapsed.total_seconds() < SOON_S, reply.elapsed


def check(client: httpx.Client, count: int, size: int = FILE_BYTES) -> None:
    for number in range(count):
        assert client.get(f"/{number}").content == Content(number, size).whole(), number


def heals(cluster: Cluster) -> None:
    """By itself: what was written while some servers still had no room gets its last replicas from repair."""
    wait_until(lambda: cluster.helenite("fsck").returncode == 0, HEALED_S)


def writes_again(client: httpx.Client) -> bool:
    return put(client, 1_000).is_success


def test_full_down_to_the_reserve(small_disk: Path) -> None:
    with Cluster(small_disk / "data", "--workers", "1", environment=ENVIRONMENT) as cluster:
        with httpx.Client(base_url=cluster.url, timeout=60) as client:
            count, refusal = fill(client)
            assert count > 5
            assert refusal.status_code == 507
            assert_refused(put(client, 999))
            check(client, count)
            for number in range(count // 2, count):
                assert client.delete(f"/{number}").status_code == 204
            wait_until(lambda: writes_again(client), HEALED_S)
            check(client, count // 2)
        heals(cluster)


def test_not_a_byte_is_left_for_chunks(tmp_path: Path, small_disk: Path) -> None:
    (tmp_path / "data").mkdir()
    for number in (1, 2, 3):
        (small_disk / str(number)).mkdir()
        (tmp_path / "data" / f"chunkserver-{number}").symlink_to(small_disk / str(number))
    with Cluster(tmp_path / "data", "--workers", "1", environment=ENVIRONMENT) as cluster:
        with httpx.Client(base_url=cluster.url, timeout=60) as client:
            for number in range(3):
                put(client, number).raise_for_status()
            with full(small_disk / "ballast"):
                for number in range(100, 105):
                    assert_refused(put(client, number))
                check(client, 3)
                assert client.delete("/2").status_code == 204
            wait_until(lambda: writes_again(client), HEALED_S)
            check(client, 2)
        heals(cluster)


def test_not_a_byte_is_left_for_anybody(small_disk: Path) -> None:
    """Not even for Redis, which ends then: nothing can be changed, and a writer hears so before its deadline.

    What is open already is still read. Room is all that has to come.
    """
    with Cluster(small_disk / "data", "--workers", "1", environment=ENVIRONMENT) as cluster:
        with httpx.Client(base_url=cluster.url, timeout=60) as client:
            for number in range(3):
                put(client, number).raise_for_status()
            with full(small_disk / "ballast"):
                reply = put(client, 100)
                assert reply.status_code in {503, 507}, reply.text
                assert len(reply.text.strip()) > 20
            wait_until(lambda: writes_again(client), HEALED_S)
            check(client, 3)
        heals(cluster)


def test_one_disk_of_three_is_full(tmp_path: Path, small_disk: Path) -> None:
    """Two of three take the chunks; when the third has room again, it gets its replicas."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "chunkserver-3").symlink_to(small_disk)
    with (
        Cluster(tmp_path / "data", "--workers", "1", environment=ENVIRONMENT) as cluster,
        httpx.Client(base_url=cluster.url, timeout=60) as client,
    ):
        put(client, 0).raise_for_status()
        with full(small_disk / "ballast"):
            for number in range(1, 6):
                reply = put(client, number)
                assert reply.is_success, reply.text
                assert reply.elapsed.total_seconds() < SOON_S
            check(client, 6)
        wait_until(lambda: cluster.helenite("fsck").returncode == 0, HEALED_S)
        check(client, 6)


def test_redis_is_full(cluster: Cluster) -> None:
    cluster.start()
    store = redis.Redis(unix_socket_path=str(cluster.directory / "redis" / "redis.sock"))
    with httpx.Client(base_url=cluster.url, timeout=60) as client:
        for number in range(20):
            put(client, number, 5_000).raise_for_status()
        store.config_set("maxmemory", store.info("memory")["used_memory"] + 100_000)
        count, refusal = fill(client, 20_000, 5_000)
        assert refusal.status_code == 507, refusal.text
        assert_refused(refusal)
        check(client, min(count, 100), 5_000)
        assert client.request("PROPFIND", "/", headers={"Depth": "1"}).status_code == 207
        for number in range(10):
            assert client.delete(f"/{number}").status_code == 204
        assert client.get("/0").status_code == 404
        store.config_set("maxmemory", 0)
        wait_until(lambda: writes_again(client), HEALED_S)
    store.close()
    heals(cluster)
