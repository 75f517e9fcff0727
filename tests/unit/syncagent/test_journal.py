"""The journal keeps what it is told, all or nothing, and survives damage."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from helenite.core.errors import ConfigurationError
from syncagent import directories
from syncagent import journal as journal_module
from syncagent.journal import TWIN_BYTES_MIN, Journal, open_journal
from syncagent.model import (
    AgreedState,
    Kind,
    LocalStamp,
    LocalState,
    Node,
    NodeId,
    Place,
    RemoteStamp,
    RemoteState,
    Tree,
)

ROOT = NodeId(0)
LOCAL = LocalStamp(2**64 - 1, 5, -1_800_000_000_000_000_000, 7, executable=True)
REMOTE = RemoteStamp("urn:x", '"1-2"', 5, -5, executable=None)
DIGEST = b"d" * 32


def full(node: int, name: str, parent: NodeId = ROOT) -> Node:
    place = Place(parent, name)
    remote = REMOTE._replace(resource=f"urn:{node}")
    return Node(
        NodeId(node),
        AgreedState(place, Kind.FILE, DIGEST, LOCAL, remote),
        LocalState(place, Kind.FILE, LOCAL, DIGEST),
        RemoteState(place, Kind.FILE, remote, None, "walked"),
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal"


@pytest.fixture
def journal(file: Path) -> Journal:
    return open_journal(file, "damaged")


def test_nodes_come_back_as_they_were(journal: Journal, file: Path) -> None:
    nodes = [
        full(1, "a"),
        replace(full(2, "b"), ancestor=None),
        replace(full(3, "c"), local=None),
        Node(NodeId(4), full(4, "d").ancestor),
    ]
    for node in nodes:
        journal.put(node)
    journal.close()
    again = open_journal(file, "damaged")
    assert not again.is_new
    assert [again.node(node.id) for node in nodes] == nodes
    assert again.new_id() == 5
    assert again.unsettled(10) == [3, 4, 2]
    assert again.unsettled(0) == [3, 4]


def test_every_state_can_change(journal: Journal) -> None:
    journal.put(full(1, "a"))
    for changed in (
        full(1, "b"),
        replace(full(1, "b"), local=None),
        replace(full(1, "b"), remote=None),
        Node(NodeId(1), local=LocalState(Place(ROOT, "x"), Kind.FILE, LOCAL)),
        full(1, "c"),
    ):
        journal.put(changed)
        journal._cache.clear()
        assert journal.node(NodeId(1)) == changed


def test_finding(journal: Journal) -> None:
    journal.put(full(1, "a"))
    journal.put(replace(full(2, "b"), local=None))
    assert journal.child(Tree.LOCAL, ROOT, "a") == 1
    assert journal.child(Tree.LOCAL, ROOT, "b") is None
    assert journal.children(Tree.REMOTE, ROOT) == [1, 2]
    assert {node.id for node in journal.find_inode(LOCAL.inode)} == {1, 2}
    found = journal.find_resource("urn:2")
    assert found is not None
    assert found.id == 2
    missing = journal.find_missing(Tree.LOCAL, Place(ROOT, "b"), Kind.FILE)
    assert missing is not None
    assert missing.id == 2
    assert journal.find_missing(Tree.LOCAL, Place(ROOT, "a"), Kind.FILE) is None


def test_files_of_one_size(journal: Journal) -> None:
    large = LOCAL._replace(size=TWIN_BYTES_MIN)
    for number, name in enumerate("abc", 1):
        node = full(number, name)
        assert node.ancestor is not None
        assert node.local is not None
        state = node.ancestor._replace(local=large)
        journal.put(replace(node, ancestor=state, local=node.local._replace(stamp=large)))
    changed = journal.node(NodeId(3))
    assert changed.local is not None
    journal.put(replace(changed, local=changed.local._replace(stamp=large._replace(mtime_ns=5))))
    assert {node.id for node in journal.find_twins(TWIN_BYTES_MIN)} == {1, 2}
    journal.put(full(4, "small"))
    assert journal.find_twins(LOCAL.size) == []


def test_two_nodes_cannot_have_one_place(journal: Journal) -> None:
    journal.put(full(1, "a"))
    with pytest.raises(sqlite3.IntegrityError):
        journal.put(full(2, "a"))
    assert journal.node(NodeId(1)) == full(1, "a")


def test_a_transaction_is_all_or_nothing(journal: Journal) -> None:
    journal.put(full(1, "a"))

    def half() -> None:
        with journal.transaction():
            journal.put(full(1, "b"))
            with journal.transaction():
                journal.put(full(2, "c"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert journal.node(NodeId(1)) == full(1, "a")
    with pytest.raises(KeyError):
        journal.node(NodeId(2))
    journal.put(full(2, "c"))


def test_what_is_not_committed_is_not_there_after_a_crash(journal: Journal, file: Path, tmp_path: Path) -> None:
    journal.put(full(1, "a"))
    with journal.transaction():
        journal.put(full(2, "b"))
        # What a process leaves that is killed here.
        copy = tmp_path / "copy" / "journal"
        copy.parent.mkdir()
        for suffix in ("", "-wal"):
            copy.with_name(copy.name + suffix).write_bytes(file.with_name(file.name + suffix).read_bytes())
    crashed = open_journal(copy, "damaged")
    assert crashed.node(NodeId(1)) == full(1, "a")
    with pytest.raises(KeyError):
        crashed.node(NodeId(2))


def test_facts(journal: Journal, file: Path) -> None:
    assert journal.fact("token") is None
    journal.note("token", {"a": [1, "x"]})
    journal.close()
    assert open_journal(file, "damaged").fact("token") == {"a": [1, "x"]}


def test_forgetting_what_was_agreed(journal: Journal) -> None:
    journal.put(full(1, "a"))
    journal.put(Node(NodeId(2), full(2, "b").ancestor))
    journal.forget_agreements()
    assert journal.node(NodeId(1)) == replace(full(1, "a"), ancestor=None)
    with pytest.raises(KeyError):
        journal.node(NodeId(2))
    assert journal.count_agreed() == 0


def test_forgetting_a_tree(journal: Journal) -> None:
    directory = Node(NodeId(1), local=LocalState(Place(ROOT, "d"), Kind.DIRECTORY, LocalStamp(1)))
    journal.put(directory)
    journal.put(replace(full(2, "a", NodeId(1)), remote=None))
    journal.put(replace(full(3, "b", NodeId(1)), local=None))
    journal.put(full(4, "c"))
    journal.forget_tree(NodeId(1))
    assert journal.children(Tree.LOCAL, ROOT) == [4]
    assert journal.children(Tree.REMOTE, NodeId(1)) == []


@pytest.mark.parametrize("damage", [b"", b"no database at all" * 300])
def test_what_is_no_journal_is_set_aside(file: Path, damage: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(damage)
    journal = open_journal(file, "damaged")
    journal.put(full(1, "a"))
    assert (file.parent / "damaged").exists() is bool(damage)


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_a_zeroed_page_is_found(journal: Journal, file: Path, at: float) -> None:
    for number in range(1, 2000):
        journal.put(full(number, f"name {number}"))
    journal.close()
    content = bytearray(file.read_bytes())
    start = int(len(content) * at) // 4096 * 4096
    content[start : start + 4096] = bytes(4096)
    file.write_bytes(content)
    assert open_journal(file, "damaged").is_new
    assert (file.parent / "damaged").exists()


def test_a_journal_of_an_older_program_is_upgraded(journal: Journal, file: Path) -> None:
    journal.put(full(1, "a"))
    fresh = schema_of(journal)
    as_older_program(journal)
    assert schema_of(journal) != fresh
    journal.close()
    for _ in range(2):
        again = open_journal(file, "damaged")
        assert not again.is_new
        assert again.node(NodeId(1)) == full(1, "a")
        assert schema_of(again) == fresh
        again.close()


def test_an_upgrade_that_fails_halfway_changes_nothing(
    journal: Journal, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.put(full(1, "a"))
    as_older_program(journal)
    old = schema_of(journal)
    journal.close()
    with monkeypatch.context() as inner:
        inner.setitem(journal_module._UPGRADES, 1, f"{journal_module._UPGRADES[1]}; CREATE TABLE node (again)")
        connection = sqlite3.connect(file)
        with pytest.raises(sqlite3.OperationalError):
            journal_module._connect(file)
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert schema_of(Journal(connection, is_new=False)) == old
        connection.close()
    assert not open_journal(file, "damaged").is_new


def test_a_journal_of_a_newer_program_is_left_alone(journal: Journal, file: Path) -> None:
    journal.put(full(1, "a"))
    journal._connection.execute("PRAGMA user_version = 99")
    journal.close()
    before = file.read_bytes()
    with pytest.raises(ConfigurationError, match=r"newer version of Helenite \(schema 99; this one reads \d+\)"):
        open_journal(file, "damaged")
    assert file.read_bytes() == before
    assert not (file.parent / "damaged").exists()


def as_older_program(journal: Journal) -> None:
    """What a program with the first schema would have left."""
    journal._connection.executescript("DROP INDEX agreed_size; PRAGMA user_version = 1;")


def schema_of(journal: Journal) -> set[str | None]:
    return {row[0] for row in journal._connection.execute("SELECT sql FROM sqlite_schema")}


@pytest.mark.parametrize("entries_max", [0, 1_000], ids=["a large directory", "a small one"])
def test_nobody_has_a_name_that_is_not_utf_8(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, entries_max: int
) -> None:
    monkeypatch.setattr(journal_module, "ENTRIES_MAX", entries_max)
    monkeypatch.setattr(directories, "ENTRIES_MAX", entries_max)
    journal.put(full(1, "a"))
    assert journal.child(Tree.LOCAL, ROOT, "a") == 1
    assert journal.child(Tree.LOCAL, ROOT, os.fsdecode(b"\xff")) is None
