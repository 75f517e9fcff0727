"""Agents that look before they delete, folders that leave one device only, and a third agent that joins."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncagent.safety import Limits
from tests.cluster.sync.conftest import Scene
from tests.support.cluster import Cluster
from tests.support.sync_agents import Agent, ServerView, settle
from tests.support.waiting import wait_until

COUNT = Limits().count + 30


@pytest.fixture
def apart(cluster: Cluster, tmp_path: Path) -> tuple[Agent, Agent, ServerView]:
    """Two agents in a folder of the server that nobody else uses: shares are counted of all there is."""
    url = f"{cluster.url}{tmp_path.name}"
    found = Agent(tmp_path, "one"), Agent(tmp_path, "two")
    for agent in found:
        agent.add(url)
        agent.start()
    return *found, ServerView(url, tmp_path / "scratch")


def test_deletions_on_the_server_are_asked_about_too(apart: tuple[Agent, Agent, ServerView]) -> None:
    one, two, server = apart
    for number in range(COUNT):
        (one.folder / f"f{number}").write_bytes(b"%d" % number)
    settle(server, one, two)
    one.stop()
    for entry in server.remote.list(()):
        server.remote.delete(entry.path, entry.stamp, {})
    wait_until(lambda: two.status()["decisions"] == ["allow", "undo"], 30)
    left = len(two.tree())
    assert left >= COUNT - Limits().count  # some may have come one by one
    wait_until(lambda: "say: helenite sync decide allow | undo --home " in two.command("status").stdout)
    assert two.command("decide", "undo").returncode == 0
    assert len(settle(server, two)) == left
    one.start()
    assert len(settle(server, one, two)) == left
    assert len(one.tree()) + len(one.trashed()) == COUNT
    for agent in (one, two):
        agent.stop()
    server.remote.close()


def test_slow_deletions_add_up(apart: tuple[Agent, Agent, ServerView]) -> None:
    one, two, server = apart
    for number in range(COUNT):
        (one.folder / f"f{number:03}").write_bytes(b"%d" % number)
    settle(server, one, two)
    for gone in range(1, COUNT):
        (one.folder / f"f{gone:03}").unlink()
        if gone % 20 == 0:
            wait_until(lambda gone=gone: one.status()["decisions"] or len(server.tree()) == COUNT - gone)
        if one.status()["decisions"]:
            break

    def asks() -> bool:
        status = one.status()
        return status["decisions"] == ["allow", "undo"] and "in the last 10 minutes" in status["problem"]

    wait_until(asks)
    assert COUNT - Limits().count <= len(server.tree()) < COUNT
    one.stop()
    one.start()  # it remembers
    wait_until(asks)
    for agent in (one, two):
        agent.stop()
    server.remote.close()


def test_what_was_deleted_there_lies_in_the_trash_here(scene: Scene) -> None:
    (scene.here / "d").mkdir()
    scene.write(**{"f": b"the text of f", "d/g": b"the text of g"})
    scene.settle()
    (scene.here / "f").unlink()
    (scene.here / "d" / "g").unlink()
    (scene.here / "d").rmdir()
    assert scene.settle() == {}
    assert {b"the text of f", b"the text of g"} <= set(scene.bert.trashed())


def test_a_folder_that_is_added_again_keeps_its_trash(apart: tuple[Agent, Agent, ServerView]) -> None:
    one, two, server = apart
    (one.folder / "f").write_bytes(b"in the trash")
    (one.folder / "g").write_bytes(b"stays")
    settle(server, one, two)
    (one.folder / "f").unlink()
    settle(server, one, two)
    url = two.status()["url"]
    assert two.command("remove").returncode == 0
    said = two.command("add", url, str(two.folder))
    assert "Names on both sides: 1;" in said.stdout
    settle(server, one, two)
    assert two.trashed() == [b"in the trash"]
    for agent in (one, two):
        agent.stop()
    server.remote.close()


def test_a_rule_for_what_is_synced_deletes_nothing(scene: Scene) -> None:
    scene.write(**{"a.log": b"log", "b": b"b"})
    scene.settle()
    rules = scene.anna.folder / ".heleniteignore"
    rules.write_text(f"/{scene.name}/*.log\n")
    wait_until((scene.bert.folder / ".heleniteignore").exists, 30)
    scene.anna.look_everywhere()
    scene.bert.look_everywhere()
    assert (scene.here / "a.log").read_bytes() == (scene.there / "a.log").read_bytes() == b"log"
    assert {entry.path[-1] for entry in scene.server.remote.list((scene.name,))} == {"a.log", "b"}
    rules.unlink()
    assert scene.settle() == {"a.log": b"log", "b": b"b"}


def test_a_folder_leaves_one_device_and_comes_back(scene: Scene) -> None:
    (scene.here / "photos").mkdir()
    scene.write(**{"photos/a": b"a", "keep": b"k"})
    scene.settle()
    inside = f"{scene.name}/photos"
    assert scene.bert.command("exclude", inside).returncode == 0
    wait_until(lambda: not (scene.there / "photos").exists(), 30)
    assert b"a" in scene.bert.trashed()
    scene.write(**{"photos/b": b"b"})
    scene.settle_alone(scene.anna)
    scene.bert.look_everywhere()
    assert not (scene.there / "photos").exists()
    assert scene.bert.command("exclude", inside, "--undo").returncode == 0
    wait_until((scene.there / "photos" / "b").exists, 30)
    assert scene.settle() == {"photos": None, "photos/a": b"a", "photos/b": b"b", "keep": b"k"}


def test_a_third_agent_joins_and_all_three_work(scene: Scene, cluster: Cluster, tmp_path: Path) -> None:
    scene.write(**{f"f{number}": b"%d" % number for number in range(20)})
    scene.settle()
    third = Agent(tmp_path, "carl")
    third.add(f"{cluster.url}shared")
    third.start()
    agents = (scene.anna, scene.bert, third)
    settle(scene.server, *agents)
    for number, agent in enumerate(agents):
        top = agent.folder / scene.name
        (top / f"f{number}").write_bytes(b"edited by %d" % number)
        (top / f"f{number + 5}").rename(top / f"moved by {number}")
        (top / f"f{number + 10}").unlink()
        (top / "all write this").write_bytes(b"%d" % number)
    tree = settle(scene.server, *agents)
    here = {path.rpartition("/")[2]: content for path, content in tree.items() if path.startswith(f"{scene.name}/")}
    assert [here[f"f{number}"] for number in range(3)] == [b"edited by %d" % number for number in range(3)]
    assert [here[f"moved by {number}"] for number in range(3)] == [b"%d" % (number + 5) for number in range(3)]
    assert not {"f10", "f11", "f12"} & here.keys()
    everybody = [content for name, content in here.items() if name.startswith("all write this")]
    assert sorted(content or b"" for content in everybody) == [b"0", b"1", b"2"]
    third.stop()
