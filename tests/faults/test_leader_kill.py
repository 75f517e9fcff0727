"""kill -9 of the leading master at random moments, under clients that write, move, copy, lock and delete.

Each operation happened exactly once or not at all and its client was told the truth: every client's manifest says so,
and the counter that all of them raise under If-Match. The other master leads within five seconds.
"""

from __future__ import annotations

import random
import statistics
import threading
import time
from pathlib import Path

import psutil
import pytest

from helenite.client.rpc import MasterRpc
from helenite.core.errors import UnavailableError
from helenite.core.pb import common_pb2, master_pb2
from tests.chaos.findings import Findings
from tests.support.cluster import Cluster
from tests.support.load import load

CLIENTS = 4
LEADS_WITHIN_S = 5.0


def leader(rpc: MasterRpc, *, with_standby: bool = False) -> master_pb2.Member | None:
    """The leading master, as any master says; if asked for, only when another stands by."""
    try:
        masters = rpc.admin("GetStatus", common_pb2.Empty()).masters
    except UnavailableError:
        return None
    standing_by = [master for master in masters if master.state == "standby" and psutil.pid_exists(master.pid)]
    if with_standby and not standing_by:
        return None
    return next((master for master in masters if master.state == "leader"), None)


def wait_for_leader(rpc: MasterRpc, but_not: int = 0, *, with_standby: bool = False) -> master_pb2.Member:
    deadline = time.monotonic() + 30
    while (found := leader(rpc, with_standby=with_standby)) is None or found.pid == but_not:
        assert time.monotonic() < deadline, "nobody leads"
        threading.Event().wait(0.02)
    return found


def kill_leaders(cluster: Cluster, times: int, rng: random.Random) -> list[float]:
    """Kill whoever leads when another stands by, again and again; how long it took each time until that one led."""
    took: list[float] = []
    rpc = MasterRpc(cluster.masters, 5.0)
    try:
        for _ in range(times):
            victim = wait_for_leader(rpc, with_standby=True).pid
            threading.Event().wait(rng.uniform(0.05, 1.0))
            psutil.Process(victim).kill()
            began = time.monotonic()
            wait_for_leader(rpc, but_not=victim)
            took.append(time.monotonic() - began)
    finally:
        rpc.close()
    return took


@pytest.mark.parametrize("times", [8, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(1500)])])
def test_each_operation_happens_once_or_not_at_all(tmp_path: Path, times: int, rng: random.Random) -> None:
    findings = Findings()
    with Cluster(tmp_path / "c", "--masters", "2", "--workers", "2") as cluster:
        with load(cluster, rng, findings, heal=lambda: None, clients=CLIENTS):
            took = kill_leaders(cluster, times, rng)
        cluster.check_fsck()
    assert [f"{failure.what}: {failure.why}" for failure in findings.failures] == []
    assert statistics.median(took) < LEADS_WITHIN_S, took
    assert max(took) < 3 * LEADS_WITHIN_S, took  # while four clients keep this machine busy, one may take longer
    print(f"{sum(findings.operations.values())} operations; another leads after {sorted(took)}")  # noqa: T201
