"""Shared by the fault tests: a seed that is new each time and shown when the test fails; a disk that fails."""

from __future__ import annotations

import random
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.sick_disk import SickDisk, build


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Seeded at random; to repeat a failure, put the printed seed here."""
    seed = secrets.randbelow(1_000_000)
    print(f"{request.node.name}: seed {seed}")  # noqa: T201 - pytest shows it with a failure
    return random.Random(seed)


@pytest.fixture(scope="session")
def sick_disk_library(tmp_path_factory: pytest.TempPathFactory, need: Callable[..., None]) -> Path:
    if sys.platform != "linux":
        pytest.skip("the calls that fail are those of Linux' C library")
    need("gcc")
    return build(tmp_path_factory.mktemp("sick-disk"))


@pytest.fixture
def disk(tmp_path: Path, sick_disk_library: Path) -> SickDisk:
    """Well until a test says otherwise."""
    return SickDisk(tmp_path / "sick-disk", sick_disk_library)
