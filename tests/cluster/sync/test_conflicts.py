"""Two agents: what both sides changed. Nothing is lost, nothing is kept twice, and everybody sees the same.

Among them what Syncthing gets wrong in the same scenarios (see the issue in the tests' names).
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from tests.cluster.sync.conftest import Scene
from tests.support.sync_agents import Tree
from tests.support.waiting import wait_until


def meet(scene: Scene) -> Tree:
    """Bert, who was away and changed things, comes back after anna's changes have arrived."""
    scene.settle_alone(scene.anna)
    scene.bert.start()
    return scene.settle()


def copies(tree: Tree) -> dict[str, bytes | None]:
    return {path: content for path, content in tree.items() if "conflicted copy" in path}


def has_copies(folder: Path, number: int) -> bool:
    return len(list(folder.glob("*conflicted copy*"))) == number


def test_a_conflict_on_a_conflict_copy(scene: Scene) -> None:
    scene.write(**{"f.txt": b"0"})
    scene.settle()
    scene.bert.stop()
    scene.write(**{"f.txt": b"anna 1"})
    (scene.there / "f.txt").write_bytes(b"bert 1")
    (copy,) = copies(meet(scene))
    scene.bert.stop()
    (scene.here / copy).write_bytes(b"anna 2")
    (scene.there / copy).write_bytes(b"bert 2")
    tree = meet(scene)
    assert tree["f.txt"] == b"anna 1"
    assert sorted(content or b"" for content in copies(tree).values()) == [b"anna 2", b"bert 2"]
    assert all(path.count("conflicted copy") == 1 for path in tree if path != "f.txt")


def test_two_conflicts_within_one_second(scene: Scene) -> None:
    scene.write(f=b"0")
    scene.settle()
    for attempt in range(2):
        scene.bert.stop()
        scene.write(f=b"anna %d" % attempt)
        (scene.there / "f").write_bytes(b"bert %d" % attempt)
        scene.settle_alone(scene.anna)
        scene.bert.start()
        # Only then may the person write again: before, the loser would be overwritten by them, not by the agent.
        wait_until(partial(has_copies, scene.there, attempt + 1), 30)
    tree = scene.settle()
    assert tree["f"] == b"anna 1"
    assert sorted(content or b"" for content in copies(tree).values()) == [b"bert 0", b"bert 1"]


def test_many_conflicts_at_once(scene: Scene) -> None:
    names = [f"f{number}" for number in range(30)]
    scene.write(**dict.fromkeys(names, b"0"))
    scene.settle()
    scene.bert.stop()
    for name in names:
        scene.write(**{name: b"anna " + name.encode()})
        (scene.there / name).write_bytes(b"bert " + name.encode())
    tree = meet(scene)
    assert len(tree) == 60
    assert {tree[name] for name in names} == {b"anna " + name.encode() for name in names}
    assert set(copies(tree).values()) == {b"bert " + name.encode() for name in names}


def test_a_file_and_a_folder_of_one_name(scene: Scene) -> None:
    scene.bert.stop()
    scene.write(x=b"a file")
    (scene.there / "x").mkdir()
    (scene.there / "x" / "in it").write_bytes(b"in a folder")
    tree = meet(scene)
    assert tree["x"] == b"a file"
    assert [content for path, content in tree.items() if path.endswith("/in it")] == [b"in a folder"]
    assert len(tree) == 3


@pytest.mark.parametrize("length", [240, 247, 255])
def test_a_long_name_in_conflict(scene: Scene, length: int) -> None:
    plain = "x" * (length - 4) + ".txt"
    wide = "ü" * ((length - 4) // 2) + ".txt"
    for name in (plain, wide):
        scene.write(**{name: b"0"})
    scene.settle()
    scene.bert.stop()
    for name in (plain, wide):
        scene.write(**{name: b"anna"})
        (scene.there / name).write_bytes(b"bert")
    tree = meet(scene)
    assert tree[plain] == tree[wide] == b"anna"
    assert list(copies(tree).values()) == [b"bert", b"bert"]
    assert all(len(os.fsencode(path)) <= 255 and path.endswith(".txt") for path in tree)


@pytest.mark.parametrize("name", ["plain", ".hidden", "a.tar.gz", "dot.", " blank "])
def test_names_of_conflict_copies(scene: Scene, name: str) -> None:
    scene.write(**{name: b"0"})
    scene.settle()
    scene.bert.stop()
    scene.write(**{name: b"anna"})
    (scene.there / name).write_bytes(b"bert")
    tree = meet(scene)
    assert tree[name] == b"anna"
    assert list(copies(tree).values()) == [b"bert"]
    assert len(tree) == 2


def test_a_copy_that_is_cleared_away_goes_everywhere(scene: Scene) -> None:
    scene.write(f=b"0")
    scene.settle()
    scene.bert.stop()
    scene.write(f=b"anna")
    (scene.there / "f").write_bytes(b"bert")
    (copy,) = copies(meet(scene))
    assert f"/{scene.name}/{copy}\n" in scene.bert.command("conflicts").stdout
    (scene.here / copy).unlink()
    assert scene.settle() == {"f": b"anna"}
    assert scene.name not in scene.bert.command("conflicts").stdout


def test_both_delete(scene: Scene) -> None:
    (scene.here / "d").mkdir()
    scene.write(**{"f": b"f", "d/g": b"g"})
    scene.settle()
    scene.bert.stop()
    for top in (scene.here, scene.there):
        (top / "f").unlink()
        (top / "d" / "g").unlink()
        (top / "d").rmdir()
    assert meet(scene) == {}


def test_one_deletes_and_the_other_edits_or_moves(scene: Scene) -> None:
    names = ("edited here", "edited there", "moved here", "moved there")
    scene.write(**dict.fromkeys(names, b"0"))
    scene.settle()
    scene.bert.stop()
    scene.write(**{"edited here": b"anna"})
    (scene.here / "moved here").rename(scene.here / "moved by anna")
    (scene.here / "edited there").unlink()
    (scene.here / "moved there").unlink()
    (scene.there / "edited there").write_bytes(b"bert")
    (scene.there / "moved there").rename(scene.there / "moved by bert")
    (scene.there / "edited here").unlink()
    (scene.there / "moved here").unlink()
    assert meet(scene) == {
        "edited here": b"anna",
        "edited there": b"bert",
        "moved by anna": b"0",
        "moved by bert": b"0",
    }


def test_kinds_change_on_both_sides(scene: Scene) -> None:
    (scene.here / "dir").mkdir()
    (scene.here / "both").mkdir()
    scene.write(**{"dir/old": b"old", "file": b"f", "both/old": b"old"})
    scene.settle()
    scene.bert.stop()
    for top in ("dir", "both"):
        (scene.here / top / "old").unlink()
        (scene.here / top).rmdir()
    scene.write(dir=b"anna made a file of it", both=b"anna's")
    (scene.there / "dir" / "new").write_bytes(b"bert's")
    (scene.there / "file").unlink()
    (scene.there / "file").mkdir()
    (scene.there / "file" / "in").write_bytes(b"bert made a folder of it")
    (scene.there / "both" / "old").unlink()
    (scene.there / "both").rmdir()
    (scene.there / "both").symlink_to("elsewhere")
    tree = meet(scene)
    contents = set(tree.values())
    assert {b"anna made a file of it", b"bert's", b"bert made a folder of it", b"anna's", b"-> elsewhere"} <= contents
    assert b"old" not in contents
    assert b"f" not in contents


def test_the_same_content_is_no_conflict_whatever_its_time(scene: Scene) -> None:
    scene.bert.stop()
    (scene.here / "d").mkdir()
    (scene.there / "d").mkdir(parents=True)
    for top in (scene.here, scene.there):
        (top / "d" / "f").write_bytes(b"the same")
        (top / "empty").write_bytes(b"")
    os.utime(scene.there / "d" / "f", (1_500_000_000, 1_500_000_000))
    assert meet(scene) == {"d": None, "d/f": b"the same", "empty": b""}
