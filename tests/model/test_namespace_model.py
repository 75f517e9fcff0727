"""The namespace against a model, through two masters on one real Redis, with the books recounted after every step."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from helenite.core.errors import HeleniteError
from helenite.core.model import Condition, Entry, EntryId, Expect, Extent, Kind, Location, LockScope, Sequence, ServerId
from helenite.core.paths import Path, format_path
from helenite.master.mutations import (
    AcquireLock,
    Commit,
    Copy,
    EmptyTrash,
    MakeDirectory,
    Move,
    Mutation,
    Outcome,
    RefreshLock,
    ReleaseLock,
    Remove,
    RestoreTrashed,
    SetDigest,
    SetProperties,
)
from helenite.master.namespace import Namespace
from helenite.master.store import Store
from tests.model.namespace_model import Model, Node
from tests.support.entries import ordered
from tests.support.redis_audit import CONSTANTS, audit, keys

NAMES = ["a", "b", "%d+[^", "ü \n"]
TOKENS = ["t1", "t2", "t3"]
PRINCIPALS = ["", "ann"]
paths = st.lists(st.sampled_from(NAMES), max_size=3).map(tuple)
spots = st.tuples(st.sampled_from("eeeeccccr"), st.integers(0, 40), st.sampled_from(NAMES), paths)
"""An existing entry, a new name in an existing directory, or any path; see `at`."""
masters = st.integers(0, 1)
digests = st.sampled_from([b"", b"a" * 32, b"b" * 32])
expects = st.sampled_from([Expect.ANY] * 6 + list(Expect))
token_sets = st.sampled_from([(), (), ("t1",), ("t1", "t2"), ("t1", "t2", "t3")])
principals = st.sampled_from(["", "", "", "ann"])


class NamespaceMachine(RuleBasedStateMachine):
    """Two masters and a model that always agree."""

    url: str

    @initialize()
    def open(self) -> None:
        store = Store(self.url, "model")
        store._client.flushdb()
        self.masters = [Namespace(opened, trash_s=3600) for opened in (store, Store(self.url, "model"))]
        self.store = self.masters[0]._store
        self.model = Model()
        self.epoch = self.masters[0].acquire_leadership("leader", 3_600_000)[1]
        self.sequence = 0
        self.expected_change: tuple[str, Path, Path] | None = None
        self.seen: dict[int, tuple[Any, int]] = {}  # directory -> what was beneath it, at which sequence
        self.learn()

        for mutation in (MakeDirectory(("a",)), MakeDirectory(("a", "b")), MakeDirectory(("a", "a"))):
            self.apply(0, mutation)
            self.books_are_right()
        for path in (("b",), ("a", "b", "a"), ("a", "a", "b")):
            handle = self.masters[0].next_handles(1)
            extents, fresh = (Extent(handle, 0, 100),), (Location(handle, (ServerId(1), ServerId(2)), b""),)
            self.apply(0, Commit(path, 100, extents, fresh))
            self.books_are_right()

    def at(self, spot: tuple[str, int, str, Path]) -> Path:
        """The path that a drawn spot means in the present tree."""
        kind, index, name, path = spot
        if kind == "r":
            return path
        known = sorted(path for path, entry in self.entries.items() if kind == "e" or entry.is_directory)
        chosen = known[index % len(known)]
        return chosen if kind == "e" else (*chosen, name)

    def learn(self) -> None:
        """Read the whole tree: compare it with the model and take over the ids that only Redis can know."""
        self.revisions: dict[int, int] = {}
        self.entries: dict[Path, Entry] = {}
        self._learn((), self.model.root)

    def _learn(self, path: Path, node: Node) -> Any:
        page = self.masters[len(path) % 2].list_directory(path, with_properties=True, with_locks=True)
        entry = page.directory.entry
        found = {stored.name: stored for stored in page.entries}
        assert set(found) == set(node.children), format_path(path)
        beneath = []
        for name, child in node.children.items():
            inherited = {lock.token for lock in page.directory.locks if lock.is_infinite}
            self._compare((*path, name), child, found[name], inherited)
            inner = self._learn((*path, name), child) if child.kind is Kind.DIRECTORY else None
            beneath.append((name, found[name].record[:1] + found[name].record[18:42], found[name].properties, inner))
        self._note(path, node, entry)
        fingerprint = (sorted(beneath, key=lambda item: item[0]), page.directory.properties)
        before = self.seen.get(entry.id)
        if before is not None and before[0] != fingerprint:
            assert entry.revision > before[1], f"{format_path(path)} changed, its sequence did not"
        self.seen[entry.id] = (fingerprint, entry.revision)
        return fingerprint

    def _compare(self, path: Path, node: Node, stored: Any, inherited: set[str]) -> None:
        entry = stored.entry
        assert entry.kind is node.kind
        assert entry.size_bytes == node.size_bytes
        assert stored.properties == node.properties
        assert entry.id not in self.revisions
        if node.kind is Kind.FILE:
            looked_up = self.masters[0].lookup(path)
            assert looked_up.entry.extents == node.extents
            assert entry.sha256 == looked_up.entry.sha256 == node.sha256
            self._note(path, node, looked_up.entry)
        covering = {token for token, lock in self.model.locks.items() if lock.covers(path)}
        assert {lock.token for lock in stored.locks} | inherited == covering
        assert all(lock.path == format_path(self.model.locks[lock.token].path) for lock in stored.locks)

    def _note(self, path: Path, node: Node, entry: Entry) -> None:
        assert node.id in (None, entry.id), "an id follows its entry"
        if node.kind is Kind.FILE:
            assert node.revision in (None, entry.revision), "only a commit makes a revision"
            node.revision = entry.revision
        node.id = entry.id
        self.revisions[entry.id] = entry.revision
        self.entries[path] = entry

    def condition(self, expect: Expect, path: Path, tokens: tuple[str, ...], principal: str) -> Condition:
        entry = self.entries.get(path)
        entry_id, revision = (entry.id, entry.revision) if entry else (EntryId(1), Sequence(0))
        return Condition(expect, entry_id, revision, tokens, principal)

    def apply(self, master: int, mutation: Mutation) -> Outcome | None:
        """Do it in both worlds: the same refusal, or the same change; a repeat answers the same."""
        try:
            expected: Any = self.model.apply(mutation, self.revisions)
        except HeleniteError as error:
            expected = type(error)
        operation = secrets.token_bytes(16)
        (result,) = self.masters[master].mutate([(operation, mutation)])
        if isinstance(result, HeleniteError):
            assert type(result) is expected, str(result)
            self.expected_change = None
            return None
        assert not isinstance(expected, type), f"should have been refused with {expected}"
        assert self.masters[1 - master].mutate([(operation, mutation)]) == [result]
        self.expected_change = expected
        if self.model.trash and self.model.trash[-1].id == 0:
            self.model.trash[-1].id = result.sequence
        return result

    @rule(
        master=masters,
        spot=spots,
        expect=expects,
        tokens=token_sets,
        principal=principals,
        fresh=st.sampled_from([0, 1, 1, 2, 11, 12, 14]),
        is_repeated=st.booleans(),
        share=st.lists(st.booleans(), max_size=16),
        sha256=digests,
    )
    def commit(
        self,
        master: int,
        spot: Any,
        expect: Expect,
        tokens: tuple[str, ...],
        principal: str,
        fresh: int,
        is_repeated: bool,
        share: list[bool],
        sha256: bytes,
    ) -> None:
        path = self.at(spot)
        first = self.masters[master].next_handles(max(1, fresh))
        handles = [first + i for i in range(fresh)]
        locations = tuple(Location(h, (ServerId(1), ServerId(2)), b"") for h in handles)
        extents = [Extent(handle, 0, 1000 + i) for i, handle in enumerate(handles)]
        if is_repeated and extents:
            extents.append(Extent(handles[0], 5, 10))
        node = self.model.find(path)
        if node is not None:
            extents += [extent for extent, wanted in zip(node.extents, share, strict=False) if wanted]
        size = sum(extent.length for extent in extents)
        condition = self.condition(expect, path, tokens, principal)
        outcome = self.apply(master, Commit(path, size, tuple(extents), locations, 0, condition, sha256))
        if outcome is not None:
            assert outcome.entry is not None
            assert outcome.entry.revision == outcome.sequence
            assert outcome.is_created == (node is None)

    @rule(master=masters, spot=spots, expect=expects, sha256=st.sampled_from([b"c" * 32, b"d" * 32]))
    def set_digest(self, master: int, spot: Any, expect: Expect, sha256: bytes) -> None:
        path = self.at(spot)
        self.apply(master, SetDigest(path, sha256, self.condition(expect, path, (), "")))

    @rule(master=masters, spot=spots, expect=expects, tokens=token_sets, principal=principals)
    def make_directory(self, master: int, spot: Any, expect: Expect, tokens: Any, principal: str) -> None:
        path = self.at(spot)
        self.apply(master, MakeDirectory(path, 0, self.condition(expect, path, tokens, principal)))

    @rule(master=masters, spot=spots, expect=expects, tokens=token_sets, principal=principals)
    def remove(self, master: int, spot: Any, expect: Expect, tokens: Any, principal: str) -> None:
        path = self.at(spot)
        self.apply(master, Remove(path, self.condition(expect, path, tokens, principal)))

    @rule(
        master=masters,
        source=spots,
        onto=spots,
        overwrite=st.booleans(),
        expects=st.tuples(expects, expects),
        tokens=token_sets,
        principal=principals,
    )
    def move(
        self, master: int, source: Any, onto: Any, overwrite: bool, expects: Any, tokens: Any, principal: str
    ) -> None:
        ends = self.at(source), self.at(onto)
        at_source = self.condition(expects[0], ends[0], tokens, principal)
        at_target = self.condition(expects[1], ends[1], (), "")
        self.apply(master, Move(*ends, overwrite, at_source, at_target))

    @rule(
        master=masters,
        source=spots,
        onto=spots,
        overwrite=st.booleans(),
        is_shallow=st.booleans(),
        expects=st.tuples(expects, expects),
        tokens=token_sets,
        principal=principals,
    )
    def copy(
        self,
        master: int,
        source: Any,
        onto: Any,
        overwrite: bool,
        is_shallow: bool,
        expects: Any,
        tokens: Any,
        principal: str,
    ) -> None:
        ends = self.at(source), self.at(onto)
        at_source = self.condition(expects[0], ends[0], tokens, principal)
        at_target = self.condition(expects[1], ends[1], (), "")
        self.apply(master, Copy(*ends, overwrite, is_shallow, at_source, at_target))

    @rule(
        master=masters,
        spot=spots,
        name=st.sampled_from(["{x}p", "{y}q"]),
        value=st.binary(max_size=8),
        is_removal=st.booleans(),
        expect=expects,
        tokens=token_sets,
        principal=principals,
    )
    def set_properties(
        self,
        master: int,
        spot: Any,
        name: str,
        value: bytes,
        is_removal: bool,
        expect: Expect,
        tokens: Any,
        principal: str,
    ) -> None:
        path = self.at(spot)
        condition = self.condition(expect, path, tokens, principal)
        values, gone = ({}, (name,)) if is_removal else ({name: value}, ())
        self.apply(master, SetProperties(path, values, gone, condition=condition))

    @rule(
        master=masters,
        spot=spots,
        token=st.sampled_from(TOKENS),
        scope=st.sampled_from(list(LockScope)),
        is_infinite=st.booleans(),
        tokens=token_sets,
        principal=principals,
    )
    def acquire_lock(
        self, master: int, spot: Any, token: str, scope: LockScope, is_infinite: bool, tokens: Any, principal: str
    ) -> None:
        if token in self.model.locks:
            return
        path = self.at(spot)
        condition = self.condition(Expect.ANY, path, tokens, principal)
        outcome = self.apply(master, AcquireLock(path, token, scope, is_infinite, b"\xffowner", 3600, condition))
        if outcome is not None:
            assert outcome.lock is not None
            assert (outcome.lock.token, outcome.lock.path, outcome.lock.owner) == (
                token,
                format_path(path),
                b"\xffowner",
            )

    @rule(
        master=masters,
        spot=spots,
        token=st.sampled_from(TOKENS),
        principal=principals,
        is_release=st.booleans(),
        is_root=st.booleans(),
    )
    def change_lock(self, master: int, spot: Any, token: str, principal: str, is_release: bool, is_root: bool) -> None:
        held = self.model.locks.get(token)
        path = held.path if held is not None and is_root else self.at(spot)
        verb: Mutation = ReleaseLock(path, token, principal) if is_release else RefreshLock(path, token, 60, principal)
        self.apply(master, verb)

    @precondition(lambda self: hasattr(self, "model") and self.model.trash)
    @rule(master=masters, index=st.integers(0, 3), onto=st.none() | spots)
    def restore(self, master: int, index: int, onto: Any) -> None:
        listed = self.masters[master].list_trash()
        assert [item.id for item in listed] == [item.id for item in reversed(self.model.trash)]
        item_id = listed[index].id if index < len(listed) else 10_000_000
        self.apply(master, RestoreTrashed(item_id, None if onto is None else self.at(onto)))

    @rule(master=masters, grace_s=st.sampled_from([0, 3600]), what=st.sampled_from(["collect", "expire", "empty"]))
    def collect(self, master: int, grace_s: int, what: str) -> None:
        has_expired = what == "expire"
        if what == "empty":
            self.apply(master, EmptyTrash())
        if has_expired:
            self.model.trash.clear()
        self.masters[master].collect_garbage(self.epoch, trash_s=0 if has_expired else 3600, grace_s=grace_s)
        self.expected_change = None

    @precondition(lambda self: hasattr(self, "model"))
    @invariant()
    def books_are_right(self) -> None:
        self.learn()
        audit(self.store)
        usage = self.masters[1].usage()
        assert (usage.file_count, usage.directory_count, usage.file_bytes) == self.model.root.totals()
        changes, last = self.masters[0].read_feed(Sequence(self.sequence), 100)
        expected = self.expected_change
        if expected is None:
            assert changes == []
        else:
            (change,) = changes
            assert change.sequence == last == self.sequence + 1
            verb, path, source = expected
            named = (change.verb, change.path, change.source)
            assert named == (verb, format_path(path), format_path(source) if verb in {"move", "copy"} else "")
            assert set(change.parents) >= {self.entries[path[:i]].id for i in range(len(path))}
        self.sequence = last
        self.expected_change = None

    def teardown(self) -> None:
        """Everything removed and collected: nothing is left but constants."""
        if not hasattr(self, "model"):
            return
        for token, lock in self.model.locks.items():
            self.masters[0].apply(ReleaseLock(lock.path, token, lock.principal))
        for name in self.model.root.children:
            self.masters[0].apply(Remove((name,)))
        self.masters[0].apply(SetProperties((), {}, ("{x}p", "{y}q")))
        self.masters[0].apply(EmptyTrash())
        while self.masters[0].collect_garbage(self.epoch, trash_s=3600, grace_s=0):
            audit(self.store)
        for server in (1, 2):
            while handles := ordered(self.masters[1], ServerId(server)):
                self.masters[1].confirm_deletions(ServerId(server), handles)
        assert keys(self.store) <= CONSTANTS
        assert self.store.command("HKEYS", "q") == [b"1"]
        for master in self.masters:
            master.close()


def test_namespace_agrees_with_its_model(redis_url: str) -> None:
    NamespaceMachine.url = redis_url
    run_state_machine_as_test(
        NamespaceMachine,
        settings=settings(
            max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


@pytest.mark.slow
def test_namespace_agrees_with_its_model_for_long(redis_url: str) -> None:
    NamespaceMachine.url = redis_url
    run_state_machine_as_test(
        NamespaceMachine,
        settings=settings(
            max_examples=2_000, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
