"""The short way to a master: taken where it can be, and gRPC does where it cannot; real sockets, real gRPC."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import grpc
import pytest

from helenite.client.lanes import Lane
from helenite.core.calls import HEADER, MESSAGE_BYTES_MAX, encode_call
from helenite.core.errors import DeadlineExceededError, EntryNotFoundError, UnavailableError
from helenite.core.pb import common_pb2, master_pb2
from helenite.core.pb.master_pb2_grpc import NamespaceStub, add_NamespaceServicer_to_server
from helenite.core.serving import GRPC_OPTIONS, bind_grpc, make_grpc_server
from helenite.master.call_port import CallPort
from helenite.master.namespace_service import NamespaceService
from tests.support.waiting import wait_until

LARGE = bytes(5 << 20)


class Verbs:
    """Answers; `gate` holds look-ups back."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.looked_up: list[str] = []
        self.mutated = 0

    def lookup(self, request: master_pb2.LookupRequest) -> common_pb2.Entry:
        self.looked_up.append(request.path)
        assert self.gate.wait(10)
        if request.path == "/missing":
            raise EntryNotFoundError("there is no /missing")
        return common_pb2.Entry(name=request.path, record=LARGE if request.path == "/large" else b"r")

    def mutate(self, request: master_pb2.MutateRequest) -> master_pb2.MutateReply:
        self.mutated += len(request.mutations)
        return master_pb2.MutateReply()

    list = locate = allocate = read_feed = mutate


class Master:
    """A call port and a gRPC server that answer with the same verbs."""

    def __init__(self) -> None:
        self.verbs = Verbs()
        self.port = CallPort(cast("Any", self.verbs), "127.0.0.1")
        self.port.start()
        self.place = master_pb2.CallPort()
        self.place.CopyFrom(self.port.address)
        self.by_grpc = 0
        self._server = make_grpc_server(8)
        master = self

        class Service(NamespaceService):
            def Lookup(  # noqa: N802 - gRPC's name
                self, request: Any, context: grpc.ServicerContext
            ) -> common_pb2.Entry:
                master.by_grpc += 1
                return super().Lookup(request, context)

        add_NamespaceServicer_to_server(Service(cast("Any", self.verbs), self.place), self._server)
        self.address = f"127.0.0.1:{bind_grpc(self._server, '127.0.0.1:0')}"
        self._server.start()
        self._channel = grpc.insecure_channel(self.address, options=GRPC_OPTIONS)
        self.lane = Lane(self.address, NamespaceStub(self._channel))

    def close(self) -> None:
        self.verbs.gate.set()
        self.lane.close()
        self._channel.close()
        self._server.stop(None).wait()
        self.port.stop()

    def look_up(self, path: str, timeout_s: float = 10.0) -> str:
        reply = self.lane.call("Lookup", master_pb2.LookupRequest(path=path), timeout_s)
        assert isinstance(reply, common_pb2.Entry)
        return reply.name


@pytest.fixture
def master() -> Iterator[Master]:
    found = Master()
    yield found
    found.close()


def connect(port: CallPort) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port.address.port), timeout=10)
    assert connection.recv(16) == port.address.greeting
    return connection


def test_calls_take_the_short_way_on_one_connection(master: Master) -> None:
    assert [master.look_up(f"/{number}") for number in range(20)] == [f"/{number}" for number in range(20)]
    with pytest.raises(EntryNotFoundError, match="there is no /missing"):
        master.look_up("/missing")
    assert len(master.lane.call("Lookup", master_pb2.LookupRequest(path="/large"), 10).record) == len(LARGE)
    request = master_pb2.MutateRequest(mutations=[master_pb2.Mutation(operation_id=LARGE)])
    master.lane.call("Mutate", request, 10)
    assert master.verbs.mutated == 1
    assert master.by_grpc == 0
    assert len(master.port._sessions._connections) == 1


def test_many_at_once(master: Master) -> None:
    with ThreadPoolExecutor(16) as threads:
        paths = [f"/{number}" for number in range(400)]
        assert list(threads.map(master.look_up, paths)) == paths
    assert master.by_grpc == 0


def test_without_a_call_port_grpc_does(master: Master) -> None:
    master.place.port = 0
    assert master.look_up("/a") == "/a"
    assert master.by_grpc == 1


def test_a_stranger_at_the_port_is_noticed(master: Master) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger, ThreadPoolExecutor(1) as threads:
        master.place.port = stranger.getsockname()[1]

        def greet() -> None:
            with stranger.accept()[0] as connection:
                connection.sendall(b"some other words")
                assert connection.recv(100) == b"", "nothing is said to a stranger"

        greeting = threads.submit(greet)
        assert master.look_up("/a") == "/a"
        greeting.result(10)
    assert master.by_grpc == 1


def test_when_the_port_is_gone_grpc_does_and_later_the_port_again(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    master.look_up("/a")
    master.port.stop()
    assert [master.look_up("/b"), master.look_up("/c")] == ["/b", "/c"]
    assert master.by_grpc == 2
    master.port = CallPort(cast("Any", master.verbs), "127.0.0.1")
    master.port.start()
    master.place.CopyFrom(master.port.address)
    monkeypatch.setattr(master.lane, "_look_at", 0.0)
    assert master.look_up("/d") == "/d"
    assert master.by_grpc == 2


def test_whoever_comes_beyond_the_limit_uses_grpc(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(master.port._sessions, "_connections_max", 1)
    with connect(master.port):
        assert master.look_up("/a") == "/a"
    assert master.by_grpc == 1


def test_a_master_that_hangs_costs_the_patience_only(master: Master) -> None:
    master.look_up("/a")
    master.verbs.gate.clear()
    with pytest.raises(DeadlineExceededError):
        master.look_up("/b", 0.2)
    master.verbs.gate.set()
    assert master.look_up("/c") == "/c", "on another connection: the late reply belongs to nobody"


def test_a_master_that_dies_in_the_middle_is_unavailable(master: Master) -> None:
    master.look_up("/a")
    master.verbs.gate.clear()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(master.look_up, "/b")
        wait_until(lambda: "/b" in master.verbs.looked_up)
        for connection in list(master.port._sessions._connections):
            connection.shutdown(socket.SHUT_RDWR)
        with pytest.raises(UnavailableError):
            waiting.result(10)


def test_a_change_that_nobody_waits_for_is_not_made(master: Master) -> None:
    """A master that was paused finds such calls."""
    here, there = socket.socketpair()
    with there:
        with here:
            request = master_pb2.MutateRequest(mutations=[master_pb2.Mutation()])
            here.sendall(encode_call("Mutate", request))
        master.port._sessions._connections.add(there)
        master.port._sessions._run(there)
    assert master.verbs.mutated == 0


@pytest.mark.parametrize(
    "words",
    [
        HEADER.pack(99, 0),
        HEADER.pack(0, MESSAGE_BYTES_MAX + 1),
        HEADER.pack(0, 2) + b"\xff\xff",
        2 * encode_call("Lookup", master_pb2.LookupRequest(path="/a")),
        HEADER.pack(0, 100)[:3],
    ],
)
def test_what_breaks_the_rules_ends_the_connection(master: Master, words: bytes) -> None:
    with connect(master.port) as connection:
        connection.sendall(words)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""
    assert master.verbs.looked_up == []
    assert master.look_up("/b") == "/b"


def test_at_the_end_calls_under_way_are_waited_for(master: Master) -> None:
    master.verbs.gate.clear()
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(master.look_up, "/a")
        wait_until(lambda: master.verbs.looked_up)
        stopping = threads.submit(master.port.stop)
        with pytest.raises(UnavailableError):
            waiting.result(10)
        assert not stopping.done()
        master.verbs.gate.set()
        stopping.result(10)
    assert master.port._sessions._connections == set()


def test_somebody_who_greets_slowly_delays_no_call(master: Master) -> None:
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        master.place.port = listener.getsockname()[1]

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                while not done.wait(0.7):  # each byte within the patience for all of them
                    try:
                        connection.send(b"x")
                    except OSError:
                        return

        greeter = threading.Thread(target=greet)
        greeter.start()
        began = time.monotonic()
        assert master.look_up("/a", 30.0) == "/a"
        took_s = time.monotonic() - began
        done.set()
        greeter.join()
    assert master.by_grpc == 1
    assert took_s < 6  # sixteen bytes take eleven seconds
