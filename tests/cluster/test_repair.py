"""Redundancy comes back by itself: after a server's death, after rot, after writes with too few servers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.support.cluster import Cluster
from tests.support.contents import check, fill
from tests.support.waiting import wait_until

SETTINGS = {"HELENITE_SUSPECT_AFTER_S": "2", "HELENITE_DEAD_AFTER_S": "4"}


def wait_healthy(cluster: Cluster) -> None:
    wait_until(
        lambda: not lacking(cluster) and cluster.helenite("fsck").returncode == 0,
        120,
        lambda: cluster.helenite("fsck").stdout,
    )


def lacking(cluster: Cluster) -> int:
    """Chunks with too few replicas, as far as the master knows."""
    return int(cluster.status()["chunks"]["under_replicated"])


def surplus(cluster: Cluster) -> int:
    """Replicas beyond three of each chunk, as far as the servers that can be asked say."""
    status = cluster.status()
    return sum(server["chunks"] for server in status["chunkservers"]) - 3 * status["chunks"]["total"]


def is_made_up_for(status: dict[str, Any]) -> bool:
    """One server is dead, and the others hold all that there has to be."""
    servers, chunks = status["chunkservers"], status["chunks"]
    held = sum(server["chunks"] for server in servers if server["state"] == "alive")
    is_dead = [server["state"] for server in servers].count("dead") == 1
    return is_dead and chunks["under_replicated"] == 0 and held >= 3 * chunks["total"]


def test_a_lost_server_is_made_up_for_and_its_return_leaves_no_surplus(tmp_path: Path) -> None:
    with Cluster(tmp_path / "c", "--chunkservers", "4", environment=SETTINGS) as cluster:
        contents = fill(cluster, 60, large_every=4, large_bytes=2_000_000)
        victim = psutil.Process(cluster.status()["chunkservers"][0]["pid"])
        victim.suspend()
        wait_until(lambda: is_made_up_for(cluster.status()), 60)
        check(cluster, contents)
        victim.resume()
        wait_healthy(cluster)
        wait_until(lambda: surplus(cluster) <= 0, 120)
        wait_healthy(cluster)
        check(cluster, contents)


def test_rotten_replicas_are_replaced(tmp_path: Path) -> None:
    with Cluster(tmp_path / "c", environment=SETTINGS) as cluster:
        contents = fill(cluster, 12, large_every=4, large_bytes=2_000_000)
        for path in (tmp_path / "c" / "chunkserver-1").glob("chunks/??/*"):
            os.truncate(path, path.stat().st_size // 2)
        cluster.check_fsck(1)
        wait_healthy(cluster)
        check(cluster, contents)


def test_a_replica_that_vanished_is_replaced_once_somebody_looks(tmp_path: Path) -> None:
    with Cluster(tmp_path / "c", environment=SETTINGS) as cluster:
        contents = fill(cluster, 12, large_every=4, large_bytes=2_000_000)
        victim = psutil.Process(cluster.status()["chunkservers"][0]["pid"])
        directory = Path(victim.environ()["HELENITE_CHUNK_DIR"])
        victim.kill()
        for path in directory.glob("chunks/??/*"):
            path.unlink()
        check(cluster, contents)
        wait_healthy(cluster)
        assert list(directory.glob("chunks/??/*"))


def test_what_was_written_with_two_servers_gets_its_third_copy(tmp_path: Path) -> None:
    with Cluster(tmp_path / "c", environment=SETTINGS) as cluster:
        early = fill(cluster, 5, large_every=4, large_bytes=2_000_000)
        victim = psutil.Process(cluster.status()["chunkservers"][2]["pid"])
        victim.suspend()
        late = {f"late {number}": os.urandom(30_000) for number in range(5)}
        with httpx.Client(base_url=cluster.url, timeout=60) as client:
            for name, content in late.items():
                client.put(f"/{name}", content=content).raise_for_status()
        victim.resume()
        wait_healthy(cluster)
        check(cluster, early | late)


def test_a_drained_server_can_be_stopped_and_removed(tmp_path: Path) -> None:
    with Cluster(tmp_path / "c", "--chunkservers", "4", environment=SETTINGS) as cluster:
        contents = fill(cluster, 40, large_every=4, large_bytes=2_000_000)
        leaving = cluster.status()["chunkservers"][1]
        refused = cluster.helenite("server", "remove", str(leaving["id"]))
        assert refused.returncode == 1
        assert "running" in refused.stderr
        drained = cluster.helenite("server", "drain", str(leaving["id"]))
        assert drained.returncode == 0, drained.stderr
        assert "can go" in drained.stdout
        assert cluster.status()["chunkservers"][1]["state"] == "draining"
        psutil.Process(leaving["pid"]).suspend()
        wait_until(lambda: cluster.helenite("server", "remove", str(leaving["id"])).returncode == 0, 60)
        assert len(cluster.status()["chunkservers"]) == 3
        wait_healthy(cluster)  # the table has forgotten its replicas, too
        check(cluster, contents)
        assert cluster.status()["chunks"]["under_replicated"] == 0
        psutil.Process(leaving["pid"]).resume()
