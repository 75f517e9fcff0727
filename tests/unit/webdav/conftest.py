"""One server for the tests of a module; each gives it an application of its own, on a file system in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.gateways import our_server, serving
from tests.support.memory_filesystem import MemoryFileSystem
from tests.support.raw_http import Client
from webdav.app import Application
from webdav.server import Server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(our_server(None, threads=8)) as made:
        yield made


@pytest.fixture
def fs() -> MemoryFileSystem:
    return MemoryFileSystem()


@pytest.fixture
def client(server: Server, fs: MemoryFileSystem) -> Iterator[Client]:
    """Two of its requests may wait for changes."""
    app = server.wsgi_app = Application(fs, threads=4)  # type: ignore[arg-type]
    yield Client(*server.bind_addr)
    app.close()
