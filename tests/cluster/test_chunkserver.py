"""The chunkserver's process: how it starts, refuses, ends and comes back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from helenite.core.dataport import DataConnection
from helenite.core.frames import ReadRequest, WriteRequest, capability_for
from helenite.core.health import is_serving
from helenite.core.model import MIB, ChunkHandle, ServerId
from tests.support.master_service import CLUSTER, KEY, ScriptedMaster
from tests.support.waiting import wait_until

ENDED_S = 30
COMMAND = (sys.executable, "-m", "helenite.chunkserver")
RSS_BYTES_MAX = 70 * MIB
"""45 MiB were measured, most of it gRPC; this catches a heavy import."""


@pytest.fixture
def master() -> Iterator[ScriptedMaster]:
    made = ScriptedMaster()
    yield made
    made.stop()


def environment(master: ScriptedMaster, directory: Path | str, **settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HELENITE_")}
    return kept | {
        "HELENITE_MASTERS": master.address,
        "HELENITE_CHUNK_DIR": str(directory),
        "HELENITE_RESERVE_BYTES": "0",
        **{f"HELENITE_{name}": value for name, value in settings.items()},
    }


class Running:
    """A chunkserver that serves."""

    def __init__(self, master: ScriptedMaster, directory: Path, **settings: str) -> None:
        reading, writing = os.pipe()
        self.process = subprocess.Popen(
            COMMAND,
            env=environment(master, directory, READY_FD=str(writing), **settings),
            pass_fds=[writing],
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(writing)
        with os.fdopen(reading) as ready:
            said = ready.read()
        if said != "ready\n":
            raise AssertionError(self.process.communicate(timeout=60)[1])
        self.server = master.registrations[-1].server

    def connect(self) -> DataConnection:
        return DataConnection.connect(ServerId(5), self.server.data_address, self.server.data_socket, None, 5.0)

    def end(self, how: signal.Signals) -> tuple[int, str]:
        """Exit code and log."""
        self.process.send_signal(how)
        try:
            _, log = self.process.communicate(timeout=ENDED_S)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGUSR1)  # all stacks
            time.sleep(1)
            self.process.kill()
            raise AssertionError(f"it does not end: {self.process.communicate()[1]}") from None
        return self.process.returncode, log


@contextmanager
def running(master: ScriptedMaster, directory: Path, **settings: str) -> Iterator[Running]:
    made = Running(master, directory, **settings)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.end(signal.SIGKILL)


def store_one(server: Running, handle: int, data: bytes) -> None:
    connection = server.connect()
    request = WriteRequest(ChunkHandle(handle), len(data), capability_for(KEY, ChunkHandle(handle)))
    assert len(connection.write(request, (data,), 10.0)) == 1
    connection.close()


def read_one(server: Running, handle: int, length: int) -> bytes:
    connection = server.connect()
    _, data = connection.read(
        ReadRequest(ChunkHandle(handle), 0, length, capability_for(KEY, ChunkHandle(handle))), 10.0
    )
    connection.close()
    return bytes(data)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_acknowledged_is_there_after_its_end(
    master: ScriptedMaster, tmp_path: Path, how: signal.Signals
) -> None:
    small, large = os.urandom(4096), os.urandom(3 * MIB)
    with running(master, tmp_path) as server:
        store_one(server, 1, small)
        store_one(server, 2, large)
        code, log = server.end(how)
        assert "Traceback" not in log
        assert code == (0 if how == signal.SIGTERM else -signal.SIGKILL)
    assert (tmp_path / "index" / "clean").exists() == (how == signal.SIGTERM)
    with running(master, tmp_path) as server:
        assert read_one(server, 1, 4096) == small
        assert read_one(server, 2, 3 * MIB) == large
        assert server.end(signal.SIGTERM)[0] == 0
    assert not (tmp_path / "data.sock").exists()


def test_it_is_small_and_healthy_and_ends_in_the_middle_of_a_write(master: ScriptedMaster, tmp_path: Path) -> None:
    with running(master, tmp_path) as server:
        assert is_serving(server.server.address)
        connections = [server.connect() for _ in range(50)]
        assert psutil.Process(server.process.pid).memory_info().rss < RSS_BYTES_MAX
        capability = capability_for(KEY, ChunkHandle(1))
        connections[0].start_write(WriteRequest(ChunkHandle(1), 4 * MIB, capability), 5.0)
        connections[0].send_piece(bytes(MIB), 5.0)
        code, log = server.end(signal.SIGTERM)
        assert code == 0, log
        assert "Traceback" not in log
        for connection in connections:
            connection.close()
    assert not list((tmp_path / "chunks" / "unfinished").iterdir())


def refuse(environment: dict[str, str]) -> str:
    """It must end with 2 and one sentence."""
    done = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"CHUNK_DIR": ""}, "HELENITE_CHUNK_DIR"),
        ({"CHUNK_DIR": "/proc/nowhere"}, "data directory"),
        ({"RESERVE_BYTES": "much"}, "HELENITE_RESERVE_BYTES"),
        ({"DATA_LISTEN": "192.0.2.1:1"}, "192.0.2.1:1"),
    ],
)
def test_wrong_settings_are_told_in_one_sentence(
    master: ScriptedMaster, tmp_path: Path, settings: dict[str, str], expected: str
) -> None:
    assert expected in refuse(environment(master, tmp_path, **settings))


def test_a_port_that_is_taken_is_told(master: ScriptedMaster, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for setting in ("CHUNKSERVER_LISTEN", "DATA_LISTEN"):
            assert address in refuse(environment(master, tmp_path, **{setting: address}))


def test_a_directory_serves_one_process_and_one_cluster(master: ScriptedMaster, tmp_path: Path) -> None:
    with running(master, tmp_path) as server:
        assert "another chunkserver is using" in refuse(environment(master, tmp_path))
        assert server.end(signal.SIGTERM)[0] == 0
    master.cluster_id = CLUSTER[::-1]
    assert "cluster" in refuse(environment(master, tmp_path))


def test_a_copy_beside_its_original_ends_and_says_why(master: ScriptedMaster, tmp_path: Path) -> None:
    with running(master, tmp_path) as server:
        master.knows, master.knows_another = False, True
        _, log = server.process.communicate(timeout=ENDED_S)
        assert server.process.returncode == 2
        assert log.splitlines()[-1] == "helenite.chunkserver: another process runs with this identity"


def test_it_waits_for_a_master(tmp_path: Path) -> None:
    first = ScriptedMaster()
    first.stop()
    process = subprocess.Popen(COMMAND, env=environment(first, tmp_path), stderr=subprocess.PIPE, text=True)
    try:
        wait_until((tmp_path / "data.sock").exists)
        again = ScriptedMaster(int(first.address.rpartition(":")[2]))
        wait_until(lambda: bool(again.beats))
        again.stop()
    finally:
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=ENDED_S)
    assert process.returncode == 0, log
    assert "Traceback" not in log
