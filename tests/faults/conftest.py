"""Shared by the fault tests: a seed that is new each time and shown when the test fails."""

from __future__ import annotations

import random
import secrets

import pytest


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Seeded at random; to repeat a failure, put the printed seed here."""
    seed = secrets.randbelow(1_000_000)
    print(f"{request.node.name}: seed {seed}")  # noqa: T201 - pytest shows it with a failure
    return random.Random(seed)
