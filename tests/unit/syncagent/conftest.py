"""Agents with real folders and a server in memory; what lies behind a gateway for those that have a real one."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.support.memory_filesystem import MemoryFileSystem
from tests.support.sync_server import MemoryServer
from tests.support.sync_world import Agent, Make, World


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make_world(count: int = 1, **abilities: bool) -> World:
        return World(tmp_path, Random(0), MemoryServer(**abilities), count)  # type: ignore[arg-type]

    return make_world


@pytest.fixture
def world(make: Make) -> World:
    return make()


@pytest.fixture
def agent(world: World) -> Agent:
    return world.agents[0]


@pytest.fixture
def server(world: World) -> MemoryServer:
    return world.server


@pytest.fixture
def fs() -> MemoryFileSystem:
    """What a gateway serves, for tests that speak WebDAV with it; `/home` is there."""
    found = MemoryFileSystem()
    found.make_directory(("home",))
    return found
