"""Metadata lost and found: a dump made while the cluster runs, Redis' directory gone, a load, everything readable."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from helenite.core.dumpfile import check_dump
from tests.support.cluster import Cluster, run_helenite
from tests.support.waiting import wait_until

HOURLY = {"HELENITE_DUMP_S": "1", "HELENITE_DUMPS_KEPT": "2"}


def put(cluster: Cluster, name: str, content: bytes) -> None:
    httpx.put(f"{cluster.url}{name}", content=content, timeout=60).raise_for_status()


def load(cluster: Cluster, file: str, *options: str) -> subprocess.CompletedProcess[str]:
    return run_helenite("load", file, "--dir", str(cluster.directory), *options)


def holds(cluster: Cluster, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        assert httpx.get(f"{cluster.url}{name}", timeout=60).content == content, name


def test_what_a_dump_holds_is_there_again(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "metadata.dump"
    early = {f"early {i}": os.urandom(5_000) for i in range(20)} | {"large": os.urandom(20 << 20)}
    cluster.start()
    for name, content in early.items():
        put(cluster, name, content)
    assert cluster.helenite("user", "ls").returncode == 0
    dumped = cluster.helenite("dump", str(file), "--json")
    assert dumped.returncode == 0, dumped.stderr
    assert json.loads(dumped.stdout)["bytes"] == file.stat().st_size
    put(cluster, "late", b"written after the dump")
    httpx.delete(f"{cluster.url}early 3", timeout=60).raise_for_status()
    busy = load(cluster, str(file))
    assert (busy.returncode, "already running" in busy.stderr) == (2, True)
    cluster.stop()
    refused = load(cluster, str(file))
    assert refused.returncode == 1
    assert "--replace" in refused.stderr
    shutil.rmtree(cluster.directory / "redis")
    loaded = load(cluster, str(file))
    assert loaded.returncode == 0, loaded.stderr
    assert "keys of" in loaded.stdout
    cluster.start()
    holds(cluster, early)
    assert httpx.get(f"{cluster.url}late", timeout=60).status_code == 404
    assert "dump of" in cluster.status()["deleting_stopped"]
    cluster.check_fsck()
    assert cluster.helenite("gc", "resume").returncode == 0
    put(cluster, "new", b"after the load")
    holds(cluster, {"new": b"after the load", **early})


def test_chunkservers_keep_dumps_and_the_newest_is_loaded_when_redis_is_lost(cluster: Cluster) -> None:
    cluster.environment = HOURLY
    cluster.start()
    put(cluster, "a", b"content")
    places = [cluster.directory / f"chunkserver-{number}" / "dumps" for number in (1, 2, 3)]
    wait_until(lambda: all(len(list(place.glob("*.dump"))) == 2 for place in places), 30)
    # One more that surely was made after the file.
    before = {path for place in places for path in place.glob("*.dump")}
    wait_until(lambda: not before & {path for place in places for path in place.glob("*.dump")}, 30)
    cluster.stop()
    assert not [path for place in places for path in place.glob("new-*")]
    shutil.rmtree(cluster.directory / "redis")
    with pytest.raises(AssertionError, match="helenite load latest"):
        cluster.start()  # leaves an empty namespace of another cluster behind, which nobody has to ask for
    cluster.forget()
    loaded = load(cluster, "latest")
    assert loaded.returncode == 0, loaded.stderr
    cluster.environment = {}
    cluster.start()
    holds(cluster, {"a": b"content"})


def test_a_damaged_dump_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "metadata.dump"
    cluster.start()
    assert cluster.helenite("dump", str(file)).returncode == 0
    cluster.stop()
    check_dump(file)
    whole = file.read_bytes()
    middle = bytes([whole[len(whole) // 2] ^ 1])
    for damaged in (
        whole[:-1],
        whole[:100],
        b"",
        b"x" * 5000,
        whole[: len(whole) // 2] + middle + whole[len(whole) // 2 + 1 :],
    ):
        file.write_bytes(damaged)
        refused = load(cluster, str(file), "--replace")
        assert refused.returncode == 1, refused
        assert str(file) in refused.stderr
