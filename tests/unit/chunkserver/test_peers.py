"""Registration, heartbeats and orders, against masters that speak real gRPC and say what the test wants."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helenite.chunkserver.bad_replicas import SICK_AT
from helenite.chunkserver.dataport import DataPort
from helenite.chunkserver.dumps import Dumps
from helenite.chunkserver.masters import ATTEMPT_S, Masters
from helenite.chunkserver.peers import Peers, Place
from helenite.chunkserver.pulling import pull
from helenite.chunkserver.recheck import look_again
from helenite.chunkserver.store import ChunkStore
from helenite.core.errors import DuplicateServerError, ForeignClusterError, UnavailableError
from helenite.core.frames import capability_for
from helenite.core.model import ChunkHandle, Chunkserver, ServerId, ServerState
from helenite.core.pb import master_pb2
from helenite.core.wire import chunkserver_to_message
from tests.support.chunkstores import LARGE, assert_holds, put
from tests.support.master_service import CLUSTER, KEY, ScriptedMaster
from tests.support.waiting import wait_until

PLACE = Place("127.0.0.1:1", "127.0.0.1:2", "", "host", "rack")
OpenStore = Callable[..., ChunkStore]


def no_dumps(store: ChunkStore) -> Dumps:
    return Dumps(Path("/nonexistent"), 0, store.room.free_bytes)


@pytest.fixture
def masters() -> Iterator[list[ScriptedMaster]]:
    made = [ScriptedMaster(), ScriptedMaster()]
    yield made
    for master in made:
        master.stop()


@pytest.fixture
def join() -> Iterator[Callable[..., Peers]]:
    joined: list[Peers] = []

    def join_one(store: ChunkStore, *addresses: str) -> Peers:
        peers = Peers(store, addresses, no_dumps(store), on_crash=lambda: pytest.fail("the heartbeat crashed"))
        joined.append(peers)
        assert peers.join(PLACE, threading.Event()) == KEY
        peers.start()
        return peers

    yield join_one
    for peers in joined:
        peers.stop()


Join = Callable[..., Peers]


def test_the_first_registration_gives_the_identity(
    store: ChunkStore, masters: list[ScriptedMaster], join: Join
) -> None:
    put(store, 1, 1000)
    join(store, masters[0].address)
    assert (store.identity.cluster_id, store.identity.server_id) == (CLUSTER, 5)
    assert masters[0].registrations[0].cluster_id == ""
    wait_until(lambda: len(masters[0].beats) > 2)
    server = masters[0].beats[-1].server
    assert (server.id, server.pid, server.chunk_count, server.used_bytes) == (5, os.getpid(), 1, store.used_bytes())
    assert server.capacity_bytes >= server.free_bytes > 0


def test_data_of_another_cluster_is_refused(store: ChunkStore, masters: list[ScriptedMaster]) -> None:
    store.adopt("cd" * 16, ServerId(5))
    peers = Peers(store, (masters[0].address,), no_dumps(store), on_crash=lambda: None)
    with pytest.raises(ForeignClusterError):
        peers.join(PLACE, threading.Event())
    peers.stop()


def test_it_ends_when_another_process_has_its_identity(store: ChunkStore, masters: list[ScriptedMaster]) -> None:
    ends = threading.Event()
    peers = Peers(store, (masters[0].address,), no_dumps(store), on_crash=ends.set)
    peers.join(PLACE, threading.Event())
    peers.start()
    masters[0].knows, masters[0].knows_another = False, True
    assert ends.wait(10)
    assert isinstance(peers.refusal, DuplicateServerError)
    peers.stop()


def test_it_waits_for_a_master_and_can_be_stopped(store: ChunkStore) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    peers = Peers(store, (address,), no_dumps(store), on_crash=lambda: None)
    stopping = threading.Event()
    threading.Timer(0.3, stopping.set).start()
    with pytest.raises(UnavailableError):
        peers.join(PLACE, stopping)
    peers.stop()


def test_it_beats_to_masters_that_it_has_heard_of(store: ChunkStore, masters: list[ScriptedMaster], join: Join) -> None:
    first, second = masters
    second.is_leader = False
    first.others = [second.address]
    join(store, first.address)
    wait_until(lambda: len(second.beats) > 2)
    assert second.registrations, "a master that does not know us is registered with"
    first.others = []
    beats = len(first.beats)
    wait_until(lambda: len(first.beats) > beats + 2)
    heard = len(second.beats)
    wait_until(lambda: len(first.beats) > beats + 7)
    assert len(second.beats) <= heard + 1, "one was on its way; one that is no master any more is left alone"


def test_a_hung_master_does_not_silence_the_others(
    store: ChunkStore, masters: list[ScriptedMaster], join: Join
) -> None:
    first, second = masters
    join(store, first.address, second.address)
    wait_until(lambda: bool(second.beats))
    first.hangs.clear()
    before = len(second.beats)
    wait_until(lambda: len(second.beats) >= before + 20, within_s=30)  # one after the other, they take a minute


def test_a_master_in_trouble_is_not_waited_for(masters: list[ScriptedMaster]) -> None:
    """Repair is a chain of orders, one beat after the other: a hung master must not stretch each beat."""
    hung, well = masters
    hung.hangs.clear()
    known = Masters((hung.address, well.address))
    request, patience_s = master_pb2.HeartbeatRequest(), ATTEMPT_S + 1

    def hears_well_soon() -> bool:
        began = time.monotonic()
        replies = {reply.master for reply in known.beat_all(request, patience_s)}
        return well.address in replies and time.monotonic() - began < ATTEMPT_S / 3

    try:
        wait_until(hears_well_soon, 60)
        assert sum(hears_well_soon() or hears_well_soon() for _ in range(20)) == 20
    finally:
        known.close()


def test_a_master_that_comes_back_is_heard_again(store: ChunkStore, masters: list[ScriptedMaster], join: Join) -> None:
    first = masters[0]
    join(store, first.address)
    wait_until(lambda: bool(first.beats))
    first.stop()
    beats = len(first.beats)
    again = ScriptedMaster(int(first.address.rpartition(":")[2]))
    masters.append(again)
    wait_until(lambda: len(again.beats) > 2)
    assert again.registrations[0].cluster_id == CLUSTER
    assert len(first.beats) == beats


def test_deletions_are_carried_out_and_reported_until_the_leader_has_heard(
    store: ChunkStore, masters: list[ScriptedMaster], join: Join
) -> None:
    leader, standby = masters
    standby.is_leader = False
    kept = {handle: put(store, handle, 1000 if handle % 2 else LARGE) for handle in range(1, 7)}
    leader.orders.append(master_pb2.HeartbeatReply(delete=[1, 2, 3, 99]))
    join(store, leader.address, standby.address)
    wait_until(lambda: {handle for beat in leader.beats for handle in beat.deleted} == {1, 2, 3, 99})
    for handle in (1, 2, 3):
        del kept[handle]
    assert_holds(store, kept)
    wait_until(lambda: not leader.beats[-1].deleted)


def test_corrupt_replicas_are_reported_until_the_leader_has_heard(
    store: ChunkStore, masters: list[ScriptedMaster], join: Join
) -> None:
    leader, standby = masters
    leader.is_leader = standby.is_leader = False
    join(store, leader.address, standby.address)
    put(store, 1, 1000)
    store.bad.note_corrupt(ChunkHandle(1))
    wait_until(lambda: sum(1 in beat.corrupt for beat in standby.beats) > 2)
    leader.is_leader = True
    wait_until(lambda: not leader.beats[-1].corrupt)
    assert any(1 in beat.corrupt for beat in leader.beats)


def test_a_report_names_all_chunks_and_is_repeated_when_it_fails(
    store: ChunkStore, masters: list[ScriptedMaster], join: Join
) -> None:
    for handle in range(1, 30):
        put(store, handle, LARGE if handle == 7 else 100)
    masters[0].refuses_reports = 2
    masters[0].orders += [master_pb2.HeartbeatReply(must_report=True) for _ in range(20)]
    join(store, masters[0].address)
    wait_until(lambda: bool(masters[0].reports))
    assert masters[0].reports[0] == list(range(1, 30))


@pytest.mark.parametrize("size", [100, LARGE])
def test_a_report_does_not_name_what_went_while_it_was_sent(
    store: ChunkStore, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk that was freed or moved away meanwhile would count as a replica again."""
    monkeypatch.setattr("helenite.chunkserver.store.HANDLES_PAGE", 4)
    for handle in range(1, 21):
        put(store, handle, size)
    named = store.handles()
    assert next(named) == 1
    for handle in range(10, 15):
        store.delete(ChunkHandle(handle))
    assert list(named) == [*range(2, 10), *range(15, 21)]


def test_a_sick_disk_falls_silent_until_it_is_well(
    store: ChunkStore, masters: list[ScriptedMaster], join: Join
) -> None:
    """So the cluster counts on other replicas, and orders no deletion here."""
    for handle in range(1, SICK_AT + 1):
        put(store, handle, 100)
    join(store, masters[0].address)
    wait_until(lambda: len(masters[0].beats) > 2)
    for handle in range(1, SICK_AT + 1):
        store.bad.note_unreadable(ChunkHandle(handle))
    beats: list[int] = []

    def is_silent() -> bool:
        beats.append(len(masters[0].beats))
        return beats.count(beats[-1]) > 30  # looks of 10 ms, several times the pause between two beats

    wait_until(is_silent)
    look_again(store, threading.Event())
    wait_until(lambda: len(masters[0].beats) > beats[-1] + 2)
    assert not any(beat.corrupt for beat in masters[0].beats)


def test_a_data_directory_that_is_gone_makes_silent_and_is_told_once(
    store: ChunkStore, masters: list[ScriptedMaster], join: Join, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "helenite.chunkserver.peers")
    join(store, masters[0].address)
    wait_until(lambda: len(masters[0].beats) > 2)
    (tmp_path / "data").rename(tmp_path / "aside")
    wait_until(lambda: "no heartbeat" in caplog.text)
    heard = len(masters[0].beats)
    looks: list[int] = []
    wait_until(lambda: looks.append(len(masters[0].beats)) or len(looks) > 50)
    (tmp_path / "aside").rename(tmp_path / "data")
    wait_until(lambda: len(masters[0].beats) > heard + 2)
    assert looks[-1] <= heard + 1, "one was on its way"
    assert caplog.text.count("no heartbeat") == caplog.text.count("heartbeats go on") == 1


# Copying


@pytest.fixture
def source(open_store: OpenStore, tmp_path: Path) -> Iterator[tuple[ChunkStore, Chunkserver]]:
    """Another chunkserver with a data port."""
    store = open_store(tmp_path / "source")
    store.adopt(CLUSTER, ServerId(9))
    port = DataPort(store, 50)
    tcp, path = port.bind("127.0.0.1:0", str(tmp_path / "source.sock"))
    port.serve(KEY)
    yield store, describe(9, f"127.0.0.1:{tcp}", path)
    port.close()


def describe(number: int, address: str, path: str = "") -> Chunkserver:
    return Chunkserver(ServerId(number), "u", "", address, path, "h", "", 1, ServerState.ALIVE, 0, 0, 0, 0)


def replicate(handle: int, *sources: Chunkserver) -> master_pb2.HeartbeatReply:
    order = master_pb2.Replicate(
        handle=handle,
        sources=map(chunkserver_to_message, sources),
        capability=capability_for(KEY, ChunkHandle(handle)),
    )
    return master_pb2.HeartbeatReply(replicate=[order])


def result_of(master: ScriptedMaster, handle: int) -> master_pb2.CopyResult:
    """Waits for it."""
    found: list[master_pb2.CopyResult] = []

    def look() -> bool:
        found.extend(result for beat in master.beats for result in beat.copied if result.handle == handle)
        return bool(found)

    wait_until(look)
    return found[0]


@pytest.mark.parametrize("size", [1, 65536, 65537, 200_000, LARGE, 3 * LARGE])
def test_a_chunk_is_copied_from_a_source_that_has_it(
    store: ChunkStore, masters: list[ScriptedMaster], join: Join, source: tuple[ChunkStore, Chunkserver], size: int
) -> None:
    data = put(source[0], 1, size)
    dead = describe(8, "127.0.0.1:1")
    masters[0].orders.append(replicate(1, dead, source[1]))
    join(store, masters[0].address)
    assert not result_of(masters[0], 1).HasField("failure")
    assert_holds(store, {1: data})
    wait_until(lambda: not masters[0].beats[-1].copied)


@pytest.mark.parametrize("size", [200_000, LARGE])
def test_a_rotten_source_is_not_copied(
    store: ChunkStore, masters: list[ScriptedMaster], join: Join, source: tuple[ChunkStore, Chunkserver], size: int
) -> None:
    put(source[0], 1, size)
    with source[0].open(ChunkHandle(1)) as replica:
        path = Path(f"/proc/self/fd/{replica.descriptor}").readlink()
        with path.open("r+b") as file:
            file.seek(replica.offset + size - 10)
            file.write(b"rot!")
    masters[0].orders.append(replicate(1, source[1]))
    join(store, masters[0].address)
    assert result_of(masters[0], 1).failure.code == "chunk_corrupt"
    assert_holds(store, {})
    assert not any(store.files.unfinished.iterdir())


def test_a_copy_that_nobody_has_fails(
    store: ChunkStore, masters: list[ScriptedMaster], join: Join, source: tuple[ChunkStore, Chunkserver]
) -> None:
    masters[0].orders += [replicate(1, source[1]), replicate(2)]
    join(store, masters[0].address)
    assert result_of(masters[0], 1).failure.code == "chunk_not_found"
    assert result_of(masters[0], 2).failure.code == "chunk_not_found"


def test_a_good_replica_that_is_here_needs_no_source(store: ChunkStore) -> None:
    data = put(store, 1, LARGE)
    pull(store, ChunkHandle(1), (), b"", threading.Event())
    assert_holds(store, {1: data})


def test_a_replica_that_is_here_and_bad_is_replaced(
    store: ChunkStore, masters: list[ScriptedMaster], join: Join, source: tuple[ChunkStore, Chunkserver]
) -> None:
    data = put(source[0], 1, LARGE)
    put(store, 1, LARGE)
    with store.open(ChunkHandle(1)) as replica:
        os.truncate(Path(f"/proc/self/fd/{replica.descriptor}").readlink(), LARGE)
    masters[0].orders.append(replicate(1, source[1]))
    join(store, masters[0].address)
    assert not result_of(masters[0], 1).HasField("failure")
    assert_holds(store, {1: data})
