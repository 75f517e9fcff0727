"""Answers kept: while they hold, up to a size, whole ones only."""

from __future__ import annotations

import math

import pytest

from helenite.client.coherence import Coherence
from tests.support.gateways import our_gateway
from tests.support.memory_filesystem import MemoryFileSystem
from webdav.renderings import ANSWER_BYTES_MAX, BYTES_MAX, Renderings

NAMED = b'<D:propfind xmlns:D="DAV:"><D:prop><D:getetag/></D:prop></D:propfind>'
QUOTA = b'<D:propfind xmlns:D="DAV:"><D:prop><D:quota-used-bytes/></D:prop></D:propfind>'
LOCKS = b'<D:propfind xmlns:D="DAV:"><D:prop><D:lockdiscovery/></D:prop></D:propfind>'


@pytest.fixture
def coherence() -> Coherence:
    made = Coherence()
    made.keep_fresh(math.inf)
    return made


def fill(kept: Renderings, coherence: Coherence, key: str, *pieces: bytes) -> None:
    assert list(kept.keep(key, coherence.observe((key,)), iter(pieces))) == list(pieces)


def test_an_answer_is_kept_until_something_changes(coherence: Coherence) -> None:
    kept = Renderings(coherence)
    fill(kept, coherence, "a", b"one ", b"two")
    assert kept.find("a") == b"one two"
    assert kept.find("b") is None
    coherence.keep_fresh(0)
    assert kept.find("a") is None
    coherence.keep_fresh(math.inf)
    assert kept.find("a") == b"one two"
    coherence.touch(("a", "b"))
    assert kept.find("a") is None


def test_nothing_is_answered_from_memory_when_that_is_not_wanted() -> None:
    table = Coherence(vouches=False)
    table.keep_fresh(math.inf)
    kept = Renderings(table)
    fill(kept, table, "a", b"one")
    assert kept.find("a") is None


def test_an_answer_that_changed_while_it_was_written_does_not_hold(coherence: Coherence) -> None:
    kept = Renderings(coherence)
    pieces = kept.keep("a", coherence.observe(("a",)), iter([b"1", b"2"]))
    next(pieces)
    coherence.touch(("a",))
    list(pieces)
    assert kept.find("a") is None


def test_an_answer_that_breaks_off_is_not_kept(coherence: Coherence) -> None:
    kept = Renderings(coherence)
    pieces = kept.keep("a", coherence.observe(("a",)), iter([b"1", b"2"]))
    next(pieces)
    pieces.close()
    assert kept.find("a") is None


def test_large_answers_pass_and_old_ones_leave(coherence: Coherence) -> None:
    kept = Renderings(coherence)
    fill(kept, coherence, "huge", bytes(ANSWER_BYTES_MAX), b"x")
    assert kept.find("huge") is None
    count = BYTES_MAX // ANSWER_BYTES_MAX
    for number in range(count):
        fill(kept, coherence, str(number), bytes(ANSWER_BYTES_MAX))
    assert kept.find("0") is not None
    fill(kept, coherence, "more", b"x")
    assert kept.find("1") is None, "the least recently used"
    assert kept.find("0") is not None


def test_the_second_listing_costs_nothing_and_a_change_ends_it() -> None:
    file_system = MemoryFileSystem()
    with our_gateway(file_system) as client:
        client.put("/a", b"x")
        first = client("PROPFIND", "/", {"Depth": "1"}, NAMED)
        file_system.calls.clear()
        assert client("PROPFIND", "/", {"Depth": "1"}, NAMED).body == first.body
        assert file_system.calls == {}
        client.put("/b", b"x")
        assert b"<D:href>/b</D:href>" in client("PROPFIND", "/", {"Depth": "1"}, NAMED).body


@pytest.mark.parametrize("query", [QUOTA, LOCKS, b""])
def test_what_the_feed_is_silent_about_is_asked_each_time(query: bytes) -> None:
    file_system = MemoryFileSystem()
    with our_gateway(file_system) as client:
        for _ in range(2):
            file_system.calls.clear()
            assert client("PROPFIND", "/", {"Depth": "1"}, query).status == 207
            assert file_system.calls["list"] == 1
