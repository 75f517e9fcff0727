"""Two agents, one of which has lost what it knew, or has it damaged: nothing is lost, nothing is sent that is there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.sync.conftest import Scene
from tests.support.sync_agents import Agent
from tests.support.waiting import wait_until

FILES = {"a": b"content of a", "b": b"content of b", "d/c": b"content of c"}


def journal_of(agent: Agent) -> Path:
    (found,) = agent.home.path.glob("pair-*/journal")
    return found


def fill(scene: Scene) -> None:
    (scene.here / "d").mkdir()
    scene.write(**FILES)
    scene.settle()


def gone(journal: Path) -> None:
    for file in journal.parent.glob("journal*"):
        file.unlink()


def truncated(journal: Path) -> None:
    with journal.open("r+b") as file:
        file.truncate(journal.stat().st_size // 2)


def emptied(journal: Path) -> None:
    journal.write_bytes(b"")


def garbage(journal: Path) -> None:
    for file in journal.parent.glob("journal-*"):
        file.unlink()
    journal.write_bytes(b"this is no database " * 1000)


def a_zeroed_page(journal: Path) -> None:
    for file in journal.parent.glob("journal-*"):
        file.unlink()
    content = bytearray(journal.read_bytes())
    content[4096:8192] = bytes(4096)
    journal.write_bytes(content)


@pytest.mark.parametrize("damage", [gone, truncated, emptied, garbage, a_zeroed_page])
def test_it_begins_anew_and_sends_nothing(scene: Scene, damage: Callable[[Path], None]) -> None:
    fill(scene)
    scene.bert.stop()
    events = len(scene.anna.history())
    damage(journal_of(scene.bert))
    scene.bert.start()
    tree = scene.settle()
    assert {path: content for path, content in tree.items() if content is not None} == FILES
    assert len(scene.anna.history()) == events
    assert not [event for event in scene.bert.history()[-3:] if event["verb"] == "deleted"]
    assert scene.bert.status()["mood"] == "idle"


def test_what_was_changed_meanwhile_is_kept(scene: Scene) -> None:
    fill(scene)
    scene.bert.stop()
    gone(journal_of(scene.bert))
    scene.write(a=b"anna's")
    (scene.there / "a").write_bytes(b"bert's")
    (scene.there / "b").write_bytes(b"only bert changed it")
    (scene.there / "new").write_bytes(b"new")
    scene.settle_alone(scene.anna)
    scene.bert.start()
    contents = [content for content in scene.settle().values() if content is not None]
    assert {b"anna's", b"bert's", b"only bert changed it", b"new", b"content of c"} <= set(contents)
    assert len(contents) <= 6  # of b, which nobody can know to be newer, both are kept


def test_an_older_journal_is_put_back(scene: Scene) -> None:
    """As from a backup of the home: what it does not know is found out, and nothing newer gives way."""
    fill(scene)
    scene.bert.stop()
    kept = journal_of(scene.bert).parent.with_name("kept")
    shutil.copytree(journal_of(scene.bert).parent, kept)
    scene.bert.start()
    scene.write(a=b"second", fresh=b"fresh")
    (scene.here / "b").unlink()
    scene.settle()
    scene.bert.stop()
    place = journal_of(scene.bert).parent
    shutil.rmtree(place)
    kept.rename(place)
    scene.bert.start()
    tree = scene.settle()
    assert tree["a"] == b"second"
    assert tree["fresh"] == b"fresh"
    assert "b" not in tree


def test_the_folders_own_directory_is_deleted(scene: Scene) -> None:
    """Marker and trash are gone: it asks, and unites when told so."""
    fill(scene)
    scene.bert.stop()
    shutil.rmtree(scene.bert.folder / ".helenite-sync")
    scene.bert.start()
    wait_until(lambda: scene.bert.status()["mood"] == "attention")
    assert scene.bert.command("decide", "start-over").returncode == 0
    tree = scene.settle()
    assert {path: content for path, content in tree.items() if content is not None} == FILES
