"""Large files between two real agents on a real cluster: how much of them travels.

Bytes are counted at the sockets, in a proxy before the gateway for each agent.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from helenite.core.paths import ROOT
from syncagent.names import STATE_DIRECTORY
from tests.support.cluster import Cluster
from tests.support.proxy import Proxy
from tests.support.sync_agents import Agent, ServerView
from tests.support.waiting import wait_until

MIB = 1 << 20
GIB = 1 << 30
SIZE = 256 * MIB
SOON_S = 20
"""A gigabyte takes longer at the rates that these tests allow."""
SAVES, SAVE_S = 5, 6.0
"""So many small saves beside a gigabyte, and so long the middle one of them may take."""
NAME = "disk.img"
CONTENT = random.Random(3).randbytes(32 * MIB)


class Device(Agent):
    """An agent whose bytes on the wire are counted."""

    def __init__(self, base: Path, name: str, upstream: str) -> None:
        super().__init__(base, name)
        self.proxy = Proxy(upstream)
        self.add(f"http://{self.proxy.address}/large")
        self.start()

    @property
    def file(self) -> Path:
        return self.folder / NAME

    def size(self, name: str) -> int:
        return (self.folder / name).stat().st_size

    def digest(self, name: str) -> bytes:
        with (self.folder / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[tuple[Device, Device]]:
    with Cluster(tmp_path / "data", "--workers", "2") as cluster:
        upstream = urlsplit(cluster.url).netloc
        found = Device(tmp_path, "anna", upstream), Device(tmp_path, "bert", upstream)
        yield found
        check(ServerView(f"{cluster.url}large", tmp_path / "scratch"), *found)
        for device in found:
            device.stop()
            device.proxy.close()
        cluster.check_fsck()


def check(server: ServerView, *devices: Device) -> None:
    """As `settle` does, without gigabytes in memory: both have what the server has, and nothing is left to do."""
    there = {entry.path[-1]: (entry.stamp.size, entry.digest) for entry in server.remote.list(ROOT)}
    token = server.remote.token()
    for device in devices:
        names = {path.name for path in device.folder.iterdir()} - {STATE_DIRECTORY}
        assert {name: (device.size(name), device.digest(name)) for name in names} == there
        device.look_everywhere()
        assert device.staged() == []
        assert device.status()["crashes"] == 0, device.log.read_text()[-5000:]
    assert server.remote.token() == token, "a cycle after all was equal has written something"
    server.remote.close()


def arrive(sender: Device, receiver: Device, name: str = NAME) -> tuple[int, int]:
    """Wait until both have the same and are quiet; the bytes that each had on the wire since the last time."""
    wanted = sender.digest(name)

    def is_there() -> bool:
        is_complete = (receiver.folder / name).exists() and receiver.digest(name) == wanted
        return is_complete and sender.is_settled() and receiver.is_settled()

    wait_until(is_there, 120)
    # What is remembered for the next time is made in the background.
    for device in (sender, receiver):
        wait_until(lambda device=device: is_learnt(device), 30)
    passed = sender.proxy.passed_bytes, receiver.proxy.passed_bytes
    sender.proxy.passed_bytes = receiver.proxy.passed_bytes = 0
    return passed


def is_learnt(device: Device) -> bool:
    files = [file for file in device.home.path.rglob("large/*") if file.suffix != ".new"]
    return bool(files) and all('"pieces": ""' not in file.read_text() for file in files)


def test_of_a_large_file_only_what_is_different_travels(devices: tuple[Device, Device]) -> None:
    anna, bert = devices
    chance = random.Random(1)
    anna.file.write_bytes(b"".join(chance.randbytes(MIB) for _ in range(SIZE // MIB)))
    sent, received = arrive(anna, bert)
    assert min(sent, received) > SIZE
    with anna.file.open("r+b") as file:  # changed in its middle, in place
        file.seek(SIZE // 2)
        file.write(chance.randbytes(4096))
    assert max(arrive(anna, bert)) < 3 * MIB
    fresh = anna.home.path / "fresh"  # inserted at its start, saved safely, on the other device
    fresh.write_bytes(chance.randbytes(4096) + bert.file.read_bytes())
    fresh.replace(bert.file)
    assert max(arrive(bert, anna)) < 24 * MIB
    (anna.folder / "copy.img").write_bytes(anna.file.read_bytes())  # a copy travels neither up nor down
    assert max(arrive(anna, bert, "copy.img")) < MIB
    anna.stop()  # what is remembered outlives the process
    anna.start()
    with anna.file.open("r+b") as file:
        file.seek(SIZE // 3)
        file.write(chance.randbytes(4096))
    assert max(arrive(anna, bert)) < 3 * MIB


def test_a_file_that_both_sides_have_already_need_not_travel(devices: tuple[Device, Device]) -> None:
    anna, bert = devices
    for device in devices:
        device.stop()
        device.file.write_bytes(CONTENT)
    for device in devices:
        device.start()
    arrive(anna, bert)
    with bert.file.open("r+b") as file:
        file.seek(len(CONTENT) // 2)
        file.write(b"changed")
    assert max(arrive(bert, anna)) < 3 * MIB


def test_of_a_file_that_was_only_touched_nothing_travels(devices: tuple[Device, Device]) -> None:
    anna, bert = devices
    anna.file.write_bytes(CONTENT)
    arrive(anna, bert)
    os.utime(anna.file, (1_700_000_000, 1_700_000_000))
    wait_until(lambda: bert.file.stat().st_mtime == 1_700_000_000, 60)
    assert max(arrive(anna, bert)) < 10_000  # what says so, and the answers


def test_an_upload_goes_on_after_the_agent_was_killed(devices: tuple[Device, Device]) -> None:
    anna, bert = devices
    anna.command("limit", "--up", "64M")
    anna.file.write_bytes(b"".join(random.Random(2).randbytes(MIB) for _ in range(2 * SIZE // MIB)))
    wait_until(lambda: anna.proxy.passed_bytes > 200 * MIB, 60)  # one part of 192 MiB is there
    anna.kill()
    assert list(bert.folder.glob("*.img")) == []
    anna.proxy.passed_bytes = bert.proxy.passed_bytes = 0
    anna.start()
    anna.command("limit", "--up", "0")
    sent, received = arrive(anna, bert)
    assert sent < 2 * SIZE - 150 * MIB  # what the killed one had in its sockets counts too
    assert received < 2 * SIZE + MIB
    assert not list((anna.home.path).rglob("drafts/*"))


def save_gigabyte(device: Device) -> None:
    fresh, block = device.home.path / "fresh", random.Random(6).randbytes(64 * MIB)
    with fresh.open("wb") as file:
        for number in range(GIB // len(block)):
            file.write(number.to_bytes(8) + block[8:])
    fresh.replace(device.file)


def overtakes(sender: Device, receiver: Device) -> None:
    """A save of 1 KB, again and again: the machine may be busy at times, but what waits for its turn always does."""
    took_s = []
    for _ in range(SAVES):
        content, began = os.urandom(1024), time.monotonic()
        (sender.folder / "note").write_bytes(content)
        wait_until(lambda content=content: holds(receiver.folder / "note", content), SOON_S)
        took_s.append(time.monotonic() - began)
    assert statistics.median(took_s) < SAVE_S, took_s


def holds(file: Path, content: bytes) -> bool:
    return file.exists() and file.read_bytes() == content


@pytest.mark.timeout(900)
def test_a_small_file_overtakes_a_gigabyte_both_ways(devices: tuple[Device, Device]) -> None:
    anna, bert = devices
    anna.command("limit", "--up", "16M")
    save_gigabyte(anna)
    wait_until(lambda: anna.proxy.passed_bytes > 50 * MIB, 120)
    overtakes(anna, bert)
    assert anna.proxy.passed_bytes < GIB
    bert.command("limit", "--down", "16M")
    anna.command("limit", "--up", "0")
    wait_until(lambda: bert.proxy.passed_bytes > 50 * MIB, 240)
    overtakes(anna, bert)
    assert bert.proxy.passed_bytes < GIB
    assert not bert.file.exists()
    wait_until(lambda: bert.proxy.passed_bytes > 200 * MIB, 60)
    bert.kill()
    [begun] = bert.staged()
    begun_bytes = begun.stat().st_size
    bert.proxy.passed_bytes = 0
    bert.start()
    bert.command("limit", "--down", "0")
    wait_until(lambda: bert.file.exists() and bert.is_settled(), 120)
    assert bert.digest(NAME) == anna.digest(NAME)
    assert bert.proxy.passed_bytes < GIB - begun_bytes + MIB
    assert begun_bytes > 190 * MIB
    assert bert.staged() == []


def test_of_a_download_that_is_broken_off_nothing_is_left(devices: tuple[Device, Device]) -> None:
    anna, bert = devices
    bert.command("limit", "--down", "4M")
    anna.file.write_bytes(CONTENT * 4)
    wait_until(lambda: bert.proxy.passed_bytes > 8 * MIB, 120)
    assert len(bert.staged()) == 1
    anna.file.unlink()
    wait_until(anna.is_settled, 30)
    bert.proxy.cut()
    wait_until(lambda: bert.is_settled() and not bert.staged(), 60)
    assert [file.name for file in bert.folder.iterdir()] == [STATE_DIRECTORY]


# Sparse files

ISLANDS = (1_000_000_000, 5_000_000_123, 10_000_000_000 - MIB)
ISLAND_BYTES = MIB


def data_of(file: Path) -> list[tuple[int, bytes]]:
    """What a sparse file holds that is no hole, and where."""
    found: list[tuple[int, bytes]] = []
    with file.open("rb", buffering=0) as raw:
        size, end = file.stat().st_size, 0
        while end < size:
            try:
                start = os.lseek(raw.fileno(), end, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:  # nothing but a hole follows
                    raise
                break
            end = os.lseek(raw.fileno(), start, os.SEEK_HOLE)
            raw.seek(start)
            found.append((start, raw.read(end - start)))
    return found


def island_at(file: Path, at: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(at)
        return opened.read(ISLAND_BYTES)


def allocated_bytes(path: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in [path, *path.rglob("*")])


def test_a_sparse_file_travels_as_its_data_and_arrives_sparse(devices: tuple[Device, Device], tmp_path: Path) -> None:
    anna, bert = devices
    before = allocated_bytes(tmp_path / "data")
    chance = random.Random(4)
    fresh = anna.home.path / "fresh"
    with fresh.open("wb") as file:
        for at in ISLANDS:
            file.seek(at)
            file.write(chance.randbytes(ISLAND_BYTES))
    fresh.replace(anna.file)
    wait_until(lambda: bert.file.exists() and anna.is_settled() and bert.is_settled(), 240)
    assert anna.proxy.passed_bytes < 4 * MIB
    assert bert.proxy.passed_bytes < 13 * MIB  # the data, and a chunk of zeros
    assert bert.file.stat().st_size == anna.file.stat().st_size == 10_000_000_000
    assert "sha-256" in httpx.head(f"http://{anna.proxy.address}/large/{NAME}").headers["Repr-Digest"]  # and verified
    for device in devices:
        assert allocated_bytes(device.file) < 4 * MIB
        assert sum(len(content.strip(bytes(1))) for _, content in data_of(device.file)) <= 3 * ISLAND_BYTES
    for at in ISLANDS:
        assert island_at(anna.file, at) == island_at(bert.file, at)
    assert allocated_bytes(tmp_path / "data") - before < 60 * MIB  # three replicas of that, and some logs
    anna.file.unlink()
    wait_until(lambda: not bert.file.exists() and anna.is_settled() and bert.is_settled(), 60)


def test_a_hole_that_is_punched_and_filled_again(devices: tuple[Device, Device]) -> None:
    anna, bert = devices
    chance = random.Random(5)
    anna.file.write_bytes(chance.randbytes(64 * MIB))
    arrive(anna, bert)
    punch = ["fallocate", "--punch-hole", "--offset", str(10 * MIB + 5), "--length", str(40 * MIB)]
    subprocess.run([*punch, str(anna.file)], check=True, timeout=30)
    assert allocated_bytes(anna.file) < 25 * MIB
    sent, received = arrive(anna, bert)
    assert sent < 2 * MIB
    assert received < 11 * MIB  # a chunk of zeros
    assert allocated_bytes(bert.file) < 25 * MIB
    with bert.file.open("r+b") as file:  # an island in the hole
        file.seek(30 * MIB)
        file.write(b"island")
    sent, received = arrive(bert, anna)
    assert sent < 2 * MIB
    assert received < 11 * MIB
    dense = anna.file.read_bytes()  # and no hole any more: some zeros on the disk, the rest is data
    with anna.file.open("r+b") as file:
        file.write(dense[: 20 * MIB] + chance.randbytes(16 * MIB) + dense[36 * MIB :])
    sent, received = arrive(anna, bert)
    assert 16 * MIB < sent < 44 * MIB
    assert 16 * MIB < received < 44 * MIB
