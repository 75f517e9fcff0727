"""No stale answers: not from other workers, only for a moment from other gateways, not while the feed is cut."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from helenite.client.follower import FRESH_S, WAIT_S
from tests.support.cluster import Cluster
from tests.support.waiting import wait_until

NAMED = (
    '<?xml version="1.0"?><D:propfind xmlns:D="DAV:"><D:prop><D:getetag/><D:getcontentlength/></D:prop></D:propfind>'
)
SEEN = 6
"""Answers while a worker hangs."""
READERS = 6
"""Connections; the kernel spreads them over the workers."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("coherence"), "--workers", "3") as running:
        yield running


@pytest.fixture
def readers(cluster: Cluster) -> Iterator[list[httpx.Client]]:
    made = [httpx.Client(base_url=cluster.url, timeout=30) for _ in range(READERS)]
    yield made
    for client in made:
        client.close()


def names(client: httpx.Client, directory: str) -> dict[str, str]:
    """Names in a directory, with their ETags, as one listing shows them."""
    reply = client.request("PROPFIND", directory, headers={"Depth": "1"}, content=NAMED)
    assert reply.status_code == 207
    found = {}
    for part in reply.text.split("<D:response>")[1:]:
        href, _, rest = part.removeprefix("<D:href>").partition("</D:href>")
        found[href.removeprefix(directory).rstrip("/")] = rest.partition("<D:getetag>")[2].partition("</D:getetag>")[0]
    return found


class Directory:
    """A directory and what must be in it."""

    def __init__(self, writer: httpx.Client, path: str, seed: int) -> None:
        self.writer, self.path, self.random = writer, path, random.Random(seed)
        self.content: dict[str, bytes] = {}
        writer.request("MKCOL", path).raise_for_status()

    def change(self, number: int) -> None:
        """Create, overwrite, move, copy or delete one file."""
        name = f"f{self.random.randrange(12)}"
        other = f"f{self.random.randrange(12)}"
        verb = self.random.choice(["PUT", "PUT", "PUT", "DELETE", "MOVE", "COPY"])
        if verb == "PUT" or name not in self.content or name == other:
            self.content[name] = b"%d" % number
            self.writer.put(self.path + name, content=self.content[name]).raise_for_status()
        elif verb == "DELETE":
            self.writer.delete(self.path + name).raise_for_status()
            del self.content[name]
        else:
            self.writer.request(verb, self.path + name, headers={"Destination": self.path + other}).raise_for_status()
            self.content[other] = self.content[name]
            if verb == "MOVE":
                del self.content[name]

    def check(self, reader: httpx.Client) -> None:
        """What another connection sees is what was acknowledged."""
        listed = names(reader, self.path)
        assert set(listed) - {""} == set(self.content)
        name = f"f{self.random.randrange(12)}"
        reply = reader.get(self.path + name)
        if name in self.content:
            assert (reply.status_code, reply.content) == (200, self.content[name])
            assert reply.headers["ETag"] == listed[name]
        else:
            assert reply.status_code == 404


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    return 10_000 if request.config.getoption("--slow") else 600


@pytest.mark.timeout(900)
def test_what_was_acknowledged_is_seen_on_every_connection(
    cluster: Cluster, readers: list[httpx.Client], rounds: int
) -> None:
    with httpx.Client(base_url=cluster.url, timeout=30) as writer:
        directory = Directory(writer, "/d/", seed=20)
        for number in range(rounds):
            directory.change(number)
            directory.check(readers[number % READERS])


def test_everything_beneath_moves_with_its_directory(cluster: Cluster, readers: list[httpx.Client]) -> None:
    with httpx.Client(base_url=cluster.url, timeout=30) as writer:
        for path in ("/tree", "/tree/in"):
            writer.request("MKCOL", path).raise_for_status()
        writer.put("/tree/in/f", content=b"x").raise_for_status()
        for number in range(10):
            here, there = ("/tree", "/moved") if number % 2 == 0 else ("/moved", "/tree")
            for reader in readers:
                assert reader.get(f"{here}/in/f").content == b"x"
                assert reader.get(f"{there}/in/f").status_code == 404
                assert "f" in names(reader, f"{here}/in/")
            writer.request("MOVE", here, headers={"Destination": there}).raise_for_status()


def test_a_directorys_etag_changes_with_everything_beneath(cluster: Cluster, readers: list[httpx.Client]) -> None:
    with httpx.Client(base_url=cluster.url, timeout=30) as writer:
        for path in ("/up", "/up/a", "/up/a/b"):
            writer.request("MKCOL", path).raise_for_status()
        before = [names(reader, "/up/")["a"] for reader in readers]
        writer.put("/up/a/b/f", content=b"x").raise_for_status()
        after = [names(reader, "/up/")["a"] for reader in readers]
        assert len(set(before)) == len(set(after)) == 1
        assert before[0] != after[0]


class Gateway:
    """A second gateway of the same cluster."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        environment = os.environ | {
            "HELENITE_MASTERS": ",".join(cluster.masters),
            "HELENITE_WEBDAV_LISTEN": "127.0.0.1:0",
            "HELENITE_WEBDAV_WORKERS": "1",
        }
        self.log = directory / "gateway.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "webdav"], env=environment, stderr=log)
        wait_until(lambda: "serving on" in self.log.read_text(), 30)
        port = self.log.read_text().partition("port ")[2].split()[0]
        self.url = f"http://127.0.0.1:{port}"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def second(cluster: Cluster, tmp_path: Path) -> Iterator[httpx.Client]:
    gateway = Gateway(cluster, tmp_path)
    with httpx.Client(base_url=gateway.url, timeout=30) as client:
        yield client
    gateway.stop()


def test_another_gateway_sees_changes_at_once(cluster: Cluster, second: httpx.Client) -> None:
    delays = []
    with httpx.Client(base_url=cluster.url, timeout=30) as first:
        for number in range(30):
            content = b"%d" % number
            assert second.get("/far").status_code == (404 if number == 0 else 200)
            first.put("/far", content=content).raise_for_status()
            written = time.monotonic()
            wait_until(lambda content=content: second.get("/far").content == content, 30)
            delays.append(time.monotonic() - written)
    # Work beside this may delay most of them, and makes none quicker. Who asks now and then hears a quarter of the
    # changes within a quarter of that time; nobody asks more often than each WAIT_S.
    assert sorted(delays)[len(delays) // 4] < WAIT_S / 5, delays


def test_while_the_feed_is_cut_nothing_remembered_is_told(cluster: Cluster, second: httpx.Client) -> None:
    """The worker that follows the feed hangs: the others ask the masters, as soon as they cannot rely on the table."""
    with httpx.Client(base_url=cluster.url, timeout=60) as client:
        second.put("/cut", content=b"before").raise_for_status()
        wait_until(lambda: client.get("/cut").content == b"before", 30)
    for _ in range(12):  # by every worker
        assert httpx.get(cluster.url + "cut", timeout=60).content == b"before"
    follower = next(
        process
        for process in cluster.processes()
        if process.cmdline()[3:4] == ["--worker"] and process.cmdline()[7] == "0"
    )
    follower.suspend()
    try:
        second.put("/cut", content=b"after").raise_for_status()
        threading.Event().wait(FRESH_S + 0.5)
        seen = 0
        for _ in range(60):
            if seen == SEEN:
                break
            try:
                reply = httpx.get(cluster.url + "cut", timeout=1)
            except httpx.TimeoutException:
                continue  # the worker that hangs
            assert reply.content == b"after"
            seen += 1
        assert seen == SEEN
    finally:
        follower.resume()
