"""The soak test itself works, as README names it; the long runs are started by hand."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cluster import LANES_OFF

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("environment", [{}, LANES_OFF], ids=["lanes on", "lanes off"])
def test_a_short_run(rng: random.Random, tmp_path: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--minutes", "0.3", "--seed", str(rng.randrange(1_000_000))],
        capture_output=True, text=True, timeout=580, check=False, cwd=tmp_path,
        env=os.environ | environment | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    (log,) = tmp_path.glob("chaos-*.json")
    outcome = json.loads(log.read_text())
    assert outcome["wrong"] == [], done.stdout
    assert done.returncode == 0
    assert sum(outcome["operations"].values()) > 100
    assert outcome["faults"]
