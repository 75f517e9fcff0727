"""Bits flip, files are cut short, files vanish: readers get the right bytes, the scrub finds every damage, repair
replaces it.

All replicas of a chunk but one are damaged at the same time, which is all that three copies promise to survive.
"""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from pathlib import Path

import httpx
import pytest

from tests.support.cluster import Cluster
from tests.support.manifest import Content
from tests.support.rot import Replica, damage, find_replicas
from tests.support.waiting import wait_until

SCRUB_S = 5
ENVIRONMENT = {
    "HELENITE_SUSPECT_AFTER_S": "3",
    "HELENITE_DEAD_AFTER_S": "6",
    "HELENITE_SCRUB_S": str(SCRUB_S),
    "HELENITE_SCRUB_BYTES_PER_S": "500MiB",
    "HELENITE_CHUNK_BYTES": "2MiB",
}
REPAIRED_S = 120.0


def fill(url: str, damages: int, rng: random.Random) -> dict[str, Content]:
    """Files of all kinds, with at least half as many chunks as there will be damages."""
    contents: dict[str, Content] = {}
    chunks = 0
    with httpx.Client(base_url=url, timeout=60) as client:
        while chunks < damages // 2 + 5:
            size = rng.choice((50, 4_096, 65_537, 300_000, 1_200_000, 5_000_000))
            content = Content(len(contents), size)
            client.put(f"/{len(contents)}", content=content.whole()).raise_for_status()
            contents[f"/{len(contents)}"] = content
            chunks += -(-size // (2 << 20))
    return contents


def check(url: str, contents: dict[str, Content]) -> None:
    with httpx.Client(base_url=url, timeout=60) as client:
        for path, content in contents.items():
            reply = client.get(path)
            assert reply.status_code == 200, f"{path}: {reply.text}"
            assert reply.content == content.whole(), f"{path} has wrong bytes"


def choose_victims(directory: Path, count: int, rng: random.Random) -> list[Replica]:
    """At most all replicas but one of each chunk, from every server."""
    held: dict[int, list[Replica]] = defaultdict(list)
    for number in (1, 2, 3):
        for replica in find_replicas(directory / f"chunkserver-{number}"):
            held[replica.handle].append(replica)
    chosen: list[Replica] = []
    for handle in sorted(held):
        assert len(held[handle]) == 3, f"chunk {handle:x} has {len(held[handle])} replicas"
        chosen += rng.sample(held[handle], 2)
    rng.shuffle(chosen)
    assert len(chosen) >= count
    return chosen[:count]


def scrubbed_since_ms(directory: Path) -> int:
    """When the last pass that every server has completed began."""
    passes = [json.loads(path.read_text()) for path in directory.glob("chunkserver-*/scrub.json")]
    return min((each["verified_since_ms"] for each in passes), default=0) if len(passes) == 3 else 0


def has_all_replicas(cluster: Cluster) -> bool:
    status = cluster.status()
    held = sum(server["chunks"] for server in status["chunkservers"])
    return status["chunks"]["under_replicated"] == 0 and held >= 3 * status["chunks"]["total"]


@pytest.mark.parametrize("damages", [150, pytest.param(1000, marks=pytest.mark.slow)])
def test_damage_to_all_replicas_but_one(tmp_path: Path, damages: int, rng: random.Random) -> None:
    with Cluster(tmp_path / "c", "--workers", "1", environment=ENVIRONMENT) as cluster:
        contents = fill(cluster.url, damages, rng)
        wait_until(lambda: has_all_replicas(cluster), REPAIRED_S)
        cluster.check_fsck()
        for victim in choose_victims(cluster.directory, damages, rng):
            damage(victim, rng)
        check(cluster.url, contents)
        damaged_at_ms = time.time_ns() // 1_000_000
        # What readers did not come across is the scrub's to find: fsck, which reads everything itself, comes last.
        wait_until(lambda: scrubbed_since_ms(cluster.directory) > damaged_at_ms, REPAIRED_S)
        wait_until(lambda: has_all_replicas(cluster), REPAIRED_S)
        done = cluster.helenite("fsck")
        assert done.returncode == 0, f"the scrub and repair left this to fsck: {done.stdout}"
        check(cluster.url, contents)
