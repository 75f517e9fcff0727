"""Space comes back: deleted and replaced content leaves the disks, shared content stays."""

from __future__ import annotations

import os
from pathlib import Path

import httpx

from tests.support.cluster import Cluster
from tests.support.waiting import wait_until


def used_bytes(cluster: Cluster) -> int:
    return sum(server["used_bytes"] for server in cluster.status()["chunkservers"])


def test_deleted_and_replaced_content_is_freed_and_shared_content_is_not(tmp_path: Path) -> None:
    settings = {"HELENITE_TRASH_S": "0", "HELENITE_GC_GRACE_S": "0"}
    with Cluster(tmp_path / "cluster", "--workers", "1", environment=settings) as cluster:
        with httpx.Client(base_url=cluster.url, timeout=30) as client:
            kept = os.urandom(2_000_000)
            client.put("/kept", content=kept)
            client.request("COPY", "/kept", headers={"Destination": "/copy"})
            client.request("MKCOL", "/gone")
            for number in range(20):
                client.put(f"/gone/{number}", content=os.urandom(1_500_000 if number % 2 else 5_000))
            client.put("/replaced", content=os.urandom(3_000_000))
            wait_until(lambda: used_bytes(cluster) > 3 * 20_000_000, 60)
            client.put("/replaced", content=b"")
            client.delete("/gone")
            client.delete("/kept")
            wait_until(lambda: used_bytes(cluster) < 3 * 2_001_000, 60)
            assert client.get("/copy").content == kept
        cluster.check_fsck()


def test_the_trash_gives_back_until_it_is_emptied(tmp_path: Path) -> None:
    settings = {"HELENITE_GC_GRACE_S": "0"}
    with (
        Cluster(tmp_path / "cluster", environment=settings) as cluster,
        httpx.Client(base_url=cluster.url, timeout=60) as client,
    ):
        client.put("/a", content=os.urandom(2_000_000))
        client.delete("/a")
        wait_until(lambda: used_bytes(cluster) > 6_000_000, 60)
        assert cluster.helenite("trash", "empty").returncode == 0
        wait_until(lambda: used_bytes(cluster) == 0, 60)
