"""One attempt to write a chunk to all its servers."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from helenite.client.connections import Connections
from helenite.client.fanout import write_fan_out, write_many
from helenite.core.checksum import block_checksums, digest
from helenite.core.dataport import DataConnection
from helenite.core.errors import BadCapabilityError, DeadlineExceededError, UnavailableError
from helenite.core.frames import capability_for
from helenite.core.model import MIB, Allocation, ChunkHandle, ServerId
from tests.support.dataports import KEY, Host

HUNG = ServerId(9)
ABSENT = ServerId(8)


class Ways:
    """What the fan-out uses of Connections: real data ports, and a server that accepts and never reads."""

    def __init__(self, hosts: list[Host]) -> None:
        self.hosts = {host.id: host for host in hosts}
        self.ends: list[socket.socket] = []
        self.given_back: list[ServerId] = []

    def take(self, server: ServerId, _timeout_s: float) -> DataConnection:
        if server == HUNG:
            near, far = socket.socketpair()
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            self.ends.append(far)
            return DataConnection(near, "a server that hangs", is_local=True)
        if server == ABSENT:
            raise UnavailableError("nobody is there")
        return self.hosts[server].connect()

    def give_back(self, server: ServerId, connection: DataConnection) -> None:
        self.given_back.append(server)
        connection.close()


@pytest.fixture
def ways(tmp_path: Path) -> Iterator[Ways]:
    hosts = [Host(number, tmp_path / str(number)) for number in (1, 2, 3)]
    made = Ways(hosts)
    yield made
    for end in made.ends:
        end.close()
    for host in hosts:
        host.close()


def allocation(*servers: int) -> Allocation:
    handle = ChunkHandle(5)
    return Allocation(handle, tuple(map(ServerId, servers)), capability_for(KEY, handle))


@pytest.mark.parametrize("size", [1, 4096, MIB])
def test_all_hold_it(ways: Ways, size: int) -> None:
    data = random.Random(size).randbytes(size)
    acks, problems = write_fan_out(cast(Connections, ways), allocation(1, 2, 3), memoryview(data), 10.0)
    assert acks == dict.fromkeys((1, 2, 3), digest(block_checksums(data)))
    assert problems == {}
    assert ways.given_back == [1, 2, 3]
    assert all(host.store.has(ChunkHandle(5)) for host in ways.hosts.values())


@pytest.mark.parametrize("order", [(HUNG, 1, 2), (1, HUNG, 2), (1, 2, HUNG)])
def test_a_server_that_takes_nothing_spoils_nothing_for_the_others(ways: Ways, order: tuple[int, ...]) -> None:
    data = random.Random(1).randbytes(MIB)
    started = time.monotonic()
    acks, problems = write_fan_out(cast(Connections, ways), allocation(*order), memoryview(data), 3.0)
    assert set(acks) == {1, 2}
    assert set(problems) == {HUNG}
    assert isinstance(problems[HUNG], DeadlineExceededError)
    assert time.monotonic() - started < 15.0


def test_a_server_that_cannot_be_reached_is_named(ways: Ways) -> None:
    acks, problems = write_fan_out(cast(Connections, ways), allocation(1, ABSENT, 3), memoryview(b"x"), 5.0)
    assert set(acks) == {1, 3}
    assert isinstance(problems[ABSENT], UnavailableError)


def numbered(handle: int, *servers: int) -> Allocation:
    return Allocation(ChunkHandle(handle), tuple(map(ServerId, servers)), capability_for(KEY, ChunkHandle(handle)))


def test_many_chunks_go_to_the_servers_of_each(ways: Ways) -> None:
    chunks = [
        (numbered(number, *servers), random.Random(number).randbytes(number * 7_000 + 1))
        for number, servers in enumerate([(1, 2, 3), (3, 1), (2,), (3, 2, 1)])
    ]
    acks, problems = write_many(cast(Connections, ways), chunks, 10.0)
    assert problems == {}
    assert acks == [dict.fromkeys(made.servers, digest(block_checksums(data))) for made, data in chunks]
    assert sorted(ways.given_back) == [1, 2, 3]
    assert not ways.hosts[ServerId(1)].store.has(ChunkHandle(2))


def test_what_one_server_of_many_chunks_fails_is_known_of_each(ways: Ways) -> None:
    chunks = [(numbered(1, 1, HUNG), bytes(500_000)), (numbered(2, 2, ABSENT), b"x"), (numbered(3, 1, 2), b"y")]
    acks, problems = write_many(cast(Connections, ways), chunks, 3.0)
    assert [set(each) for each in acks] == [{1}, {2}, {1, 2}]
    assert set(problems) == {HUNG, ABSENT}


def test_a_chunk_that_is_there_already_is_not_acknowledged_with_others(ways: Ways) -> None:
    connections = cast(Connections, ways)
    write_fan_out(connections, numbered(1, 1), memoryview(b"old"), 5.0)
    acks, problems = write_many(connections, [(numbered(1, 1, 2), b"new"), (numbered(2, 1), b"y")], 5.0)
    assert problems == {}
    assert [set(each) for each in acks] == [{2}, {1}]


def test_a_wrong_capability_spoils_the_request_and_not_the_connection(ways: Ways) -> None:
    forged = Allocation(ChunkHandle(9), (ServerId(1),), bytes(8))
    acks, problems = write_many(cast(Connections, ways), [(numbered(1, 1), b"x"), (forged, b"y")], 5.0)
    assert acks == [{}, {}]
    assert isinstance(problems[ServerId(1)], BadCapabilityError)
