"""Clients that work while a test makes something fail, and are asked afterwards whether all is as they were told."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx

from tests.chaos.findings import Findings
from tests.chaos.load import Load
from tests.chaos.shared import check_shared, prepare_shared
from tests.support.cluster import Cluster
from tests.support.waiting import wait_until


@contextmanager
def load(
    cluster: Cluster, rng: random.Random, findings: Findings, heal: Callable[[], None], clients: int = 3
) -> Iterator[None]:
    """Clients work meanwhile; at the end, all healed, every one's tree is what it was told, byte by byte."""
    with httpx.Client(base_url=cluster.url, timeout=60) as client:
        prepare_shared(client)
    working = [Load(cluster.url, number, rng.getrandbits(32), findings) for number in range(1, clients + 1)]
    stopping = threading.Event()
    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(each.run, stopping) for each in working]
        try:
            yield
        finally:
            heal()
            stopping.set()
        for task in running:
            task.result()
    for each in working:
        each.settle()
        each.close()
    with httpx.Client(base_url=cluster.url, timeout=60) as client:
        check_shared(client, findings)
    assert findings.violations == []
    assert sum(findings.operations.values()) > 50


def work_goes_on(findings: Findings, operations: int = 20, within_s: float = 120.0) -> None:
    """So many more are acknowledged."""
    before = sum(findings.operations.values())
    wait_until(lambda: sum(findings.operations.values()) >= before + operations, within_s)


def failures_after(findings: Findings, moment: float) -> list[str]:
    return [f"{found.what}: {found.why}" for found in findings.failures if found.began_at > moment]
