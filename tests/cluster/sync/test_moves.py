"""Two agents: what is renamed and moved, alone and while other things go on. A move is a move on both sides."""

from __future__ import annotations

import os
import shutil
from collections import Counter

from helenite.core.paths import ROOT
from tests.cluster.sync.conftest import Scene
from tests.support.cluster import Cluster
from tests.support.sync_agents import Agent, ServerView
from tests.support.waiting import wait_until

CONTENT = {("remote", "sent"), ("local", "received")}
MANY = 5_000


class Watching:
    """What both agents do from now on."""

    def __init__(self, *agents: Agent) -> None:
        self._agents = agents
        self._before = self._verbs()

    def _verbs(self) -> Counter[tuple[str, str]]:
        return Counter((event["side"], event["verb"]) for agent in self._agents for event in agent.history())

    def verbs(self) -> Counter[tuple[str, str]]:
        return self._verbs() - self._before


def watching(scene: Scene) -> Watching:
    return Watching(scene.anna, scene.bert)


def test_moves_send_no_content(scene: Scene) -> None:
    (scene.here / "from").mkdir()
    (scene.here / "to").mkdir()
    scene.write(**{"from/a": b"content of a", "b": b"content of b"})
    scene.settle()
    inode = (scene.there / "from" / "a").stat().st_ino
    since = watching(scene)
    (scene.here / "from" / "a").rename(scene.here / "to" / "a2")
    (scene.here / "b").rename(scene.here / "B")  # nothing but case
    assert scene.settle() == {"from": None, "to": None, "to/a2": b"content of a", "B": b"content of b"}
    assert (scene.there / "to" / "a2").stat().st_ino == inode
    assert since.verbs() == {("remote", "moved"): 2, ("local", "moved"): 2}


def test_moved_and_edited_before_anybody_looked(scene: Scene) -> None:
    scene.write(a=b"before")
    scene.settle()
    scene.bert.stop()
    scene.anna.stop()
    (scene.here / "a").rename(scene.here / "moved")
    scene.write(moved=b"after it was moved")
    scene.anna.start()
    scene.bert.start()
    assert scene.settle() == {"moved": b"after it was moved"}


def test_moved_edited_and_moved_back_while_both_run(scene: Scene) -> None:
    (scene.here / "d").mkdir()
    scene.write(a=b"1")
    scene.settle()
    (scene.here / "a").rename(scene.here / "d" / "a")
    (scene.here / "d" / "a").write_bytes(b"two")
    (scene.here / "d" / "a").rename(scene.here / "a")
    assert scene.settle() == {"d": None, "a": b"two"}


def test_a_directory_is_renamed_and_made_anew(scene: Scene) -> None:
    (scene.here / "A").mkdir()
    for number in range(10):
        (scene.here / "A" / f"f{number}").write_bytes(b"%d" % number)
    scene.settle()
    scene.anna.stop()
    since = Watching(scene.bert)
    (scene.here / "A").rename(scene.here / "B")
    (scene.here / "A").mkdir()
    for number in range(5):
        (scene.here / "B" / f"f{number}").rename(scene.here / "A" / f"f{number}")
    scene.anna.start()
    tree = scene.settle()
    assert {path for path in tree if path.startswith("A/")} == {f"A/f{number}" for number in range(5)}
    assert {path for path in tree if path.startswith("B/")} == {f"B/f{number}" for number in range(5, 10)}
    assert not since.verbs().keys() & CONTENT


def test_names_are_exchanged(scene: Scene) -> None:
    (scene.here / "d1").mkdir()
    (scene.here / "d2").mkdir()
    scene.write(**{"one": b"1", "two": b"2", "d1/x": b"x", "d2/y": b"y"})
    scene.settle()
    since = Watching(scene.bert)
    for one, two in (("one", "two"), ("d1", "d2")):
        (scene.here / one).rename(scene.here / "away")
        (scene.here / two).rename(scene.here / one)
        (scene.here / "away").rename(scene.here / two)
    assert scene.settle() == {"one": b"2", "two": b"1", "d1": None, "d2": None, "d1/y": b"y", "d2/x": b"x"}
    assert since.verbs()["local", "received"] == 2  # the files: who has a name is that file, with new content


def test_renamed_while_the_agents_sleep(scene: Scene) -> None:
    (scene.here / "d").mkdir()
    scene.write(**{"d/f": b"f", "g": b"g"})
    scene.settle()
    since = Watching(scene.bert)
    scene.anna.stop()
    (scene.here / "d").rename(scene.here / "e")
    (scene.here / "g").rename(scene.here / "e" / "g")
    scene.anna.start()
    assert scene.settle() == {"e": None, "e/f": b"f", "e/g": b"g"}
    assert not since.verbs().keys() & CONTENT


def test_a_file_is_renamed_while_it_is_sent(scene: Scene) -> None:
    content = os.urandom(3_000_000)
    scene.anna.command("limit", "--up", "1M")
    scene.write(big=content)
    wait_until(lambda: scene.anna.status()["left"] > 0)
    (scene.here / "big").rename(scene.here / "renamed")
    scene.anna.command("limit", "--up", "0")
    assert scene.settle() == {"renamed": content}


def test_a_directory_is_renamed_while_content_comes_into_it(scene: Scene) -> None:
    content = os.urandom(3_000_000)
    (scene.here / "d").mkdir()
    scene.settle()
    scene.bert.command("limit", "--down", "1M")
    scene.write(**{"d/big": content, "d/small": b"small"})
    wait_until(lambda: scene.bert.staged_bytes() > 0)
    (scene.there / "d").rename(scene.there / "e")
    scene.bert.command("limit", "--down", "0")
    assert scene.settle() == {"e": None, "e/big": content, "e/small": b"small"}


def test_moved_out_and_back(scene: Scene) -> None:
    away = scene.anna.folder.with_name("outside")
    (scene.here / "d" / "deep").mkdir(parents=True)
    scene.write(**{"d/deep/f": b"f", "d/g": b"g", "h": b"h"})
    scene.settle()
    away.mkdir()
    (scene.here / "d").rename(away / "d")
    (scene.here / "h").rename(away / "h")
    wait_until(lambda: not (scene.there / "d").exists() and not (scene.there / "h").exists(), 30)
    assert scene.settle() == {}
    (away / "d").rename(scene.here / "d")
    (away / "h").rename(scene.here / "h")
    assert scene.settle() == {"d": None, "d/deep": None, "d/deep/f": b"f", "d/g": b"g", "h": b"h"}
    shutil.rmtree(away)


def test_a_tree_from_outside_is_watched_from_then_on(scene: Scene) -> None:
    away = scene.anna.folder.with_name("a tree")
    (away / "x" / "y" / "z").mkdir(parents=True)
    (away / "x" / "y" / "z" / "f").write_bytes(b"first")
    away.rename(scene.here / "tree")
    assert scene.settle()["tree/x/y/z/f"] == b"first"
    (scene.here / "tree" / "x" / "y" / "z" / "f").write_bytes(b"second")
    (scene.here / "tree" / "x" / "y" / "new").write_bytes(b"new")
    wait_until((scene.there / "tree" / "x" / "y" / "new").exists, 20)  # nobody has looked everywhere
    assert scene.settle()["tree/x/y/z/f"] == b"second"


def test_a_file_is_moved_over_another(scene: Scene) -> None:
    scene.write(a=b"a's", b=b"b's")
    scene.settle()
    (scene.here / "a").replace(scene.here / "b")
    assert scene.settle() == {"b": b"a's"}
    assert b"a's" in scene.bert.trashed()  # who has a name is that file, with new content: it is `a` that was deleted


def test_one_renames_and_the_other_edits(scene: Scene) -> None:
    (scene.here / "D").mkdir()
    scene.write(**{"f": b"old", "D/x": b"x"})
    scene.settle()
    scene.bert.stop()
    (scene.here / "f").rename(scene.here / "g")
    (scene.here / "D").rename(scene.here / "E")
    scene.settle_alone(scene.anna)
    (scene.there / "f").write_bytes(b"edited by the other")
    (scene.there / "D" / "new").write_bytes(b"new in the old one")
    scene.bert.start()
    assert scene.settle() == {"g": b"edited by the other", "E": None, "E/x": b"x", "E/new": b"new in the old one"}


def test_both_rename_the_same_file(scene: Scene) -> None:
    scene.write(f=b"content")
    scene.settle()
    scene.bert.stop()
    (scene.here / "f").rename(scene.here / "anna's")
    scene.settle_alone(scene.anna)
    (scene.there / "f").rename(scene.there / "bert's")
    scene.bert.start()
    assert scene.settle() == {"anna's": b"content"}


def test_two_directories_are_moved_into_one_another(scene: Scene) -> None:
    for name in ("a", "b"):
        (scene.here / name).mkdir()
        (scene.here / name / f"in {name}").write_bytes(name.encode())
    scene.settle()
    scene.bert.stop()
    (scene.here / "a").rename(scene.here / "b" / "a")
    scene.settle_alone(scene.anna)
    (scene.there / "b").rename(scene.there / "a" / "b")
    scene.bert.start()
    assert scene.settle() == {"b": None, "b/in b": b"b", "b/a": None, "b/a/in a": b"a"}


def test_renaming_a_directory_of_many_files_is_one_move(cluster: Cluster, anna: Agent) -> None:
    """In a folder of its own: so much would slow down the other scenarios."""
    base = anna.folder.parent
    server = ServerView(f"{cluster.url}many", base / "scratch many")
    one, two = Agent(base, "many one"), Agent(base, "many two")
    (one.folder / "d" / "sub").mkdir(parents=True)
    for number in range(MANY):
        (one.folder / "d" / ("sub" if number % 2 else "") / f"f{number}").write_bytes(b"%d" % number)
    for agent in (one, two):
        agent.add(f"{cluster.url}many")
        agent.start()
    wait_until(lambda: one.is_settled() and two.is_settled() and len(two.tree()) == MANY + 2, 120)
    inode = (two.folder / "d").stat().st_ino
    since_one, since_two = Watching(one), Watching(two)
    (one.folder / "d").rename(one.folder / "e")
    wait_until((two.folder / "e").exists, 60)
    wait_until(lambda: one.is_settled() and two.is_settled(), 60)
    assert since_one.verbs() == {("remote", "moved"): 1}
    assert since_two.verbs() == {("local", "moved"): 1}
    assert (two.folder / "e").stat().st_ino == inode
    assert two.tree() == one.tree()
    assert len(one.tree()) == MANY + 2
    listed = {"/".join(entry.path) for place in (("e",), ("e", "sub")) for entry in server.remote.list(place)}
    assert listed | {"e"} == one.tree().keys()
    assert [entry.path for entry in server.remote.list(ROOT)] == [("e",)]
    token = server.remote.token()
    one.look_everywhere()
    two.look_everywhere()
    assert server.remote.token() == token
    for agent in (one, two):
        agent.stop()
    server.remote.close()
