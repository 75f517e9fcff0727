"""A server that is added is filled up by moves, whatever is killed meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.cluster import Cluster
from tests.support.contents import check, fill
from tests.support.waiting import wait_until

SETTINGS = {"HELENITE_SUSPECT_AFTER_S": "2", "HELENITE_DEAD_AFTER_S": "30", "HELENITE_CHUNK_BYTES": "1MiB"}


def newest(status: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = status["chunkservers"][-1]
    return found


def is_balanced(status: dict[str, Any]) -> bool:
    used = [server["used_bytes"] for server in status["chunkservers"]]
    mean = sum(used) / len(used)
    whole = sum(server["chunks"] for server in status["chunkservers"]) == 3 * status["chunks"]["total"]
    is_idle = not status["rebalance"]["waiting"] and not status["rebalance"]["under_way"]
    return len(used) == 4 and max(abs(each - mean) for each in used) < 0.15 * mean and whole and is_idle


@pytest.mark.parametrize("killed", ["", "helenite.master", "newest"])
def test_a_new_server_is_filled(tmp_path: Path, killed: str) -> None:
    cluster = Cluster(tmp_path / "c", "--workers", "1", environment=SETTINGS)
    try:
        cluster.start()
        contents = fill(cluster, 90, large_every=3, large_bytes=900_000)
        cluster.stop()
        cluster.options = ("--workers", "1", "--chunkservers", "4")
        cluster.start()
        wait_until(lambda: newest(cluster.status())["chunks"] > 3, within_s=30)
        if killed == "newest":
            psutil.Process(newest(cluster.status())["pid"]).kill()
        elif killed:
            cluster.child(killed).kill()
        check(cluster, contents)
        wait_until(lambda: is_balanced(cluster.status()), within_s=60)
        check(cluster, contents)
        cluster.check_fsck()
    finally:
        cluster.stop()
