"""Networks delay, fall apart and hang half-open between two parts: clients do not notice, or hear the truth."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import httpx

from tests.chaos.findings import Findings
from tests.support import manifest
from tests.support.cluster import Cluster
from tests.support.load import failures_after, load, work_goes_on
from tests.support.manifest import Content, Manifest, read_tree
from tests.support.parts import Parts
from tests.support.ports import free_port, free_ports
from tests.support.proxy import Proxy
from tests.support.redis import running_redis
from tests.support.waiting import wait_until

CUT_STALL_S = {"GET": 3.0, "PUT": 5.0}
"""Longest time that a chunkserver which nobody reaches costs one request."""
USUAL = 5
"""Times the slowest request before: what a busy machine may cost besides."""
REDIS_PARTITION_S = 3.0
REDIS_DELAY_S = 0.2
FAULT_S = 1.0
HEALED_S = 60.0
LIVENESS = {"HELENITE_SUSPECT_AFTER_S": "2", "HELENITE_DEAD_AFTER_S": "4"}


def test_redis_is_cut_off_or_far_away(tmp_path: Path, rng: random.Random) -> None:
    """Requests wait or get 503, nothing is doubled, and what was on its way arrives late."""
    findings = Findings()
    with (
        running_redis(durable=True) as server,
        Proxy(Path(server.url.removeprefix("unix://").partition("?")[0])) as proxy,
        Cluster(
            tmp_path / "c",
            "--workers",
            "1",
            environment={"HELENITE_REDIS_URL": f"redis://{proxy.address}/0", "HELENITE_DEADLINE_S": "8"},
        ) as cluster,
    ):
        with load(cluster, rng, findings, proxy.heal):
            work_goes_on(findings)
            proxy.partition()
            threading.Event().wait(REDIS_PARTITION_S)
            assert proxy.kept_count > 0
            proxy.heal()
            work_goes_on(findings)
            proxy.refuse()
            wait_until(lambda: bool(findings.failures), 20)
            proxy.heal()
            work_goes_on(findings)
            healed_at = time.monotonic()
            proxy.delay(REDIS_DELAY_S)
            work_goes_on(findings, 10, 60)
            proxy.heal()
            work_goes_on(findings)
        assert [found for found in findings.failures if not found.why.startswith("503 ")] == []
        assert failures_after(findings, healed_at) == []
        cluster.check_fsck()


def behind_proxies(control: int, data: int) -> dict[str, str]:
    """A chunkserver that others reach at 127.0.0.2, where proxies listen."""
    return {
        "HELENITE_CHUNKSERVER_LISTEN": f"127.0.0.1:{control}",
        "HELENITE_DATA_LISTEN": f"127.0.0.1:{data}",
        "HELENITE_ADVERTISE_HOST": "127.0.0.2",
    }


def test_a_data_port_is_cut_off(tmp_path: Path, rng: random.Random) -> None:
    """While the master hears the chunkserver as ever: no request fails, and stalls are short."""
    findings = Findings()
    control, data = free_ports(2)
    with (
        Proxy(f"127.0.0.1:{control}", f"127.0.0.2:{control}"),
        Proxy(f"127.0.0.1:{data}", f"127.0.0.2:{data}") as proxy,
        Parts(tmp_path / "c", of={"chunkserver-1": behind_proxies(control, data)}) as cluster,
    ):
        for path in cluster.directory.glob("chunkserver-*/data.sock"):
            path.unlink()  # as on hosts of their own
        with load(cluster, rng, findings, proxy.heal):
            work_goes_on(findings, 100)
            allowed_s = {method: s + USUAL * findings.slowest_s[method] for method, s in CUT_STALL_S.items()}
            for fault, lasts_s in (
                (proxy.partition, max(allowed_s.values()) + FAULT_S),  # too long for whoever waits for its end
                (proxy.lose_replies, FAULT_S),
                (proxy.lose_requests, FAULT_S),
                (proxy.refuse, FAULT_S),
            ):
                passed = proxy.passed_bytes
                assert passed > 0
                fault()
                threading.Event().wait(lasts_s)
                work_goes_on(findings)
                proxy.cut()
                proxy.heal()
                wait_until(lambda passed=passed: proxy.passed_bytes > passed, 30)  # it is used again
        assert failures_after(findings, 0) == []
        for method, most_s in allowed_s.items():
            assert findings.slowest_s[method] < most_s, (findings.slowest_s, allowed_s)
        wait_until(lambda: cluster.helenite("fsck").returncode == 0, HEALED_S)


def test_a_chunkserver_is_cut_off_from_the_master(tmp_path: Path, rng: random.Random) -> None:
    """It is suspect, then dead, its chunks are copied; when it is back, surplus replicas go.

    Masters are known by two addresses: the others by their settings, the one cut off by the proxy's only.
    """
    port = free_port()
    master = f"127.0.0.1:{port}"
    told = Manifest()
    with (
        Proxy(master, f"127.0.0.2:{port}") as proxy,
        Parts(
            tmp_path / "c",
            chunkservers=4,
            master=master,
            environment=LIVENESS | {"HELENITE_MASTER_ADVERTISE": proxy.address},
            of={"chunkserver-1": {"HELENITE_MASTERS": proxy.address}},
        ) as cluster,
        httpx.Client(base_url=cluster.url, timeout=60) as client,
    ):
        write_files(client, told, "before", 60, rng)
        wait_until(lambda: all(server["chunks"] > 10 for server in cluster.status()["chunkservers"]), 60)
        proxy.partition()
        write_files(client, told, "unnoticed", 10, rng)
        wait_until(lambda: states(cluster).count("alive") == 3, 60)  # suspect, or dead if this machine is slow
        write_files(client, told, "suspect", 10, rng)
        wait_until(lambda: states(cluster).count("dead") == 1, 60)
        write_files(client, told, "dead", 10, rng)
        wait_until(lambda: states(cluster).count("alive") == 3, 60)
        wait_until(lambda: cluster.status()["chunks"]["under_replicated"] == 0, HEALED_S)
        wait_until(lambda: surplus(cluster) > 0, 60)  # it still holds what others hold for it now, as they soon say
        proxy.heal()
        wait_until(lambda: states(cluster).count("alive") == 4, 60)
        wait_until(lambda: surplus(cluster) == 0, HEALED_S)
        wait_until(lambda: cluster.helenite("fsck").returncode == 0, HEALED_S)
        assert told.settle(read_tree(client, "")) == []


def write_files(client: httpx.Client, told: Manifest, prefix: str, count: int, rng: random.Random) -> None:
    for number in range(count):
        path, content = f"{prefix} {number}", Content(rng.getrandbits(40), rng.choice((4_000, 60_000, 1_500_000)))
        client.put(f"/{path}", content=content.whole()).raise_for_status()
        told.happened(manifest.put(path, content))


def states(cluster: Cluster) -> list[str]:
    return [server["state"] for server in cluster.status()["chunkservers"]]


def surplus(cluster: Cluster) -> int:
    """Replicas beyond three of each chunk."""
    status = cluster.status()
    return sum(server["chunks"] for server in status["chunkservers"]) - 3 * status["chunks"]["total"]
