"""The gRPC border: what arrives is checked, what leaves is what a client can use. A real server and channel."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import grpc
import pytest

from helenite.client.filesystem import FileSystem
from helenite.config import ClientSettings
from helenite.core.errors import HeleniteError
from helenite.core.frames import capability_for
from helenite.core.model import Allocation, ChunkHandle, Extent, ServerId, Usage
from helenite.core.pb import common_pb2, master_pb2
from helenite.core.pb.master_pb2_grpc import NamespaceStub, add_NamespaceServicer_to_server
from helenite.core.record import encode_extents
from helenite.core.serving import bind_grpc, make_grpc_server
from helenite.core.wire import error_from_rpc, failure_from_message, view_from_message
from helenite.master.namespace import Namespace
from helenite.master.namespace_service import NamespaceService
from helenite.master.namespace_verbs import NamespaceVerbs
from tests.support.entries import lock, mkdir, put

TIMEOUT_S = 10


class OneServer:
    """Allocates everything to chunkserver 7."""

    lease_s = 30
    chunk_bytes = 1 << 23

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def allocate(self, count: int, exclude: frozenset[ServerId]) -> tuple[list[Allocation], int]:
        first = self._namespace.next_handles(count)
        handles = [ChunkHandle(first + i) for i in range(count)]
        key = self._namespace.capability_key
        return [Allocation(h, (ServerId(7 + len(exclude)),), capability_for(key, h)) for h in handles], 1


@pytest.fixture
def address(namespace: Namespace) -> Iterator[str]:
    server = make_grpc_server(4)
    verbs = NamespaceVerbs(namespace, OneServer(namespace), lambda: Usage(1, 2, 3, 4, 5))
    service = NamespaceService(verbs, master_pb2.CallPort())
    add_NamespaceServicer_to_server(service, server)
    port = bind_grpc(server, "127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def stub(address: str) -> Iterator[NamespaceStub]:
    with grpc.insecure_channel(address) as channel:
        yield NamespaceStub(channel)


def mutate(stub: NamespaceStub, *mutations: master_pb2.Mutation) -> list[master_pb2.Outcome]:
    for mutation in mutations:
        if not mutation.operation_id:
            mutation.operation_id = secrets.token_bytes(16)
    return list(stub.Mutate(master_pb2.MutateRequest(mutations=mutations), timeout=TIMEOUT_S).outcomes)


def test_write_then_read(stub: NamespaceStub, namespace: Namespace) -> None:
    allocated = stub.Allocate(master_pb2.AllocateRequest(count=2, exclude=[1]), timeout=TIMEOUT_S)
    assert (allocated.lease_s, allocated.chunk_bytes, allocated.min_replicas) == (30, 1 << 23, 1)
    extents = tuple(Extent(ChunkHandle(location.handle), 0, 10) for location in allocated.allocations)
    commit = master_pb2.Commit(
        path="/f", size_bytes=20, extents=encode_extents(extents), fresh=allocated.allocations, modified_at_ms=77
    )
    (outcome,) = mutate(stub, master_pb2.Mutation(commit=commit))
    assert outcome.created
    view = view_from_message(stub.Lookup(master_pb2.LookupRequest(path="/f", with_locations=True), timeout=TIMEOUT_S))
    assert view.entry == view_from_message(outcome.entry).entry
    assert (view.entry.extents, view.entry.modified_at_ms) == (extents, 77)
    assert [location.servers for location in view.locations] == [(8,), (8,)]
    assert [location.capability for location in view.locations] == [a.capability for a in allocated.allocations]
    located = stub.Locate(master_pb2.LocateRequest(handles=[extents[1].handle]), timeout=TIMEOUT_S).locations
    assert list(located) == [allocated.allocations[1]]
    assert stub.GetUsage(common_pb2.Empty(), timeout=TIMEOUT_S) == master_pb2.Usage(
        file_count=1, directory_count=2, file_bytes=3, capacity_bytes=4, free_bytes=5
    )
    feed = stub.ReadFeed(master_pb2.ReadFeedRequest(after=0), timeout=TIMEOUT_S)
    assert [(change.verb, change.path) for change in feed.changes] == [("commit", "/f")]
    assert namespace.usage().file_bytes == 20


def test_a_listing_carries_what_was_asked_for(stub: NamespaceStub, namespace: Namespace) -> None:
    mkdir(namespace, "/d")
    put(namespace, "/d/long", 20)
    put(namespace, "/d/short", 2)
    lock(namespace, "/d/short", "t")
    request = master_pb2.ListRequest(path="/d/", with_locations=True, with_locks=True, with_properties=True)
    reply = stub.List(request, timeout=TIMEOUT_S)
    assert reply.directory.name == "d"
    views = {message.name: view_from_message(message) for message in reply.entries}
    assert len(views["short"].locations) == 2
    assert [held.token for held in views["short"].locks] == ["t"]
    assert views["long"].entry.lacks_extents
    assert views["long"].locations == ()


def test_the_client_looks_long_files_of_a_listing_up(address: str, namespace: Namespace) -> None:
    put(namespace, "/long", 300)
    put(namespace, "/short", 1)
    with FileSystem(ClientSettings(masters=(address,))) as file_system:
        _, plain = file_system.list(())
        assert all(view.entry.lacks_extents for view in plain), "nobody asked for them"
        _, located = file_system.list((), with_locations=True)
        found = {view.entry.name: (len(view.entry.extents), len(view.locations)) for view in located}
        assert found == {"long": (300, 256), "short": (1, 1)}


REFUSED = [
    ("no verb", master_pb2.Mutation(), "invalid_request"),
    ("short id", master_pb2.Mutation(operation_id=b"x", remove=master_pb2.Remove(path="/f")), "invalid_request"),
    ("relative path", master_pb2.Mutation(remove=master_pb2.Remove(path="f")), "invalid_path"),
    ("dots", master_pb2.Mutation(make_directory=master_pb2.MakeDirectory(path="/a/../b")), "invalid_path"),
    ("no sizes agree", master_pb2.Mutation(commit=master_pb2.Commit(path="/f", size_bytes=1)), "invalid_request"),
    (
        "empty extent",
        master_pb2.Mutation(commit=master_pb2.Commit(path="/f", extents=encode_extents((Extent(1, 0, 0),)))),
        "invalid_request",
    ),
    (
        "unknown chunk",
        master_pb2.Mutation(
            commit=master_pb2.Commit(path="/f", size_bytes=1, extents=encode_extents((Extent(1, 0, 1),)))
        ),
        "invalid_request",
    ),
    (
        "a chunk nowhere",
        master_pb2.Mutation(
            commit=master_pb2.Commit(
                path="/f",
                size_bytes=1,
                extents=encode_extents((Extent(1, 0, 1),)),
                fresh=[common_pb2.Location(handle=1)],
            )
        ),
        "invalid_request",
    ),
    (
        "huge handle",
        master_pb2.Mutation(
            commit=master_pb2.Commit(
                path="/f",
                size_bytes=1,
                extents=encode_extents((Extent((1 << 64) - 1, 0, 1),)),
                fresh=[common_pb2.Location(handle=(1 << 64) - 1, servers=[1])],
            )
        ),
        "invalid_request",
    ),
    ("broken extents", master_pb2.Mutation(commit=master_pb2.Commit(path="/f", extents=b"123")), "protocol"),
    ("far future", master_pb2.Mutation(commit=master_pb2.Commit(path="/f", modified_at_ms=1 << 60)), "invalid_request"),
    (
        "odd expectation",
        master_pb2.Mutation(remove=master_pb2.Remove(path="/f", condition=master_pb2.Condition(expect="perhaps"))),
        "invalid_request",
    ),
    (
        "large property",
        master_pb2.Mutation(set_properties=master_pb2.SetProperties(path="/", set={"{a}b": b"x" * 70_000})),
        "quota_exceeded",
    ),
    (
        "no token",
        master_pb2.Mutation(acquire_lock=master_pb2.AcquireLock(path="/f", scope="shared")),
        "invalid_request",
    ),
    (
        "odd scope",
        master_pb2.Mutation(acquire_lock=master_pb2.AcquireLock(path="/f", token="t", scope="mine")),
        "invalid_request",
    ),
]


@pytest.mark.parametrize(("mutation", "code"), [item[1:] for item in REFUSED], ids=[item[0] for item in REFUSED])
def test_nonsense_is_refused_alone(stub: NamespaceStub, mutation: master_pb2.Mutation, code: str) -> None:
    good = master_pb2.Mutation(make_directory=master_pb2.MakeDirectory(path="/good"))
    bad = master_pb2.Mutation()
    bad.CopyFrom(mutation)
    outcomes = mutate(stub, bad, good)
    assert failure_from_message(outcomes[0].failure).code == code
    assert outcomes[1].created


def test_every_mutation_has_a_message(stub: NamespaceStub) -> None:
    m = master_pb2
    batch = [
        m.Mutation(make_directory=m.MakeDirectory(path="/d")),
        m.Mutation(commit=m.Commit(path="/d/f")),
        m.Mutation(set_properties=m.SetProperties(path="/d/f", set={"{a}b": b"<b/>"}, created_at_ms=5)),
        m.Mutation(acquire_lock=m.AcquireLock(path="/d/f", token="t", scope="exclusive", owner=b"\xff", timeout_s=60)),
        m.Mutation(refresh_lock=m.RefreshLock(path="/d/f", token="t", timeout_s=90)),
        m.Mutation(release_lock=m.ReleaseLock(path="/d/f", token="t")),
        m.Mutation(copy=m.Copy(source="/d", target="/e")),
        m.Mutation(copy=m.Copy(source="/d", target="/e2", is_shallow=True)),
        m.Mutation(move=m.Move(source="/d", target="/e", overwrite=True)),
        m.Mutation(remove=m.Remove(path="/e")),
    ]
    outcomes = mutate(stub, *batch)
    assert [outcome.failure.code for outcome in outcomes] == [""] * len(batch)
    assert (outcomes[3].entry.locks[0].owner, outcomes[4].entry.locks[0].timeout_s) == (b"\xff", 90)
    listed = stub.ListTrash(m.ListTrashRequest(), timeout=TIMEOUT_S).items
    assert [item.path for item in listed] == ["/e", "/e"]
    more = mutate(
        stub,
        m.Mutation(restore_trashed=m.RestoreTrashed(id=listed[0].id)),
        m.Mutation(restore_trashed=m.RestoreTrashed(id=listed[1].id, target="/f")),
        m.Mutation(empty_trash=m.EmptyTrash()),
    )
    assert [outcome.failure.code for outcome in more] == ["", "", ""]
    names = {entry.name for entry in stub.List(m.ListRequest(path="/"), timeout=TIMEOUT_S).entries}
    assert names == {"e", "e2", "f"}


def test_refusals_of_reads_are_statuses(stub: NamespaceStub) -> None:
    for call, request, code in (
        (stub.Lookup, master_pb2.LookupRequest(path="/none"), "entry_not_found"),
        (stub.List, master_pb2.ListRequest(path="/none"), "entry_not_found"),
        (stub.Lookup, master_pb2.LookupRequest(path=""), "invalid_path"),
        (stub.ReadFeed, master_pb2.ReadFeedRequest(after=1 << 50), "history_lost"),
        (stub.Locate, master_pb2.LocateRequest(handles=range(10_001)), "quota_exceeded"),
    ):
        with pytest.raises(grpc.RpcError) as raised:
            call(request, timeout=TIMEOUT_S)
        error = error_from_rpc(raised.value, "master")
        assert isinstance(error, HeleniteError)
        assert error.code == code
