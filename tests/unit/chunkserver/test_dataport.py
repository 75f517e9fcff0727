"""The data port over real sockets: chains, dead hops, refusals, descriptors, circles under load."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helenite.core.checksum import block_checksums, digest, verify_blocks
from helenite.core.dataport import DataConnection
from helenite.core.errors import (
    BadCapabilityError,
    ChunkExistsError,
    ChunkNotFoundError,
    DeadlineExceededError,
    ForeignClusterError,
    InsufficientStorageError,
    InvalidRequestError,
    UnavailableError,
)
from helenite.core.frames import OpenRequest, ReadRequest, Target, WriteRequest, capability_for, encode_greeting
from helenite.core.model import MIB, ChunkHandle, ServerId
from tests.support.dataports import CLUSTER, KEY, Host
from tests.support.waiting import wait_until


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Host]]:
    made = [Host(number, tmp_path / str(number)) for number in (1, 2, 3)]
    yield made
    for host in made:
        host.close()


def write_request(handle: int, length: int, targets: tuple[Target, ...] = ()) -> WriteRequest:
    return WriteRequest(ChunkHandle(handle), length, capability_for(KEY, ChunkHandle(handle)), targets)


def read_request(handle: int, offset: int, length: int) -> ReadRequest:
    return ReadRequest(ChunkHandle(handle), offset, length, capability_for(KEY, ChunkHandle(handle)))


@pytest.mark.parametrize("by_unix", [False, True])
@pytest.mark.parametrize("size", [1, 4096, 100_000, 3 * MIB + 17])
def test_a_chain_stores_on_every_server_and_each_can_be_read(hosts: list[Host], size: int, by_unix: bool) -> None:
    data = random.Random(size).randbytes(size)
    connection = hosts[0].connect(by_unix=by_unix)
    targets = tuple(host.target(by_unix=by_unix) for host in hosts[1:])
    acks = connection.write(write_request(1, size, targets), (data[: size // 2], data[size // 2 :]), 10.0)
    assert {ack.server for ack in acks} == {1, 2, 3}
    assert {ack.digest for ack in acks} == {digest(block_checksums(data))}
    for host in hosts:
        reader = host.connect(by_unix=by_unix)
        reply, blocks = reader.read(read_request(1, size // 3, size - size // 3), 10.0)
        verify_blocks(blocks, reply.checksums, "x")
        assert bytes(blocks) == data[reply.offset :]
        assert reply.length == size
        reader.close()
    connection.close()


def test_a_dead_hop_costs_its_replica_only(hosts: list[Host]) -> None:
    hosts[1].close()
    data = os.urandom(2 * MIB)
    connection = hosts[0].connect()
    acks = connection.write(write_request(1, len(data), (hosts[1].target(), hosts[2].target())), (data,), 10.0)
    assert [ack.server for ack in acks] == [1]
    acks = connection.write(write_request(2, len(data), (hosts[2].target(), hosts[1].target())), (data,), 10.0)
    assert [ack.server for ack in acks] == [1, 3]


def test_a_hop_that_is_full_costs_its_replica_only(hosts: list[Host], tmp_path: Path) -> None:
    full = Host(9, tmp_path / "9", capacity_bytes=1000)
    data = os.urandom(2 * MIB)
    connection = hosts[0].connect()
    acks = connection.write(write_request(1, len(data), (full.target(), hosts[2].target())), (data,), 10.0)
    assert [ack.server for ack in acks] == [1]
    full.close()


def test_refusals_leave_the_connection_usable(hosts: list[Host], tmp_path: Path) -> None:
    full = Host(9, tmp_path / "9", capacity_bytes=1000)
    data = os.urandom(4 * MIB)
    for host, request, expected in (
        (full, write_request(1, len(data)), InsufficientStorageError),
        (hosts[0], WriteRequest(ChunkHandle(1), len(data), b"12345678"), BadCapabilityError),
    ):
        connection = host.connect()
        with pytest.raises(expected):
            connection.write(request, (data,), 10.0)
        with pytest.raises(ChunkNotFoundError):
            connection.read(read_request(5, 0, 1), 10.0)
        small = os.urandom(100)
        assert len(connection.write(write_request(7, 100), (small,), 10.0)) == 1
        connection.close()
    full.close()


def test_a_repeat_is_a_success_and_other_content_is_not(hosts: list[Host]) -> None:
    data = os.urandom(2 * MIB)
    connection = hosts[0].connect()
    targets = (hosts[1].target(),)
    first = connection.write(write_request(1, len(data), targets), (data,), 10.0)
    assert connection.write(write_request(1, len(data), targets), (data,), 10.0) == first
    with pytest.raises(ChunkExistsError):
        connection.write(write_request(1, len(data), targets), (bytes(len(data)),), 10.0)


def test_descriptors_come_by_unix_socket_only(hosts: list[Host]) -> None:
    data = os.urandom(300_000)
    request = OpenRequest(ChunkHandle(1), capability_for(KEY, ChunkHandle(1)))
    local, remote = hosts[0].connect(by_unix=True), hosts[0].connect()
    local.write(write_request(1, len(data)), (data,), 10.0)
    assert local.is_local
    reply, descriptor = local.open(request, 10.0)
    hosts[0].store.delete(ChunkHandle(1))
    assert os.pread(descriptor, reply.length, reply.offset) == data, "an open replica outlives its deletion"
    assert reply.checksums == block_checksums(data)
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)
    with pytest.raises(InvalidRequestError):
        remote.open(request, 10.0)
    with pytest.raises(ChunkNotFoundError):
        local.open(request, 10.0)


@pytest.mark.parametrize(("offset", "length"), [(0, 0), (0, 101), (100, 1), (2**63, 1)])
def test_ranges_outside_the_chunk_are_refused(hosts: list[Host], offset: int, length: int) -> None:
    connection = hosts[0].connect()
    connection.write(write_request(1, 100), (bytes(100),), 10.0)
    with pytest.raises(InvalidRequestError):
        connection.read(read_request(1, offset, length), 10.0)


def test_whom_one_reaches_is_checked(hosts: list[Host]) -> None:
    with pytest.raises(ForeignClusterError):
        DataConnection.connect(ServerId(2), hosts[0].address, "", None, 5.0)
    with pytest.raises(ForeignClusterError):
        DataConnection.connect(ServerId(1), hosts[0].address, "", b"x" * 16, 5.0)
    # A leftover socket path of another server: TCP decides.
    found = DataConnection.connect(ServerId(1), hosts[0].address, hosts[1].socket, bytes.fromhex(CLUSTER), 5.0)
    assert not found.is_local
    found.close()


def test_a_server_that_hangs_costs_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(DeadlineExceededError):
            DataConnection.connect(ServerId(1), address, "", None, 0.2)


def test_nobody_there_is_unavailable() -> None:
    with pytest.raises(UnavailableError):
        DataConnection.connect(ServerId(1), "127.0.0.1:1", "/nonexistent", None, 1.0)


def test_chains_in_circles_make_progress(hosts: list[Host]) -> None:
    """64 chains at once, A to B to C to A: no hop may wait for a thread that waits for it."""
    data = os.urandom(2 * MIB)

    def chain(number: int) -> int:
        first, second, third = (hosts[(number + i) % 3] for i in range(3))
        connection = first.connect()
        acks = connection.write(
            write_request(100 + number, len(data), (second.target(), third.target())), (data,), 60.0
        )
        connection.close()
        return len(acks)

    with ThreadPoolExecutor(64) as pool:
        assert list(pool.map(chain, range(64))) == [3] * 64


def test_garbage_ends_the_connection_and_nothing_else(hosts: list[Host]) -> None:
    host, _, port = hosts[0].address.rpartition(":")
    for noise in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, b"\x01" + b"\0" * 15, b"\x09" + b"\0" * 200):
        # A reset may come at any step.
        with socket.create_connection((host, int(port)), timeout=5) as sock, contextlib.suppress(OSError):
            sock.sendall(noise)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):
                pass
    connection = hosts[0].connect()
    assert len(connection.write(write_request(1, 3), (b"abc",), 5.0)) == 1


def test_a_hop_that_hangs_is_left_out_before_the_sender_gives_up(hosts: list[Host]) -> None:
    """The rest of the chain answers in time, so that the sender blames the right server."""
    data = os.urandom(4 * MIB)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hung = Target(ServerId(7), f"127.0.0.1:{silent.getsockname()[1]}", "")
        connection = hosts[0].connect()
        acks = connection.write(write_request(1, len(data), (hung, hosts[2].target())), (data,), 6.0)
        assert [ack.server for ack in acks] == [1]
        with silent.accept()[0] as accepted:
            accepted.sendall(encode_greeting(ServerId(7), bytes.fromhex(CLUSTER)))  # greets, then reads nothing
            acks = connection.write(write_request(2, len(data), (hung, hosts[2].target())), (data,), 6.0)
            assert [ack.server for ack in acks] == [1]


def test_a_hop_that_was_restarted_is_reached_by_a_new_connection(hosts: list[Host], tmp_path: Path) -> None:
    connection = hosts[0].connect()
    chain = (hosts[1].target(),)
    assert len(connection.write(write_request(1, 10, chain), (bytes(10),), 5.0)) == 2
    address, _, port = hosts[1].address.rpartition(":")
    hosts[1].close()
    hosts[1] = Host(2, tmp_path / "2", listen=f"{address}:{port}")
    assert len(connection.write(write_request(2, 10, chain), (bytes(10),), 5.0)) == 2


def test_a_sender_that_leaves_in_the_middle_leaves_nothing(hosts: list[Host]) -> None:
    connection = hosts[0].connect()
    connection.start_write(write_request(1, 4 * MIB, (hosts[1].target(),)), 5.0)
    connection.send_piece(bytes(3 * MIB), 5.0)
    connection.close()
    for host in hosts[:2]:
        unfinished = host.store.files.unfinished
        wait_until(lambda unfinished=unfinished: not any(unfinished.iterdir()))  # type: ignore[misc]
        assert host.store.chunk_count() == 0


def test_closing_ends_idle_and_busy_connections_at_once(hosts: list[Host], caplog: pytest.LogCaptureFixture) -> None:
    idle, busy = hosts[0].connect(), hosts[0].connect(by_unix=True)
    busy.start_write(write_request(1, 4 * MIB), 60.0)
    busy.send_piece(bytes(MIB), 60.0)
    hosts[0].port.close()
    assert "do not end" not in caplog.text, "it gives up on connections that have not ended after seconds"
    assert not Path(hosts[0].socket).exists()
    for connection in (idle, busy):
        with pytest.raises(UnavailableError):
            connection.receive_acks(5.0)
    with pytest.raises(UnavailableError):
        hosts[0].connect()


def test_connections_beyond_the_limit_are_refused_and_the_others_go_on(tmp_path: Path) -> None:
    host = Host(1, tmp_path, connections_max=2)
    first, second = host.connect(), host.connect()
    with pytest.raises(UnavailableError):
        host.connect()
    assert len(first.write(write_request(1, 10), (bytes(10),), 5.0)) == 1
    second.close()
    wait_until(lambda: len(host.port._sessions._connections) == 1)
    host.connect()
    host.close()


def test_a_socket_path_that_is_too_long_gets_a_private_directory(tmp_path: Path) -> None:
    directory = tmp_path / ("x" * 100)
    host = Host(1, directory)
    private = Path(host.socket).parent
    assert private != directory
    assert private.stat().st_mode & 0o777 == 0o700
    assert host.connect(by_unix=True).is_local
    host.close()
    assert not private.exists()
