"""One Redis for all tests of this directory, a fresh space for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from helenite.master.namespace import Namespace
from tests.support.redis import open_namespace, running_redis


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    with running_redis() as server:
        yield server.url


@pytest.fixture
def namespace(redis_url: str) -> Iterator[Namespace]:
    with open_namespace(redis_url) as opened:
        yield opened


@pytest.fixture
def epoch(namespace: Namespace) -> int:
    """Of the master that leads, which is that of the test."""
    return namespace.acquire_leadership("m", 600_000)[1]
