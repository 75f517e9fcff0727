"""Each refusal of the mutations, repeats, and races that must have one winner."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from helenite.core import errors
from helenite.core.errors import HeleniteError
from helenite.core.model import Condition, Expect, Extent, Kind, Location, Sequence
from helenite.master.mutations import Commit, EmptyTrash, MakeDirectory, Move, Remove, RestoreTrashed, SetProperties
from helenite.master.namespace import Namespace
from tests.support.entries import at, copy, entry_of, fresh_commit, mkdir, move, names, put, remove
from tests.support.redis import open_namespace
from tests.support.redis_audit import audit

ABSENT = Condition(Expect.ABSENT)
PRESENT = Condition(Expect.PRESENT)
STALE = Condition(Expect.EXACT, 2, 10**6)


@pytest.fixture
def tree(namespace: Namespace) -> Namespace:
    """/d/f, /d/e/ and /f."""
    mkdir(namespace, "/d")
    mkdir(namespace, "/d/e")
    put(namespace, "/d/f")
    put(namespace, "/f")
    return namespace


REFUSALS: list[tuple[str, type[HeleniteError], Callable[[Namespace], object]]] = [
    ("read nothing", errors.EntryNotFoundError, lambda n: n.lookup(at("/x"))),
    ("read through a file", errors.EntryNotFoundError, lambda n: n.lookup(at("/f/x"))),
    ("read without parent", errors.EntryNotFoundError, lambda n: n.lookup(at("/x/y"))),
    ("list nothing", errors.EntryNotFoundError, lambda n: n.list_directory(at("/x"))),
    ("list a file", errors.WrongKindError, lambda n: n.list_directory(at("/f"))),
    ("put without parent", errors.ParentNotFoundError, lambda n: put(n, "/x/y")),
    ("put through a file", errors.ParentNotFoundError, lambda n: put(n, "/f/y")),
    ("put on a directory", errors.WrongKindError, lambda n: put(n, "/d")),
    ("put on the root", errors.WrongKindError, lambda n: put(n, "/")),
    ("put new on old", errors.PreconditionFailedError, lambda n: put(n, "/f", 1, ABSENT)),
    ("put old on nothing", errors.PreconditionFailedError, lambda n: put(n, "/x", 1, PRESENT)),
    ("put stale", errors.PreconditionFailedError, lambda n: put(n, "/f", 1, STALE)),
    ("put stale on nothing", errors.PreconditionFailedError, lambda n: put(n, "/x", 1, STALE)),
    ("mkdir on a directory", errors.EntryExistsError, lambda n: mkdir(n, "/d")),
    ("mkdir on a file", errors.EntryExistsError, lambda n: mkdir(n, "/f")),
    ("mkdir on the root", errors.EntryExistsError, lambda n: mkdir(n, "/")),
    ("mkdir new on old", errors.PreconditionFailedError, lambda n: mkdir(n, "/d", ABSENT)),
    ("mkdir without parent", errors.ParentNotFoundError, lambda n: mkdir(n, "/x/y")),
    ("remove nothing", errors.EntryNotFoundError, lambda n: remove(n, "/x")),
    ("remove through a file", errors.EntryNotFoundError, lambda n: remove(n, "/f/x")),
    ("remove the root", errors.PermissionDeniedError, lambda n: remove(n, "/")),
    ("remove stale", errors.PreconditionFailedError, lambda n: remove(n, "/d", STALE)),
    ("move nothing", errors.EntryNotFoundError, lambda n: move(n, "/x", "/y")),
    ("move without parent", errors.ParentNotFoundError, lambda n: move(n, "/f", "/x/y")),
    ("move over without overwrite", errors.PreconditionFailedError, lambda n: move(n, "/f", "/d")),
    ("move onto itself", errors.CycleError, lambda n: move(n, "/f", "/f", overwrite=True)),
    ("move into itself", errors.CycleError, lambda n: move(n, "/d", "/d/e/x")),
    ("move deep into itself", errors.CycleError, lambda n: move(n, "/d", "/d/no/such")),
    ("move over its parent", errors.CycleError, lambda n: move(n, "/d/f", "/d", overwrite=True)),
    ("move the root", errors.CycleError, lambda n: move(n, "/", "/x")),
    ("move over the root", errors.CycleError, lambda n: move(n, "/f", "/", overwrite=True)),
    ("copy into itself", errors.CycleError, lambda n: copy(n, "/d", "/d/x")),
    ("copy over its parent", errors.CycleError, lambda n: copy(n, "/d/f", "/d", overwrite=True)),
    ("copy onto itself", errors.CycleError, lambda n: copy(n, "/d", "/d", overwrite=True, is_shallow=True)),
    ("copy without parent", errors.ParentNotFoundError, lambda n: copy(n, "/d", "/x/y")),
    ("copy over without overwrite", errors.PreconditionFailedError, lambda n: copy(n, "/d", "/f")),
    ("properties of nothing", errors.EntryNotFoundError, lambda n: n.apply(SetProperties(at("/x"), {"{a}b": b""}))),
    ("restore nothing", errors.EntryNotFoundError, lambda n: n.apply(RestoreTrashed(4711))),
    ("feed of the future", errors.HistoryLostError, lambda n: n.read_feed(Sequence(10**9), 1)),
]


@pytest.mark.parametrize(("error", "act"), [item[1:] for item in REFUSALS], ids=[item[0] for item in REFUSALS])
def test_refused_without_a_trace(
    tree: Namespace, error: type[HeleniteError], act: Callable[[Namespace], object]
) -> None:
    before = tree.last_sequence()
    with pytest.raises(error) as raised:
        act(tree)
    assert type(raised.value) is error
    assert str(raised.value)
    assert tree.last_sequence() == before


def test_shared_chunks_need_the_exact_revision(namespace: Namespace) -> None:
    old = put(namespace, "/f", 2)
    shared = namespace.lookup(at("/f")).entry.extents[:1]
    with pytest.raises(errors.InvalidRequestError):
        namespace.apply(Commit(at("/f"), 100, shared, ()))
    with pytest.raises(errors.InvalidRequestError):
        namespace.apply(Commit(at("/g"), 100, shared, ()))
    namespace.apply(Commit(at("/f"), 100, shared, (), condition=Condition.exactly(old)))
    with pytest.raises(errors.PreconditionFailedError):
        namespace.apply(Commit(at("/f"), 100, shared, (), condition=Condition.exactly(old)))


def test_chunks_may_be_shared_with_the_exact_revision_of_another_file(namespace: Namespace) -> None:
    old, source = put(namespace, "/f", 1), put(namespace, "/s", 20)
    extents = namespace.lookup(at("/s")).entry.extents[3:]
    size, exact = sum(extent.length for extent in extents), Condition.exactly(source)
    commit = Commit(at("/f"), size, extents, (), condition=Condition.exactly(old), source=at("/s"))
    for condition, error in (
        (Condition(Expect.EXACT, source.id, Sequence(1)), errors.PreconditionFailedError),
        (Condition.exactly(old), errors.PreconditionFailedError),
    ):
        with pytest.raises(error):
            namespace.apply(replace(commit, source_condition=condition))
    mkdir(namespace, "/d")
    directory = namespace.lookup(at("/d")).entry
    with pytest.raises(errors.WrongKindError):
        namespace.apply(replace(commit, source=at("/d"), source_condition=Condition.exactly(directory)))
    namespace.apply(replace(commit, source_condition=exact))
    assert namespace.lookup(at("/f")).entry.extents == extents
    audit(namespace._store)
    remove(namespace, "/s")
    namespace.apply(EmptyTrash())
    audit(namespace._store)


def test_chunks_are_committed_once_and_only_if_allocated(namespace: Namespace) -> None:
    commit = fresh_commit(namespace, "/f")
    namespace.apply(commit)
    with pytest.raises(errors.InvalidRequestError):
        namespace.apply(Commit(at("/g"), 100, commit.extents, commit.fresh))
    never = Location(999_999, (1,), b"")
    with pytest.raises(errors.InvalidRequestError):
        namespace.apply(Commit(at("/g"), 1, (Extent(never.handle, 0, 1),), (never,)))


def test_an_id_survives_overwriting_and_moving(namespace: Namespace) -> None:
    first = put(namespace, "/f")
    namespace.apply(SetProperties(at("/f"), {"{a}b": b"<b/>"}))
    second = put(namespace, "/f", 2)
    assert (second.id, second.created_at_ms) == (first.id, first.created_at_ms)
    assert second.revision > first.revision
    moved = entry_of(move(namespace, "/f", "/g"))
    assert (moved.id, moved.revision) == (second.id, second.revision)
    assert namespace.lookup(at("/g"), with_properties=True).properties == {"{a}b": b"<b/>"}
    copied = entry_of(copy(namespace, "/g", "/h"))
    assert copied.id != moved.id
    assert namespace.lookup(at("/h"), with_properties=True).properties == {"{a}b": b"<b/>"}


def test_times(namespace: Namespace) -> None:
    mkdir(namespace, "/d")
    namespace.apply(SetProperties(at("/d"), {}, modified_at_ms=1000, created_at_ms=500))
    assert namespace.lookup(at("/d")).entry.modified_at_ms == 1000
    commit = fresh_commit(namespace, "/d/f")
    namespace.apply(Commit(commit.path, 100, commit.extents, commit.fresh, 777))
    found = namespace.lookup(at("/d")).entry
    assert found.modified_at_ms > 1000, "a new member modifies its directory"
    assert found.created_at_ms == 500
    assert namespace.lookup(at("/d/f")).entry.modified_at_ms == 777
    namespace.apply(SetProperties(at("/d"), {}, modified_at_ms=2000))
    put(namespace, "/d/f")
    assert namespace.lookup(at("/d")).entry.modified_at_ms == 2000, "new content of a member does not"


def test_a_long_file_is_stored_beside_its_record(namespace: Namespace) -> None:
    put(namespace, "/f", 300)
    found = namespace.lookup(at("/f"), with_locations=True)
    assert len(found.entry.extents) == 300
    assert len(found.replicas) == 256
    (listed,) = namespace.list_directory((), with_locations=True).entries
    assert listed.entry.lacks_extents
    copy(namespace, "/f", "/g")
    assert namespace.lookup(at("/g")).entry.extents == found.entry.extents
    put(namespace, "/f", 1)
    audit(namespace._store)


def test_a_repeat_is_answered_with_the_first_outcome(redis_url: str, namespace: Namespace) -> None:
    mkdir(namespace, "/d")
    operation = secrets.token_bytes(16)
    mutations = [
        fresh_commit(namespace, "/f"),
        Remove(at("/d")),
        MakeDirectory(at("/n")),
    ]
    with open_namespace(redis_url, namespace._store.prefix.strip("{}:")) as other:
        for mutation in mutations:
            operation = secrets.token_bytes(16)
            first = namespace.mutate([(operation, mutation)])
            sequence = namespace.last_sequence()
            assert other.mutate([(operation, mutation), (operation, mutation)]) == first * 2
            assert namespace.last_sequence() == sequence
    assert 0 < namespace._store._client.ttl(namespace._store.prefix.encode() + b"op:" + operation) <= 120


def test_one_failing_mutation_stops_no_other(namespace: Namespace) -> None:
    batch = [MakeDirectory(at("/a")), MakeDirectory(at("/a")), MakeDirectory(at("/a/b"))]
    results = namespace.mutate([(secrets.token_bytes(16), mutation) for mutation in batch])
    assert [isinstance(result, HeleniteError) for result in results] == [False, True, False]
    assert names(namespace, "/a") == ["b"]


@pytest.mark.parametrize("expect", [Expect.ABSENT, Expect.EXACT])
def test_of_fifty_conditional_writers_one_wins(namespace: Namespace, expect: Expect) -> None:
    condition = Condition(Expect.ABSENT)
    if expect is Expect.EXACT:
        condition = Condition.exactly(put(namespace, "/f"))
    commits = [fresh_commit(namespace, "/f", 1, condition) for _ in range(50)]
    with ThreadPoolExecutor(50) as pool:
        results = list(pool.map(lambda c: namespace.mutate([(secrets.token_bytes(16), c)])[0], commits))
    winners = [result for result in results if not isinstance(result, HeleniteError)]
    assert len(winners) == 1
    assert all(isinstance(r, errors.PreconditionFailedError) for r in results if isinstance(r, HeleniteError))
    assert namespace.lookup(at("/f")).entry == winners[0].entry
    audit(namespace._store)


def test_crossing_moves_make_no_cycle(namespace: Namespace) -> None:
    with ThreadPoolExecutor(2) as pool:
        for i in range(100):
            mkdir(namespace, f"/a{i}")
            mkdir(namespace, f"/b{i}")
            moves = [Move(at(f"/a{i}"), at(f"/b{i}/x"), False), Move(at(f"/b{i}"), at(f"/a{i}/x"), False)]
            results = list(pool.map(lambda m: namespace.mutate([(secrets.token_bytes(16), m)])[0], moves))
            assert sum(isinstance(result, HeleniteError) for result in results) == 1
    audit(namespace._store)
    assert namespace.usage().directory_count == 200


def test_trash_keeps_the_tree_and_gives_it_back(namespace: Namespace) -> None:
    mkdir(namespace, "/d")
    put(namespace, "/d/f", 2)
    mine = Condition(principal="ann")
    remove(namespace, "/d", mine)
    put(namespace, "/g")
    remove(namespace, "/g", Condition(principal="bob"))
    assert [item.path for item in namespace.list_trash()] == ["/g", "/d"]
    (item,) = namespace.list_trash("ann")
    assert (item.path, item.kind, item.size_bytes, item.principal) == ("/d", Kind.DIRECTORY, 200, "ann")
    assert namespace.usage().file_count == 0
    mkdir(namespace, "/d")
    with pytest.raises(errors.EntryExistsError):
        namespace.apply(RestoreTrashed(item.id))
    with pytest.raises(errors.ParentNotFoundError):
        namespace.apply(RestoreTrashed(item.id, at("/no/such")))
    namespace.apply(RestoreTrashed(item.id, at("/d/old")))
    assert names(namespace, "/d/old") == ["f"]
    assert namespace.usage().file_bytes == 200
    namespace.apply(EmptyTrash((namespace.list_trash()[0].id,)))
    assert namespace.list_trash() == []
    audit(namespace._store)


def test_emptied_trash_cannot_be_restored(namespace: Namespace) -> None:
    put(namespace, "/f")
    remove(namespace, "/f")
    (item,) = namespace.list_trash()
    namespace.apply(EmptyTrash())
    assert namespace.list_trash() == []
    with pytest.raises(errors.EntryNotFoundError):
        namespace.apply(RestoreTrashed(item.id))
    put(namespace, "/g")
    remove(namespace, "/g")
    assert [kept.path for kept in namespace.list_trash()] == ["/g"]


def test_without_trash_what_is_removed_is_gone(redis_url: str) -> None:
    with open_namespace(redis_url, trash_s=0) as namespace:
        mkdir(namespace, "/d")
        put(namespace, "/d/f")
        put(namespace, "/g")
        remove(namespace, "/d")
        remove(namespace, "/g")
        assert namespace.list_trash() == []
        audit(namespace._store)


def test_moving_over_an_entry_trashes_it(namespace: Namespace) -> None:
    mkdir(namespace, "/d")
    put(namespace, "/d/f")
    put(namespace, "/g")
    outcome = move(namespace, "/g", "/d", overwrite=True)
    assert not outcome.is_created
    assert [item.path for item in namespace.list_trash()] == ["/d"]
    assert namespace.usage().directory_count == 0
    audit(namespace._store)


def test_properties_have_a_maximum(namespace: Namespace) -> None:
    put(namespace, "/f")
    for first in range(0, 1000, 200):
        namespace.apply(SetProperties(at("/f"), {f"{{a}}{i}": b"" for i in range(first, first + 200)}))
    with pytest.raises(errors.QuotaExceededError):
        namespace.apply(SetProperties(at("/f"), {"{a}more": b""}))
    copy(namespace, "/f", "/g")
    assert len(namespace.lookup(at("/g"), with_properties=True).properties) == 1000
    namespace.apply(SetProperties(at("/f"), {}, tuple(f"{{a}}{i}" for i in range(1000))))
    assert namespace.lookup(at("/f"), with_properties=True).properties == {}
