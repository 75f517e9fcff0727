"""Networks lose replies, delay, fall apart and hang half-open: nothing happens twice, clients hear the truth."""

from __future__ import annotations

import random
import threading
import time
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
from tests.chaos.findings import Findings
from tests.support import manifest
from tests.support.cluster import Cluster
from tests.support.load import failures_after, load, work_goes_on
from tests.support.manifest import Content, Manifest, read_tree
from tests.support.parts import Parts
from tests.support.proxy import Proxy
from tests.support.redis import running_redis
from tests.support.sentinels import free_ports
from tests.support.waiting import wait_until

READ_STALL_S = 3.0
WRITE_STALL_S = 5.0
REDIS_PARTITION_S = 5.0
REDIS_DELAY_S = 0.2
STALL_S = 4.0
"""Longer than the patience with one write, so that it runs out."""
FAULT_S = 1.0
HEALED_S = 60.0
ABSENT = Condition(Expect.ABSENT)
LIVENESS = {"HELENITE_SUSPECT_AFTER_S": "2", "HELENITE_DEAD_AFTER_S": "4"}


# Lost requests and replies between a client and the master

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
        with httpx.Client(base_url=cluster.url) as reader:
            assert work.manifest.settle(read_tree(reader, "")) == []
        cluster.check_fsck()


# Load through gateways while a network between two parts fails


def test_redis_is_cut_off_or_far_away(tmp_path: Path, rng: random.Random) -> None:
    """Requests wait or get 503, nothing is doubled, and what was on its way arrives late."""
    findings = Findings()
    with (
        running_redis(durable=True) as server,
        Proxy(Path(server.url.removeprefix("unix://").partition("?")[0])) as proxy,
        Cluster(
            tmp_path / "c",
            "--workers",
            "1",
            environment={"HELENITE_REDIS_URL": f"redis://{proxy.address}/0", "HELENITE_DEADLINE_S": "8"},
        ) as cluster,
    ):
        with load(cluster, rng, findings, proxy.heal):
            work_goes_on(findings)
            proxy.partition()
            threading.Event().wait(REDIS_PARTITION_S)
            assert proxy.kept_count > 0
            proxy.heal()
            work_goes_on(findings)
            proxy.refuse()
            wait_until(lambda: bool(findings.failures), 20)
            proxy.heal()
            work_goes_on(findings)
            healed_at = time.monotonic()
            proxy.delay(REDIS_DELAY_S)
            work_goes_on(findings, 10, 60)
            proxy.heal()
            work_goes_on(findings)
        assert [found for found in findings.failures if not found.why.startswith("503 ")] == []
        assert failures_after(findings, healed_at) == []
        cluster.check_fsck()


def behind_proxies(control: int, data: int) -> dict[str, str]:
    """A chunkserver that others reach at 127.0.0.2, where proxies listen."""
    return {
        "HELENITE_CHUNKSERVER_LISTEN": f"127.0.0.1:{control}",
        "HELENITE_DATA_LISTEN": f"127.0.0.1:{data}",
        "HELENITE_ADVERTISE_HOST": "127.0.0.2",
    }


def test_a_data_port_is_cut_off(tmp_path: Path, rng: random.Random) -> None:
    """While the master hears the chunkserver as ever: no request fails, and stalls are short."""
    findings = Findings()
    control, data = free_ports(2)
    with (
        Proxy(f"127.0.0.1:{control}", f"127.0.0.2:{control}"),
        Proxy(f"127.0.0.1:{data}", f"127.0.0.2:{data}") as proxy,
        Parts(tmp_path / "c", of={"chunkserver-1": behind_proxies(control, data)}) as cluster,
    ):
        for path in cluster.directory.glob("chunkserver-*/data.sock"):
            path.unlink()  # as on hosts of their own
        with load(cluster, rng, findings, proxy.heal):
            work_goes_on(findings)
            for fault, lasts_s in (
                (proxy.partition, STALL_S),
                (proxy.lose_replies, FAULT_S),
                (proxy.lose_requests, FAULT_S),
                (proxy.refuse, FAULT_S),
            ):
                passed = proxy.passed_bytes
                assert passed > 0
                fault()
                threading.Event().wait(lasts_s)
                work_goes_on(findings)
                proxy.cut()
                proxy.heal()
                wait_until(lambda passed=passed: proxy.passed_bytes > passed, 30)  # it is used again
        assert failures_after(findings, 0) == []
        assert findings.slowest_s["GET"] < READ_STALL_S, findings.slowest_s
        assert findings.slowest_s["PUT"] < WRITE_STALL_S, findings.slowest_s
        wait_until(lambda: cluster.helenite("fsck").returncode == 0, HEALED_S)


def test_a_chunkserver_is_cut_off_from_the_master(tmp_path: Path, rng: random.Random) -> None:
    """It is suspect, then dead, its chunks are copied; when it is back, surplus replicas go.

    Masters are known by two addresses: the others by their settings, the one cut off by the proxy's only.
    """
    port = free_ports(1)[0]
    master = f"127.0.0.1:{port}"
    told = Manifest()
    with (
        Proxy(master, f"127.0.0.2:{port}") as proxy,
        Parts(
            tmp_path / "c",
            chunkservers=4,
            master=master,
            environment=LIVENESS | {"HELENITE_MASTER_ADVERTISE": proxy.address},
            of={"chunkserver-1": {"HELENITE_MASTERS": proxy.address}},
        ) as cluster,
        httpx.Client(base_url=cluster.url, timeout=60) as client,
    ):
        write_files(client, told, "before", 60, rng)
        wait_until(lambda: all(server["chunks"] > 10 for server in cluster.status()["chunkservers"]), 20)
        proxy.partition()
        write_files(client, told, "unnoticed", 10, rng)
        wait_until(lambda: states(cluster).count("alive") == 3, 20)  # suspect, or dead if this machine is slow
        write_files(client, told, "suspect", 10, rng)
        wait_until(lambda: states(cluster).count("dead") == 1, 20)
        write_files(client, told, "dead", 10, rng)
        assert states(cluster).count("alive") == 3
        wait_until(lambda: cluster.status()["chunks"]["under_replicated"] == 0, HEALED_S)
        assert surplus(cluster) > 0  # it still holds what others hold for it now
        proxy.heal()
        wait_until(lambda: states(cluster).count("alive") == 4, 20)
        wait_until(lambda: surplus(cluster) == 0, HEALED_S)
        wait_until(lambda: cluster.helenite("fsck").returncode == 0, HEALED_S)
        assert told.settle(read_tree(client, "")) == []


def write_files(client: httpx.Client, told: Manifest, prefix: str, count: int, rng: random.Random) -> None:
    for number in range(count):
        path, content = f"{prefix} {number}", Content(rng.getrandbits(40), rng.choice((4_000, 60_000, 1_500_000)))
        client.put(f"/{path}", content=content.whole()).raise_for_status()
        told.happened(manifest.put(path, content))


def states(cluster: Cluster) -> list[str]:
    return [server["state"] for server in cluster.status()["chunkservers"]]


def surplus(cluster: Cluster) -> int:
    """Replicas beyond three of each chunk."""
    status = cluster.status()
    return sum(server["chunks"] for server in status["chunkservers"]) - 3 * status["chunks"]["total"]
