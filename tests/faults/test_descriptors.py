"""Processes without a file descriptor left: clients are turned away or served by others, and nobody spins.

A running process gets a limit a little above what it uses, and idle connections take the rest.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil

from helenite.core.process import REPEAT_S
from tests.chaos.findings import Findings
from tests.support import manifest
from tests.support.cluster import Cluster
from tests.support.load import failures_after, load, work_goes_on
from tests.support.manifest import Content, Manifest, read_tree
from tests.support.processes import data_directory, of_role
from tests.support.waiting import wait_until

LEFT = 25
"""Descriptors that a process may still open."""
CONNECTIONS = 120
MEASURE_S = 2.0
CPU_S_MAX = 0.6
"""Of MEASURE_S: a loop that spins takes nearly all of it."""
HEALED_S = 60.0


def address_of(process: psutil.Process) -> tuple[str, int]:
    """Where it listens for HTTP or gRPC: the first of its ports."""
    listening = [each.laddr for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    return listening[0].ip, listening[0].port


@contextmanager
def exhausted(process: psutil.Process, *addresses: tuple[str, int]) -> Iterator[None]:
    """No descriptor is left, for silent connections hold all that the process may have."""
    usual = process.rlimit(psutil.RLIMIT_NOFILE)
    limit = process.num_fds() + LEFT
    process.rlimit(psutil.RLIMIT_NOFILE, (limit, usual[1]))
    try:
        with ExitStack() as held:
            for number in range(CONNECTIONS):
                held.enter_context(socket.create_connection(addresses[number % len(addresses)], timeout=5))
            wait_until(lambda: process.num_fds() >= limit - 2)
            yield
    finally:
        process.rlimit(psutil.RLIMIT_NOFILE, usual)


def cpu_s(process: psutil.Process) -> float:
    """What it uses in MEASURE_S."""
    before = process.cpu_times()
    threading.Event().wait(MEASURE_S)
    after = process.cpu_times()
    return (after.user + after.system) - (before.user + before.system)


def lines_about_descriptors(cluster: Cluster, name: str) -> int:
    return (cluster.directory / "logs" / f"{name}.log").read_text().count("no descriptor is left")


def lines_max(began: float) -> int:
    """Two shortages since this moment; a line that comes again is logged once a minute."""
    return 2 + int((time.monotonic() - began) / REPEAT_S)


def test_a_gateway_without_descriptors(tmp_path: Path) -> None:
    """New clients hear 503 or are refused, at once; who is connected is served; idle connections make room."""
    content = Content(1, 3_000_000)
    began = time.monotonic()
    with Cluster(tmp_path / "c", "--workers", "1") as cluster:
        (worker,) = of_role(cluster, "worker")
        with httpx.Client(base_url=cluster.url, timeout=10) as connected:
            connected.put("/file", content=content.whole()).raise_for_status()
            assert connected.get("/file").content == content.whole()
            with exhausted(worker, address_of(worker)):
                turned_away = fresh_status(cluster)
                assert turned_away in {0, 503}, turned_away
                reply = connected.get("/file")
                assert reply.status_code == 503 or reply.content == content.whole()
                wait_until(lambda: fresh_status(cluster) == 200, HEALED_S)  # in place of the idle ones
            with exhausted(worker, address_of(worker)):
                assert cpu_s(worker) < CPU_S_MAX
            wait_until(lambda: fresh_status(cluster) == 200, HEALED_S)
        assert httpx.get(cluster.url + "file", timeout=60).content == content.whole()
        assert 1 <= lines_about_descriptors(cluster, "gateway") <= lines_max(began)
        cluster.check_fsck()


def fresh_status(cluster: Cluster) -> int:
    """What a new client hears; 0 when its connection is refused or ended, -1 when it hears nothing."""
    try:
        return httpx.get(cluster.url + "file", timeout=10).status_code
    except httpx.TimeoutException:
        return -1
    except (httpx.NetworkError, httpx.RemoteProtocolError):
        return 0


def test_a_chunkserver_without_descriptors(tmp_path: Path, rng: random.Random) -> None:
    """Other replicas are read, other servers written to."""
    findings = Findings()
    began = time.monotonic()
    with Cluster(tmp_path / "c", "--workers", "1") as cluster:
        server = of_role(cluster, "chunkserver")[1]
        number = data_directory(server).name
        ports = [each.laddr for each in server.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
        with load(cluster, rng, findings, lambda: None):
            work_goes_on(findings)
            with exhausted(server, *[(port.ip, port.port) for port in ports]):
                work_goes_on(findings, 40)
            work_goes_on(findings, 40)
        with exhausted(server, *[(port.ip, port.port) for port in ports]):
            assert cpu_s(server) < CPU_S_MAX
        assert failures_after(findings, 0) == []
        assert 1 <= lines_about_descriptors(cluster, number) <= lines_max(began)
        wait_until(lambda: cluster.helenite("fsck").returncode == 0, HEALED_S)


def test_a_master_without_descriptors(tmp_path: Path) -> None:
    """Gateways and chunkservers are connected already: all goes on."""
    told = Manifest()
    with Cluster(tmp_path / "c", "--workers", "1") as cluster:
        (master,) = of_role(cluster, "master")
        with httpx.Client(base_url=cluster.url, timeout=30) as client:
            with exhausted(master, address_of(master)):
                for number in range(20):
                    content = Content(number, 50_000)
                    client.put(f"/{number}", content=content.whole()).raise_for_status()
                    told.happened(manifest.put(str(number), content))
                assert cpu_s(master) < CPU_S_MAX
            assert told.settle(read_tree(client, "")) == []
        wait_until(lambda: cluster.helenite("status").returncode == 0, 20)
        cluster.check_fsck()
