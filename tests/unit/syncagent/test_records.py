"""What the journal notes about nodes that turn out to be one."""

from __future__ import annotations

from pathlib import Path

from syncagent import records
from syncagent.fates import Customs
from syncagent.journal import open_journal
from syncagent.model import (
    ROOT_ID,
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
from syncagent.plan import Move, Pair
from syncagent.reconcile import reconcile

HERE, THERE, FILE = map(NodeId, (1, 2, 3))
STAMP = LocalStamp(30, 5)
REMOTE = RemoteStamp("urn:3", '"1-1"', 5)


def test_a_file_renamed_in_a_directory_that_is_found_again_stays_renamed(tmp_path: Path) -> None:
    """The directory counts as new here, after a crash; its file was agreed upon in the one that the server has."""
    journal = open_journal(tmp_path / "journal", "damaged")
    directory = Place(ROOT_ID, "d")
    journal.put(Node(HERE, local=LocalState(directory, Kind.DIRECTORY, LocalStamp(10))))
    journal.put(Node(THERE, remote=RemoteState(directory, Kind.DIRECTORY, RemoteStamp("urn:2"))))
    agreed = AgreedState(Place(THERE, "old"), Kind.FILE, b"d" * 32, STAMP, REMOTE)
    local = LocalState(Place(HERE, "new"), Kind.FILE, STAMP, b"d" * 32)
    journal.put(Node(FILE, agreed, local, RemoteState(Place(THERE, "old"), Kind.FILE, REMOTE)))

    plan = reconcile(journal, journal.unsettled(-1), Customs())
    assert list(plan.steps) == [Pair(HERE, THERE)]
    records.pair(journal, HERE, THERE)
    found = journal.node(FILE)
    assert found.ancestor == agreed._replace(place=Place(HERE, "old"))
    moves = [step for step in reconcile(journal, journal.unsettled(-1), Customs()).steps if isinstance(step, Move)]
    assert moves == [Move(Tree.REMOTE, FILE, Place(HERE, "new"))]
    journal.close()
