"""The Control service over real gRPC."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from helenite.chunkserver.dataport import DataPort
from helenite.chunkserver.service import HANDLES_MAX, ControlService
from helenite.chunkserver.store import ChunkStore
from helenite.core.checksum import block_checksums, digest
from helenite.core.errors import BadCapabilityError, ChunkNotFoundError, HeleniteError, InvalidRequestError
from helenite.core.frames import capability_for
from helenite.core.model import ChunkHandle, Chunkserver, ServerId, ServerState
from helenite.core.pb import common_pb2
from helenite.core.pb.chunkserver_pb2 import HandlesRequest, ListChunksRequest, ReplicateRequest
from helenite.core.pb.chunkserver_pb2_grpc import ControlStub, add_ControlServicer_to_server
from helenite.core.serving import bind_grpc, make_grpc_server
from helenite.core.wire import chunkserver_to_message, error_from_rpc
from tests.support.chunkstores import LARGE, assert_holds, put
from tests.support.master_service import CLUSTER, KEY

ME = Chunkserver(ServerId(1), "uuid", "a:1", "b:2", "", "host", "", 42, ServerState.ALIVE, 100, 50, 50, 3)


@pytest.fixture
def control(store: ChunkStore) -> Iterator[ControlStub]:
    store.adopt(CLUSTER, ServerId(1))
    server = make_grpc_server(4)
    port = bind_grpc(server, "127.0.0.1:0")
    add_ControlServicer_to_server(ControlService(store, KEY, lambda: ME, threading.Event()), server)
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield ControlStub(channel)
    server.stop(None).wait()


def raises(expected: type[HeleniteError], call: Callable[[], object]) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert type(error_from_rpc(caught.value, "x")) is expected


def test_verify_says_of_each_chunk_how_it_is(store: ChunkStore, control: ControlStub) -> None:
    data = put(store, 1, 100_000)
    put(store, 2, LARGE)
    with store.open(ChunkHandle(2)) as replica:
        os.truncate(Path(f"/proc/self/fd/{replica.descriptor}").readlink(), LARGE)
    good, bad, missing = control.Verify(HandlesRequest(handles=[1, 2, 3])).chunks
    assert (good.handle, good.length_bytes, good.digest) == (1, 100_000, digest(block_checksums(data)))
    assert not good.HasField("failure")
    assert (bad.failure.code, missing.failure.code) == ("chunk_corrupt", "chunk_not_found")
    assert store.bad.reports(10) == [2, 3], "what is missing is reported, too"


def test_delete_and_list(store: ChunkStore, control: ControlStub) -> None:
    for handle in range(1, 10):
        put(store, handle, LARGE if handle == 5 else 10)
    control.Delete(HandlesRequest(handles=[5, 6, 99]))
    assert list(control.ListChunks(ListChunksRequest(after=2, limit=3)).handles) == [3, 4, 7]
    assert list(control.ListChunks(ListChunksRequest()).handles) == [1, 2, 3, 4, 7, 8, 9]


def test_too_many_at_once_are_refused(control: ControlStub) -> None:
    raises(InvalidRequestError, lambda: control.Verify(HandlesRequest(handles=range(HANDLES_MAX + 1))))


def test_state(control: ControlStub) -> None:
    assert control.GetState(common_pb2.Empty()) == chunkserver_to_message(ME)


def test_replicate_pulls_from_a_peer(
    store: ChunkStore, control: ControlStub, open_store: Callable[..., ChunkStore], tmp_path: Path
) -> None:
    other = open_store(tmp_path / "other")
    other.adopt(CLUSTER, ServerId(2))
    port = DataPort(other, 10)
    tcp, path = port.bind("127.0.0.1:0", str(tmp_path / "other.sock"))
    port.serve(KEY)
    data = put(other, 7, LARGE)
    source = Chunkserver(ServerId(2), "u", "", f"127.0.0.1:{tcp}", path, "h", "", 1, ServerState.ALIVE, 0, 0, 0, 0)

    def ask(handle: int, capability: bytes) -> object:
        request = ReplicateRequest(handle=handle, sources=[chunkserver_to_message(source)], capability=capability)
        return control.Replicate(request)

    ask(7, capability_for(KEY, ChunkHandle(7)))
    ask(7, capability_for(KEY, ChunkHandle(7)))
    assert_holds(store, {7: data})
    raises(BadCapabilityError, lambda: ask(8, b"12345678"))
    raises(ChunkNotFoundError, lambda: ask(8, capability_for(KEY, ChunkHandle(8))))
    port.close()
