"""Many clients on the same names: no 5xx, one winner, and a final tree that one order of the operations explains.

Each name has clients that write, delete, copy and move it at once. An order exists if every acknowledged effect can be
placed between its request and its reply; it is checked for each name by its history, a register read at the end.
"""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest

from tests.support.cluster import Cluster

THREADS = 10
EACH = 100
"""Operations of each thread, at least."""
SECONDS = 4
SLOW_SECONDS = 60


@dataclass(frozen=True)
class Write:
    """A PUT or DELETE of a name: what it left, when it was asked for and when it was answered."""

    content: bytes | None
    asked_at: float
    answered_at: float


def could_be_last(history: list[Write], final: bytes | None) -> bool:
    """Whether some write that left `final` need not have happened before another acknowledged one."""
    candidates = [write for write in history if write.content == final]
    return any(
        not any(other.asked_at > write.answered_at for other in history if other is not write) for write in candidates
    ) or (final is None and not history)


class Mixed:
    """One thread's random work on names that all threads share."""

    def __init__(self, url: str, seed: int, histories: dict[str, list[Write]], lock: threading.Lock) -> None:
        self._rng = random.Random(seed)
        self._client = httpx.Client(base_url=url, timeout=60)
        self._histories = histories
        self._lock = lock
        self.statuses: dict[int, int] = {}

    def run(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        with self._client:
            while time.monotonic() < deadline or sum(self.statuses.values()) < EACH:
                self._step()

    def _step(self) -> None:
        rng = self._rng
        name, other = rng.sample([f"/mixed/{letter}" for letter in "abcdef"], 2)
        match rng.choice(("put", "put", "get", "delete", "copy", "move", "list", "lock")):
            case "put":
                content = rng.randbytes(rng.choice((0, 10, 5000)))
                self._write(name, content, lambda: self._client.put(name, content=content))
            case "delete":
                self._write(name, None, lambda: self._client.delete(name))
            case "get":
                self._count(self._client.get(name))
            case "list":
                self._count(self._client.request("PROPFIND", "/mixed", headers={"Depth": "1"}))
            case "copy":
                # Into a name of its own: what is copied is not known to the histories.
                self._count(self._client.request("COPY", name, headers={"Destination": other + ".copy"}))
            case "move":
                self._count(self._client.request("MOVE", other + ".copy", headers={"Destination": name + ".moved"}))
            case "lock":
                self._count(self._client.request("PROPPATCH", name, content=PROPPATCH))

    def _write(self, name: str, content: bytes | None, call: object) -> None:
        asked_at = time.monotonic()
        reply = call()  # type: ignore[operator]
        self._count(reply)
        if reply.is_success:
            with self._lock:
                self._histories.setdefault(name, []).append(Write(content, asked_at, time.monotonic()))

    def _count(self, reply: httpx.Response) -> None:
        self.statuses[reply.status_code] = self.statuses.get(reply.status_code, 0) + 1
        assert reply.status_code < 500, reply.text


PROPPATCH = (
    '<?xml version="1.0"?><propertyupdate xmlns="DAV:"><set><prop><x xmlns="urn:t">1</x></prop></set></propertyupdate>'
)


@pytest.mark.parametrize("seconds", [SECONDS, pytest.param(SLOW_SECONDS, marks=pytest.mark.slow)])
def test_mixed_operations_on_the_same_names(shared_cluster: Cluster, seconds: int) -> None:
    histories: dict[str, list[Write]] = {}
    lock = threading.Lock()
    assert httpx.request("MKCOL", shared_cluster.url + "mixed", timeout=60).status_code == 201
    workers = [Mixed(shared_cluster.url, seed, histories, lock) for seed in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(worker.run, seconds) for worker in workers]:
            done.result()
    for name, history in histories.items():
        reply = httpx.get(shared_cluster.url.rstrip("/") + name, timeout=60)
        final = reply.content if reply.status_code == 200 else None
        assert could_be_last(history, final), name
    assert httpx.delete(shared_cluster.url + "mixed", timeout=60).status_code == 204
    shared_cluster.check_fsck()


def race(url: str, headers: dict[str, str], path: str, count: int) -> list[int]:
    barrier = threading.Barrier(count)

    def put(number: int) -> int:
        with httpx.Client(base_url=url, timeout=60) as client:
            client.get("/")
            barrier.wait()
            return client.put(path, content=f"writer {number}", headers=headers).status_code

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(put, range(count)))


def test_of_many_creators_exactly_one_wins(shared_cluster: Cluster) -> None:
    statuses = race(shared_cluster.url, {"If-None-Match": "*"}, "/created once", 20)
    assert sorted(statuses) == [201] + [412] * 19


def test_of_many_conditional_writers_exactly_one_wins(shared_cluster: Cluster) -> None:
    etag = httpx.put(shared_cluster.url + "swapped once", content=b"old", timeout=60).headers["ETag"]
    statuses = race(shared_cluster.url, {"If-Match": etag}, "/swapped once", 20)
    assert sorted(statuses) == [204] + [412] * 19
    assert httpx.get(shared_cluster.url + "swapped once", timeout=60).text.startswith("writer ")


def test_readers_see_whole_revisions(shared_cluster: Cluster) -> None:
    url = shared_cluster.url + "whole"
    revisions = [bytes([number]) * 200_000 for number in range(5)]
    httpx.put(url, content=revisions[0], timeout=60)
    stopping = threading.Event()

    def write() -> None:
        with httpx.Client(timeout=60) as client:
            while not stopping.is_set():
                for revision in revisions:
                    assert client.put(url, content=revision).is_success

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write) for _ in range(2)]
        with httpx.Client(timeout=60) as client:
            for _ in range(200):
                content = client.get(url).content
                assert len(content) == 200_000
                assert len(set(content)) == 1
        stopping.set()
        for writer in writers:
            writer.result()


def test_what_one_connection_wrote_another_sees_at_once(shared_cluster: Cluster) -> None:
    """Two connections usually mean two workers; nothing may be stale between them."""
    with (
        httpx.Client(base_url=shared_cluster.url, timeout=60) as writer,
        httpx.Client(base_url=shared_cluster.url, timeout=60) as reader,
    ):
        writer.request("MKCOL", "/seen")
        for number in range(300):
            writer.put(f"/seen/{number}", content=b"")
            listing = reader.request("PROPFIND", "/seen", headers={"Depth": "1"}).text
            assert f"/seen/{number}<" in listing
            writer.delete(f"/seen/{number}")
            assert reader.get(f"/seen/{number}").status_code == 404
