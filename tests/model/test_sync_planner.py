"""The planner against random pairs of trees: it comes to an end, both sides agree, and no content is lost.

A seed that fails is named; `run(Random(seed))` replays it.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.sync_fuzz import run, run_holding, run_mirrored, run_picky

SHARES = 2
"""CI has two cores."""
RUNS = {run: 100_000, run_mirrored: 10_000, run_holding: 10_000, run_picky: 10_000}
BY_NAME = {function.__name__: function for function in RUNS}


def try_seeds(name: str, seeds: range) -> None:
    for seed in seeds:
        try:
            BY_NAME[name](Random(seed))
        except Exception as error:
            raise AssertionError(f"{name}(Random({seed})): {error!r}") from error


@pytest.mark.parametrize("name", BY_NAME)
def test_random_trees(name: str) -> None:
    count = RUNS[BY_NAME[name]]
    with ProcessPoolExecutor(SHARES, multiprocessing.get_context("spawn")) as pool:
        shares = [pool.submit(try_seeds, name, range(share, count, SHARES)) for share in range(SHARES)]
        for share in shares:
            share.result()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.randoms(use_true_random=False))
def test_trees_that_hypothesis_thinks_of(random: Random) -> None:
    """The same as `run`, but what fails is made small."""
    run(random)


@pytest.mark.parametrize(
    ("function", "seed"),
    [
        (run, 12434),  # a conflict copy in a directory that is deleted
        (run, 29705),  # a failed step between a move aside and the move back
        (run_mirrored, 853),  # moved aside before it was seen to be rescued
        (run, 14665),  # a directory is deleted while what shall leave it cannot yet
    ],
)
def test_what_went_wrong_once(function: object, seed: int) -> None:
    assert callable(function)
    function(Random(seed))
