"""Who has to keep the contract: the fake that the gateway's tests stand on, and the real cluster.

Each test works in a directory of its own, so that the real cluster can be shared by all of them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from helenite.client.filesystem import FileSystem
from helenite.core.paths import Path
from tests.support.memory_filesystem import MemoryFileSystem


@pytest.fixture(params=["memory", "real"])
def fs(request: pytest.FixtureRequest) -> Iterator[FileSystem]:
    if request.param == "memory":
        with MemoryFileSystem() as made:
            yield made  # type: ignore[misc]
        return
    yield request.getfixturevalue("real_filesystem")


@pytest.fixture
def home(fs: FileSystem) -> Path:
    path = (f"contract-{uuid.uuid4().hex[:12]}",)
    fs.make_directory(path)
    return path
