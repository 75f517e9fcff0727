"""Disks that fail: reads, writes, syncs and everything else of one chunkserver's disk, and the syncs of Redis' disk.

Real processes with a preloaded library that refuses their system calls. No request fails for one bad disk, nothing that
lies on it is given up, and all is well soon after it is.
"""

from __future__ import annotations

import errno
import random
from pathlib import Path

import httpx

from tests.chaos.findings import Findings
from tests.support import manifest
from tests.support.cluster import Cluster
from tests.support.load import failures_after, load, work_goes_on
from tests.support.manifest import Content, Manifest, read_tree
from tests.support.processes import of_role
from tests.support.rot import find_replicas
from tests.support.sick_disk import EVERYTHING, READS, SHORT, SYNCS, WRITES, Failure, SickDisk
from tests.support.waiting import wait_until

ENVIRONMENT = {
    "HELENITE_SUSPECT_AFTER_S": "4",
    "HELENITE_DEAD_AFTER_S": "6",
    "HELENITE_SCRUB_S": "5",
    "HELENITE_SCRUB_BYTES_PER_S": "500MiB",
    "HELENITE_CHUNK_BYTES": "2MiB",
}
NOTICED_S = 30.0
HEALED_S = 60.0


def started(directory: Path, disk: SickDisk, *options: str, **environment: str) -> Cluster:
    return Cluster(directory, "--workers", "1", *options, environment=ENVIRONMENT | disk.environment | environment)


def disk_of(cluster: Cluster, number: int) -> str:
    return f"{cluster.directory}/chunkserver-{number}/"


def said(cluster: Cluster, name: str) -> str:
    return (cluster.directory / "logs" / f"{name}.log").read_text()


def states(cluster: Cluster) -> list[str]:
    return sorted(server["state"] for server in cluster.status()["chunkservers"])


def heals(cluster: Cluster) -> None:
    wait_until(lambda: set(states(cluster)) == {"alive"}, HEALED_S)
    wait_until(lambda: cluster.helenite("fsck").returncode == 0, HEALED_S)


def test_a_disk_that_cannot_be_read(tmp_path: Path, disk: SickDisk, rng: random.Random) -> None:
    """Readers get the right bytes from elsewhere, where repair makes up for it. On it, nothing is deleted."""
    findings = Findings()
    with started(tmp_path / "c", disk, "--chunkservers", "4") as cluster:
        where = disk_of(cluster, 2)
        with load(cluster, rng, findings, disk.recover, clients=4):
            work_goes_on(findings, 60)
            with disk.failing(Failure(where, READS, SHORT)):  # which is no error
                work_goes_on(findings)
            assert findings.failures == []
            held = {replica.handle for replica in find_replicas(Path(where))}
            with disk.failing(Failure(where, READS)):
                wait_until(lambda: "THE DISK IS SICK" in said(cluster, "chunkserver-2"), NOTICED_S)
                wait_until(lambda: states(cluster) == ["alive", "alive", "alive", "dead"], NOTICED_S)
                wait_until(lambda: cluster.status()["chunks"]["under_replicated"] == 0, NOTICED_S)
                work_goes_on(findings)
                assert len(held) > 20
                assert held <= {replica.handle for replica in find_replicas(Path(where))}
                assert "is corrupt or missing" not in said(cluster, "master-1")
            wait_until(lambda: "the disk is well again" in said(cluster, "chunkserver-2"), NOTICED_S)
            work_goes_on(findings)
        assert failures_after(findings, 0) == []
        heals(cluster)
        assert "is corrupt" not in said(cluster, "chunkserver-2")


def test_a_disk_that_cannot_be_written(tmp_path: Path, disk: SickDisk, rng: random.Random) -> None:
    """Others take the chunks. What a failed sync left behind is not believed, not even after a crash."""
    findings = Findings()
    with started(tmp_path / "c", disk) as cluster:
        where = disk_of(cluster, 3)
        with load(cluster, rng, findings, disk.recover, clients=8):
            work_goes_on(findings, 60)
            for calls, number in ((WRITES, errno.EIO), (SYNCS, errno.EIO), (WRITES + SYNCS + "n", errno.EROFS)):
                with disk.failing(Failure(where, calls, number)):
                    work_goes_on(findings, 60)
                work_goes_on(findings)
            of_role(cluster, "chunkserver")[2].kill()
            work_goes_on(findings)
        assert failures_after(findings, 0) == []
        heals(cluster)


def test_a_disk_that_fails_from_the_start(tmp_path: Path, disk: SickDisk, rng: random.Random) -> None:
    """The cluster starts with the others, and takes it in when it is well; nothing on it is lost."""
    told = Manifest()
    cluster = started(tmp_path / "c", disk)
    where = disk_of(cluster, 1)
    with cluster:
        write_files(cluster, told, "before", 30, rng)
        cluster.check_fsck()
        cluster.kill_everything()
        for calls in (EVERYTHING, READS):  # with READS, the index of small chunks cannot be rebuilt
            with disk.failing(Failure(where, calls)):
                cluster.start()
                write_files(cluster, told, f"without {calls}", 10, rng)
                wait_until(lambda: "the disk" in said(cluster, "chunkserver-1").splitlines()[-1], NOTICED_S)
                wait_until(lambda: states(cluster) == ["alive", "alive", "dead"], NOTICED_S)
            heals(cluster)
            if calls == EVERYTHING:
                cluster.kill_everything()
        with httpx.Client(base_url=cluster.url, timeout=60) as client:
            assert told.settle(read_tree(client, "")) == []


def test_redis_cannot_sync(tmp_path: Path, disk: SickDisk, rng: random.Random) -> None:
    """Redis ends rather than lie, and is started again and again: 503 meanwhile, nothing acknowledged is missing."""
    findings = Findings()
    with started(tmp_path / "c", disk, HELENITE_DEADLINE_S="4") as cluster:
        with load(cluster, rng, findings, disk.recover):
            work_goes_on(findings)
            with disk.failing(Failure(f"{cluster.directory}/redis/", SYNCS)):
                wait_until(lambda: len(findings.failures) > 2, NOTICED_S)
            work_goes_on(findings, 40, HEALED_S)
        assert [found for found in findings.failures if not found.why.startswith("503 ")] == []
        heals(cluster)


def write_files(cluster: Cluster, told: Manifest, prefix: str, count: int, rng: random.Random) -> None:
    with httpx.Client(base_url=cluster.url, timeout=60) as client:
        for number in range(count):
            path, content = f"{prefix} {number}", Content(rng.getrandbits(40), rng.choice((4_000, 60_000, 2_500_000)))
            client.put(f"/{path}", content=content.whole()).raise_for_status()
            told.happened(manifest.put(path, content))
