"""A restored, older Redis: nothing is deleted, status says why, and a person can go on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.cluster import Cluster
from tests.support.waiting import wait_until

SETTINGS = {
    "HELENITE_SUSPECT_AFTER_S": "2",
    "HELENITE_DEAD_AFTER_S": "4",
    "HELENITE_TRASH_S": "0",
    "HELENITE_GC_GRACE_S": "0",
}
LARGE = 2_000_000
"""A chunk file of its own on each of three chunkservers."""


def put(cluster: Cluster, *names: str) -> None:
    with httpx.Client(base_url=cluster.url, timeout=30) as client:
        for name in names:
            client.put(f"/{name}", content=os.urandom(LARGE)).raise_for_status()


def chunk_files(cluster: Cluster) -> set[Path]:
    return set(cluster.directory.glob("chunkserver-*/chunks/??/*"))


def test_an_older_redis_deletes_nothing_until_a_person_says_so(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "c", "--workers", "1", environment=SETTINGS)
    redis, older = tmp_path / "c" / "redis", tmp_path / "older"
    try:
        cluster.start()
        put(cluster, "kept", "doomed")
        cluster.stop()
        shutil.copytree(redis, older)
        cluster.start()
        assert not cluster.status()["deleting_stopped"], "a restart alone is no reason"
        put(cluster, *(f"new{number}" for number in range(4)))
        wait_until(lambda: len(chunk_files(cluster)) == 18, within_s=60)
        files = chunk_files(cluster)
        cluster.stop()
        shutil.rmtree(redis)
        shutil.copytree(older, redis)
        cluster.start()
        with httpx.Client(base_url=cluster.url, timeout=30) as client:
            client.delete("/doomed").raise_for_status()
            wait_until(lambda: cluster.status()["deleting_stopped"], within_s=60)
            assert len(client.get("/kept").content) == LARGE
        put(cluster, "written meanwhile")
        assert files <= chunk_files(cluster)
        shown = cluster.helenite("status")
        assert shown.returncode == 0
        assert "older than the chunks" in shown.stdout
        assert "resume" in cluster.helenite("gc").stdout
        cluster.stop()
        cluster.start()
        assert cluster.status()["deleting_stopped"], "it holds until a person has spoken"
        assert files <= chunk_files(cluster)
        cluster.stop()
        cluster.environment |= {"HELENITE_ORPHAN_AGE_S": "1", "HELENITE_REPORT_S": "2"}
        cluster.start()
        assert "go on" in cluster.helenite("gc", "resume").stdout
        wait_until(lambda: len(chunk_files(cluster)) == 6, within_s=60)
        assert not cluster.status()["deleting_stopped"]
        cluster.check_fsck()
    finally:
        cluster.stop()


def test_uploads_that_were_given_up_leave_the_disks(tmp_path: Path) -> None:
    settings = SETTINGS | {"HELENITE_ORPHAN_AGE_S": "1", "HELENITE_REPORT_S": "2", "HELENITE_CHUNK_BYTES": "2MiB"}
    with Cluster(tmp_path / "c", "--workers", "1", environment=settings) as cluster:

        def half() -> Iterator[bytes]:
            yield os.urandom(4 * LARGE)
            wait_until(lambda: chunk_files(cluster), within_s=60)
            raise ConnectionError

        with httpx.Client(base_url=cluster.url, timeout=30) as client, pytest.raises(ConnectionError):
            client.put("/given-up", content=half(), headers={"Content-Length": str(8 * LARGE)})

        def used() -> int:
            return sum(server["used_bytes"] for server in cluster.status()["chunkservers"])

        wait_until(lambda: not chunk_files(cluster) and used() == 0, within_s=60)


def test_replicas_that_vanished_are_found_by_the_next_report(tmp_path: Path) -> None:
    with Cluster(tmp_path / "c", "--workers", "1", environment=SETTINGS) as cluster:
        put(cluster, *"abcdef")
        wait_until(lambda: len(chunk_files(cluster)) == 18, within_s=60)
        victim = next(iter(cluster.directory.glob("chunkserver-1")))
        for path in victim.glob("chunks/??/*"):
            path.unlink()
        assert len(chunk_files(cluster)) == 12
        next(p for p in cluster.processes() if p.environ().get("HELENITE_CHUNK_DIR") == str(victim)).kill()
        wait_until(lambda: len(chunk_files(cluster)) == 18, within_s=60)
        wait_until(lambda: cluster.helenite("fsck").returncode == 0, within_s=60)
