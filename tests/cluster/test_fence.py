"""A cluster under Sentinel: deletions wait while few sentinels are heard, `helenite gc` says so, all else goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
import redis

from tests.support.cluster import Cluster
from tests.support.sentinels import running_sentinels
from tests.support.waiting import wait_until

LARGE = 2_000_000
"""A chunk file of its own on each of three chunkservers."""
SETTINGS = {"HELENITE_TRASH_S": "0", "HELENITE_GC_GRACE_S": "0"}


def chunk_files(cluster: Cluster) -> int:
    return len(list(cluster.directory.glob("chunkserver-*/chunks/??/*")))


def test_without_most_sentinels_nothing_is_deleted_and_all_else_goes_on(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    with running_sentinels(tmp_path / "s") as sentinels:
        settings = SETTINGS | {"HELENITE_REDIS_URL": sentinels.url}
        with (
            Cluster(tmp_path / "c", "--workers", "1", environment=settings) as cluster,
            httpx.Client(base_url=cluster.url, timeout=30) as client,
        ):
            client.put("/first", content=os.urandom(LARGE)).raise_for_status()
            client.put("/second", content=os.urandom(LARGE)).raise_for_status()
            wait_until(lambda: chunk_files(cluster) == 6, 60)
            client.delete("/first").raise_for_status()
            wait_until(lambda: chunk_files(cluster) == 3, 60)
            for port in sentinels.sentinels[1:]:
                sentinels.send(port, signal.SIGSTOP)
            wait_until(lambda: "1 of 3 sentinels" in cluster.status()["deleting_stopped"], 60)
            client.delete("/second").raise_for_status()
            books = redis.Redis(port=sentinels.servers[0])
            wait_until(lambda: all(books.scard(f"{{main}}:del:{number}") for number in (1, 2, 3)), 60)
            client.put("/third", content=b"third").raise_for_status()
            assert client.get("/third").content == b"third"
            assert "by themselves" in cluster.helenite("gc").stdout
            assert chunk_files(cluster) == 3
            for port in sentinels.sentinels[1:]:
                sentinels.send(port, signal.SIGCONT)
            wait_until(lambda: chunk_files(cluster) == 0, 60)
            wait_until(lambda: not cluster.status()["deleting_stopped"], 60)
            cluster.check_fsck()
