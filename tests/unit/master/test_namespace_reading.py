"""Listings in pages, the feed and its end, sequences up the tree."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from helenite.core import errors
from helenite.core.model import Sequence
from helenite.master.mutations import MakeDirectory, SetProperties
from helenite.master.namespace import Namespace
from tests.support.entries import at, copy, mkdir, move, names, put, remove


def fill(namespace: Namespace, text: str, count: int) -> None:
    mutations = [(i.to_bytes(16, "big"), MakeDirectory((*at(text), f"entry-{i}"))) for i in range(count)]
    for first in range(0, count, 1000):
        namespace.mutate(mutations[first : first + 1000])


def test_a_small_directory_comes_whole(namespace: Namespace) -> None:
    fill(namespace, "/", 4096)
    page = namespace.list_directory((), limit=10)
    assert (len(page.entries), page.cursor) == (4096, 0)


def test_a_large_directory_comes_in_pages_while_it_changes(namespace: Namespace) -> None:
    mkdir(namespace, "/d")
    fill(namespace, "/d", 5000)
    seen: set[str] = set()
    cursor, pages = 0, 0
    while True:
        page = namespace.list_directory(at("/d"), cursor=cursor)
        assert len(page.entries) < 1500
        assert page.directory.name == "d"
        seen |= {stored.name for stored in page.entries}
        cursor, pages = page.cursor, pages + 1
        mkdir(namespace, f"/d/new-{pages}")
        if cursor == 0:
            break
    assert pages >= 4
    assert seen >= {f"entry-{i}" for i in range(5000)}


def test_names_are_bytes_like_any_other(namespace: Namespace) -> None:
    odd = ["%s%d[^", "ü", "u\u0308", " ", "\n", "a" * 255, "*", "{x}", "\x01", "日本語", "😀", "-0", "1"]
    for name in odd:
        put(namespace, f"/{name}")
    assert names(namespace, "/") == sorted(odd)
    for name in odd:
        assert namespace.lookup((name,)).entry.name == name


def test_a_directory_carries_the_highest_sequence_beneath(namespace: Namespace) -> None:
    for text in ("/a", "/a/b", "/a/b/c", "/x"):
        mkdir(namespace, text)

    def revisions() -> list[int]:
        return [namespace.lookup(at(text)).entry.revision for text in ("/", "/a", "/a/b", "/a/b/c", "/x")]

    before = revisions()
    deep = put(namespace, "/a/b/c/f")
    assert revisions() == [deep.revision] * 4 + before[4:]
    assert {stored.entry.revision for stored in namespace.list_directory(()).entries} == {deep.revision, before[4]}
    sequence = move(namespace, "/a/b/c/f", "/x/f").sequence
    assert revisions() == [sequence] * 5
    sequence = namespace.apply(SetProperties(at("/a/b"), {"{p}q": b""})).sequence
    assert revisions()[:3] == [sequence] * 3
    sequence = remove(namespace, "/a/b/c").sequence
    assert namespace.lookup(at("/a/b")).entry.revision == sequence


def test_the_feed_tells_every_change_in_order(namespace: Namespace) -> None:
    mkdir(namespace, "/a")
    directory = namespace.lookup(at("/a")).entry
    entry = put(namespace, "/a/f")
    copy(namespace, "/a", "/b")
    move(namespace, "/a/f", "/b/g")
    remove(namespace, "/b")
    changes, last = namespace.read_feed(Sequence(0), 100)
    assert [(change.sequence, change.verb, change.path, change.source) for change in changes] == [
        (1, "make_directory", "/a", ""),
        (2, "commit", "/a/f", ""),
        (3, "copy", "/b", "/a"),
        (4, "move", "/b/g", "/a/f"),
        (5, "remove", "/b", ""),
    ]
    assert last == 5
    assert changes[1].id == entry.id
    assert changes[1].parents == (directory.id, 1)
    assert set(changes[3].parents) == {directory.id, 1, changes[2].id}
    assert namespace.read_feed(Sequence(3), 1)[0] == [changes[3]]
    assert namespace.read_feed(Sequence(5), 10) == ([], 5)


def test_a_reader_of_the_feed_is_woken(namespace: Namespace) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(namespace.read_feed, Sequence(0), 10, 30.0)
        mkdir(namespace, "/d")
        changes, _ = waiting.result(timeout=10)
    assert [change.path for change in changes] == ["/d"]


def test_a_reader_of_the_feed_waits_no_longer_than_it_says(namespace: Namespace) -> None:
    done = threading.Event()

    def read() -> None:
        assert namespace.read_feed(Sequence(0), 10, 0.05) == ([], 0)
        done.set()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(read)
        assert done.wait(10)


def test_a_trimmed_feed_says_so(namespace: Namespace) -> None:
    for i in range(300):
        mkdir(namespace, f"/{i}")
    namespace._store.command("XTRIM", "feed", "MAXLEN", "100")
    with pytest.raises(errors.SequenceExpiredError):
        namespace.read_feed(Sequence(199), 10)
    assert namespace.read_feed(Sequence(200), 1)[0][0].sequence == 201
    namespace._store.command("XTRIM", "feed", "MAXLEN", "0")
    with pytest.raises(errors.SequenceExpiredError):
        namespace.read_feed(Sequence(299), 10)
    assert namespace.read_feed(Sequence(300), 10) == ([], 300)
