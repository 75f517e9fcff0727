"""Requests to the master or its replies are lost, or arrive late beside the repeat: each change happens once."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Many
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest

from helenite.client.filesystem import FileSystem
from helenite.client.rpc import ATTEMPT_S
from helenite.client.smallfiles import SmallFile, Stored
from helenite.config import ClientSettings
from helenite.core.errors import PreconditionFailedError
from helenite.core.model import Condition, Entry, Expect, LockScope, Sequence
from helenite.core.pb import common_pb2, master_pb2
from tests.support import manifest
from tests.support.cluster import Cluster
from tests.support.manifest import Content, Manifest, read_tree
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until

ABSENT = Condition(Expect.ABSENT)

Fault = Callable[[], AbstractContextManager[None]]


class Client(FileSystem):
    """Reaches the master through a proxy; `fault` strikes each commit, and only there in a write."""

    def __init__(self, master: str) -> None:
        super().__init__(ClientSettings(masters=(master,)))
        self.fault: Fault = nullcontext
        self._is_storing = False

    def commit(self, *arguments: Any, **options: Any) -> tuple[Entry, bool]:
        with self.fault():
            return super().commit(*arguments, **options)

    def _mutate_all(self, *arguments: Any, **options: Any) -> Any:
        """Also the commits of small files, which go in groups."""
        if self._is_storing:
            with self.fault():
                return super()._mutate_all(*arguments, **options)
        return super()._mutate_all(*arguments, **options)

    def _store_all(self, files: Many[SmallFile]) -> Many[Stored]:
        self._is_storing = True
        try:
            return super()._store_all(files)
        finally:
            self._is_storing = False


class Network:
    """The faults, and the master's own word on what has happened."""

    def __init__(self, proxy: Proxy, direct: FileSystem) -> None:
        self._proxy = proxy
        self._direct = direct

    def verbs_after(self, sequence: Sequence) -> list[str]:
        return [change.verb for change in self._direct.read_feed(sequence, limit=100)[0]]

    def last(self) -> Sequence:
        return self._direct.read_feed(Sequence(0), limit=1)[1]

    @contextmanager
    def lost_reply(self) -> Iterator[None]:
        """The change happens, its client does not hear of it, the connection ends."""
        before = self.last()
        with self._until(self._proxy.lose_replies, lambda: bool(self.verbs_after(before))):
            yield

    @contextmanager
    def lost_request(self) -> Iterator[None]:
        """It does not arrive, and the connection ends."""
        before = self._proxy.lost_bytes
        with self._until(self._proxy.lose_requests, lambda: self._proxy.lost_bytes > before):
            yield

    @contextmanager
    def late_request(self) -> Iterator[None]:
        """It arrives after the client has asked again: both do."""
        before = self._proxy.kept_count
        with self._until(
            self._proxy.keep_requests, lambda: self._proxy.kept_count > before, ATTEMPT_S + 0.3, ends=False
        ):
            yield

    @contextmanager
    def _until(
        self, begin: Callable[[], None], has_struck: Callable[[], bool], then_s: float = 0.0, *, ends: bool = True
    ) -> Iterator[None]:
        def strike() -> None:
            wait_until(has_struck, 10)
            threading.Event().wait(then_s)
            if ends:
                self._proxy.cut()
            self._proxy.heal()

        begin()
        with ThreadPoolExecutor(1) as pool:
            striking = pool.submit(strike)
            yield
            striking.result()


class Work:
    """Random mutations of one client, each held against its manifest, its answer and the feed."""

    def __init__(self, client: Client, network: Network, rng: random.Random) -> None:
        self.manifest = Manifest()
        self._client = client
        self._network = network
        self._rng = rng
        self._count = 0

    def step(self, fault: Fault) -> None:
        """One mutation under a fault: it is acknowledged, and the feed has it once."""
        verbs: tuple[Callable[[Fault], None], ...] = (self.write_new, self.lock_new, self.make_directory)
        if self._files():
            verbs += (self.overwrite, self.remove, self.move, self.move_over, self.copy)
        before = self._network.last()
        verb = self._rng.choice(verbs)
        verb(fault)
        found = self._network.verbs_after(before)
        assert len(found) == 1, f"{verb.__name__}: the feed has {found}"

    def _files(self) -> list[str]:
        return [path for path, what in self.manifest.tree.items() if what is not None]

    def _file(self) -> str:
        return self._rng.choice(self._files())

    def _fresh(self) -> str:
        self._count += 1
        return f"new {self._count}"

    def _write(self, path: str, condition: Condition, fault: Fault) -> tuple[Entry, bool]:
        content = Content(self._rng.getrandbits(40), self._rng.choice((0, 100, 70_000, 1_500_000)))
        self._client.fault = fault
        try:
            with self._client.create((path,), condition=condition) as writer:
                writer.write(content.whole())
                told = writer.commit()
        finally:
            self._client.fault = nullcontext
        self.manifest.happened(manifest.put(path, content))
        assert self._client.stat((path,)).revision == told[0].revision
        return told

    def write_new(self, fault: Fault) -> None:
        _, is_new = self._write(self._fresh(), ABSENT, fault)
        assert is_new

    def overwrite(self, fault: Fault) -> None:
        path = self._file()
        was = self._client.stat((path,))
        entry, is_new = self._write(path, Condition.exactly(was), fault)
        assert not is_new
        assert entry.revision > was.revision
        with pytest.raises(PreconditionFailedError):
            self._client.remove((path,), condition=Condition.exactly(was))

    def remove(self, fault: Fault) -> None:
        path = self._file()
        with fault():
            self._client.remove((path,))
        self.manifest.happened(manifest.remove(path))

    def make_directory(self, fault: Fault) -> None:
        path = self._fresh()
        with fault():
            self._client.make_directory((path,))
        self.manifest.happened(manifest.make_directory(path))

    def lock_new(self, fault: Fault) -> None:
        """A lock on a free name, which makes an empty file."""
        path, token = self._fresh(), f"urn:uuid:{self._rng.getrandbits(100)}"
        with fault():
            lock, _, is_new = self._client.lock(
                (path,), token=token, scope=LockScope.EXCLUSIVE, is_infinite=False, owner=b"", timeout_s=60
            )
        assert is_new
        assert lock.token == token
        self._client.unlock((path,), token=token, principal="")
        self.manifest.happened(manifest.put(path, Content(0, 0)))

    def move(self, fault: Fault) -> None:
        self._relocate(self._fresh(), manifest.move, FileSystem.move, fault)

    def copy(self, fault: Fault) -> None:
        self._relocate(self._fresh(), manifest.copy, FileSystem.copy, fault)

    def move_over(self, fault: Fault) -> None:
        self._relocate(self._file(), manifest.move, FileSystem.move, fault)

    def _relocate(
        self, target: str, effect: Callable[[str, str], manifest.Effect], act: Callable[..., Any], fault: Fault
    ) -> None:
        source = self._file()
        if source == target:
            target = self._fresh()
        was_there = target in self.manifest.tree
        with fault():
            _, is_new = act(self._client, (source,), (target,), overwrite=was_there)
        assert is_new != was_there
        self.manifest.happened(effect(source, target))


class Redirected:
    """A stub by which the call port seems to be elsewhere."""

    def __init__(self, stub: Any, address: str) -> None:
        self._stub = stub
        self._port = int(address.rpartition(":")[2])

    def FindCallPort(self, request: Any, timeout: float) -> master_pb2.CallPort:  # noqa: N802 - gRPC's name
        return master_pb2.CallPort(port=self._port, greeting=self._stub.FindCallPort(request, timeout=timeout).greeting)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stub, name)


@contextmanager
def by_grpc(cluster: Cluster) -> Iterator[tuple[Proxy, Client]]:
    with Proxy(cluster.masters[0]) as proxy, Client(proxy.address) as client:
        yield proxy, client


@contextmanager
def by_the_call_port(cluster: Cluster) -> Iterator[tuple[Proxy, Client]]:
    with Client(cluster.masters[0]) as client:
        lane = client.rpc._lanes[0]
        place = lane._stub.FindCallPort(common_pb2.Empty(), timeout=10)
        with Proxy(f"127.0.0.1:{place.port}") as proxy:
            lane._stub = Redirected(lane._stub, proxy.address)  # type: ignore[assignment]
            yield proxy, client


@pytest.mark.parametrize(("way", "call_port"), [(by_grpc, "no"), (by_the_call_port, "yes")])
def test_lost_requests_and_replies(
    tmp_path: Path,
    rng: random.Random,
    way: Callable[[Cluster], AbstractContextManager[tuple[Proxy, Client]]],
    call_port: str,
) -> None:
    """Whatever is lost, each mutation happens exactly once and its client is told the truth."""
    with Cluster(tmp_path / "c", "--workers", "1", environment={"HELENITE_CALL_PORT": call_port}) as cluster:
        with way(cluster) as (proxy, client), FileSystem(ClientSettings(masters=cluster.masters)) as direct:
            network = Network(proxy, direct)
            client.stat(())  # connects: a fault that strikes before would keep the request from being sent at all
            work = Work(client, network, rng)
            faults = [network.lost_reply] * 24 + [network.lost_request] * 10 + [network.late_request] * 2
            rng.shuffle(faults)
            for fault in faults:
                work.step(fault)
        with httpx.Client(base_url=cluster.url, timeout=60) as reader:
            assert work.manifest.settle(read_tree(reader, "")) == []
        cluster.check_fsck()
