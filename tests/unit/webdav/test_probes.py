"""Finder's probes cost no round trips, and a name that was written is never denied."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.gateways import our_server, serving
from tests.support.memory_filesystem import MemoryFileSystem
from tests.support.raw_http import Client
from webdav.app import Application

FINDER = {"User-Agent": "WebDAVFS/3.0.0 (03008000) Darwin/23.0.0 (arm64)"}


class Workers:
    """Two workers of one gateway on one file system."""

    def __init__(self, clients: list[Client], file_system: MemoryFileSystem) -> None:
        self.first, self.second = clients
        self.file_system = file_system


@pytest.fixture
def workers() -> Iterator[Workers]:
    file_system = MemoryFileSystem()
    apps = [Application(file_system) for _ in range(2)]  # type: ignore[arg-type]
    with serving(our_server(apps[0])) as one, serving(our_server(apps[1])) as two:
        yield Workers([Client(*server.bind_addr) for server in (one, two)], file_system)


def probe(client: Client, target: str) -> int:
    return client("PROPFIND", target, {"Depth": "0", **FINDER}).status


def browse(client: Client, target: str = "/") -> None:
    assert client("PROPFIND", target, {"Depth": "1", **FINDER}).status == 207


def test_probes_after_a_listing_cost_nothing(workers: Workers) -> None:
    workers.first.put("/a", b"x")
    workers.first.put("/._b", b"real")
    browse(workers.first)
    workers.file_system.calls.clear()
    for method in ("PROPFIND", "GET", "HEAD"):
        assert workers.first(method, "/._a", {"Depth": "0", **FINDER}).status == 404
    assert probe(workers.first, "/.DS_Store") == 404
    assert workers.file_system.calls == {}
    assert probe(workers.first, "/._b") == 207
    assert probe(workers.first, "/a") == 207
    assert workers.file_system.calls == {"lookup": 2}


def test_only_finder_gets_such_answers(workers: Workers) -> None:
    browse(workers.first)
    workers.file_system.calls.clear()
    assert workers.first.get("/._a").status == 404
    assert workers.file_system.calls == {"lookup": 1}


@pytest.mark.parametrize("method", ["PUT", "MKCOL", "LOCK", "COPY", "MOVE"])
def test_what_one_worker_writes_no_worker_denies(workers: Workers, method: str) -> None:
    workers.first.put("/source", b"x")
    for client in (workers.first, workers.second):
        browse(client)
        assert probe(client, "/._a") == 404
    if method == "LOCK":
        assert workers.first.lock("/._a").status == 201
    else:
        headers = {"Destination": "/._a"} if method in {"COPY", "MOVE"} else {}
        target = "/source" if headers else "/._a"
        assert workers.first(method, target, headers).status == 201
    assert probe(workers.first, "/._a") == 207
    assert probe(workers.second, "/._a") == 207


def test_a_listing_counts_only_while_the_feed_is_followed(workers: Workers) -> None:
    browse(workers.first)
    workers.file_system.coherence.keep_fresh(0)
    workers.file_system.calls.clear()
    assert probe(workers.first, "/._a") == 404
    assert workers.file_system.calls == {"lookup": 1}


def test_writes_elsewhere_keep_the_listing(workers: Workers) -> None:
    assert workers.first("MKCOL", "/here").status == 201
    browse(workers.first, "/here/")
    assert workers.second.put("/picture.jpg", b"x").status == 201
    workers.file_system.calls.clear()
    assert probe(workers.first, "/here/._picture.jpg") == 404
    assert workers.file_system.calls == {}
