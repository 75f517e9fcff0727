"""Stores that close themselves when the test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helenite.chunkserver.store import ChunkStore


@pytest.fixture
def open_store() -> Iterator[Callable[..., ChunkStore]]:
    """Opens a store, to be closed when the test ends, if it has not been before."""
    opened: list[ChunkStore] = []

    def open_one(directory: Path, **options: object) -> ChunkStore:
        opened.append(ChunkStore(directory, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield open_one
    while opened:
        opened.pop().close()


@pytest.fixture
def store(tmp_path: Path, open_store: Callable[..., ChunkStore]) -> ChunkStore:
    return open_store(tmp_path / "data")
