"""The table of stamps: what a change ends, in this process and in others."""

from __future__ import annotations

import multiprocessing
import os

import pytest

from helenite.client.coherence import TABLE_BYTES, Coherence
from helenite.core.paths import Path, parse_path


def ended_by(change: str, answers: list[str]) -> set[str]:
    table = Coherence()
    observed = {text: table.observe(parse_path(text)) for text in answers}
    assert all(map(table.holds, observed.values()))
    table.touch(parse_path(change))
    return {text for text in answers if not table.holds(observed[text])}


@pytest.mark.parametrize(
    ("change", "ended"),
    [
        ("/a/b", {"/", "/a", "/a/b", "/a/b/c", "/a/b/c/d"}),
        ("/a/b/c/d", {"/", "/a", "/a/b", "/a/b/c", "/a/b/c/d"}),
        ("/x", {"/", "/x"}),
        ("/a/other", {"/", "/a"}),
        ("/", {"/", "/a", "/a/b", "/a/b/c", "/a/b/c/d", "/x", "/a/e", "/ab"}),
    ],
)
def test_a_change_ends_what_lies_above_and_beneath(change: str, ended: set[str]) -> None:
    answers = ["/", "/a", "/a/b", "/a/b/c", "/a/b/c/d", "/x", "/a/e", "/ab"]
    assert ended_by(change, answers) == ended


def test_everything_may_end() -> None:
    table = Coherence()
    observed = table.observe(("a",))
    table.touch_all()
    assert not table.holds(observed)


def test_it_is_fresh_until_then() -> None:
    table = Coherence()
    assert not table.is_fresh(5.0)
    table.keep_fresh(6.0)
    assert table.is_fresh(5.0)
    assert not table.is_fresh(6.0)


def test_a_table_that_only_tells_of_changes_vouches_for_nothing() -> None:
    for vouches in (True, False):
        table = Coherence(vouches=vouches)
        assert not table.vouches(5.0)
        table.keep_fresh(6.0)
        assert table.vouches(5.0) == vouches
        assert table.is_fresh(5.0)
        assert not table.vouches(6.0)


def _touch(descriptor: int, path: Path) -> None:
    Coherence(descriptor).touch(path)


def test_other_processes_see_it() -> None:
    descriptor = os.memfd_create("test")
    os.ftruncate(descriptor, TABLE_BYTES)
    table = Coherence(descriptor)
    observed, elsewhere = table.observe(("ü", "b")), table.observe(("c",))
    process = multiprocessing.get_context("fork").Process(target=_touch, args=(descriptor, ("ü", "b")))
    process.start()
    process.join(10)
    assert process.exitcode == 0
    assert not table.holds(observed)
    assert table.holds(elsewhere)
    os.close(descriptor)
