"""Files in a cluster for tests that only want some: put through WebDAV, and compared later."""

from __future__ import annotations

import os

import httpx

from tests.support.cluster import Cluster


def fill(cluster: Cluster, count: int, *, large_every: int, large_bytes: int) -> dict[str, bytes]:
    """Write files, most of them small; their contents by name."""
    contents = {f"{number}": os.urandom(20_000 if number % large_every else large_bytes) for number in range(count)}
    with httpx.Client(base_url=cluster.url, timeout=60) as client:
        for name, content in contents.items():
            client.put(f"/{name}", content=content).raise_for_status()
    return contents


def check(cluster: Cluster, contents: dict[str, bytes]) -> None:
    """All are what they were."""
    with httpx.Client(base_url=cluster.url, timeout=60) as client:
        for name, content in contents.items():
            assert client.get(f"/{name}").content == content
