"""The Control service over real gRPC."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from helenite.chunkserver.service import HANDLES_MAX, ControlService
from helenite.chunkserver.store import ChunkStore
from helenite.core.checksum import block_checksums, digest
from helenite.core.errors import HeleniteError, InvalidRequestError, UnavailableError
from helenite.core.model import ChunkHandle, ServerId
from helenite.core.pb.chunkserver_pb2 import HandlesRequest, ListChunksRequest
from helenite.core.pb.chunkserver_pb2_grpc import ControlStub, add_ControlServicer_to_server
from helenite.core.serving import bind_grpc, make_grpc_server
from helenite.core.wire import error_from_rpc
from tests.support.chunkstores import LARGE, put
from tests.support.master_service import CLUSTER


@pytest.fixture
def control(store: ChunkStore) -> Iterator[ControlStub]:
    store.adopt(CLUSTER, ServerId(1))
    server = make_grpc_server(4)
    port = bind_grpc(server, "127.0.0.1:0")
    add_ControlServicer_to_server(ControlService(store), server)
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


def test_a_question_for_another_is_not_answered(store: ChunkStore, control: ControlStub) -> None:
    """The one whose disk this server replaces may have held what is asked about, and may come back."""
    put(store, 1, 100)
    raises(UnavailableError, lambda: control.Verify(HandlesRequest(handles=[1, 2], server=4)))
    raises(UnavailableError, lambda: control.ListChunks(ListChunksRequest(server=4)))
    assert store.bad.reports(10) == []
    assert len(control.Verify(HandlesRequest(handles=[1], server=1)).chunks) == 1
    assert list(control.ListChunks(ListChunksRequest(server=1)).handles) == [1]


def test_list(store: ChunkStore, control: ControlStub) -> None:
    for handle in range(1, 10):
        put(store, handle, LARGE if handle == 5 else 10)
    store.delete(ChunkHandle(5))
    store.delete(ChunkHandle(6))
    assert list(control.ListChunks(ListChunksRequest(after=2, limit=3)).handles) == [3, 4, 7]
    assert list(control.ListChunks(ListChunksRequest()).handles) == [1, 2, 3, 4, 7, 8, 9]


def test_too_many_at_once_are_refused(control: ControlStub) -> None:
    raises(InvalidRequestError, lambda: control.Verify(HandlesRequest(handles=range(HANDLES_MAX + 1))))
