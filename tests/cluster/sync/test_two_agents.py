"""Two real agents on a real cluster. After each scenario: both folders and the server are equal, nothing temporary is
visible, and one more look at everything writes nothing (`sync_agents.settle`).
"""

from __future__ import annotations

import contextlib
import os
import random
from pathlib import Path

from helenite.core.errors import HeleniteError
from syncagent.control import ask
from tests.support.cluster import Cluster
from tests.support.sync_agents import Agent, ServerView, settle
from tests.support.waiting import wait_until


def appears(agent: Agent, path: str, content: bytes, within_s: float = 30.0) -> None:
    file = agent.folder / path

    def is_there() -> bool:
        try:
            return file.read_bytes() == content
        except (FileNotFoundError, NotADirectoryError):
            return False

    wait_until(is_there, within_s)


def copies(tree: dict[str, bytes | None], directory: str) -> list[bytes | None]:
    return [content for path, content in tree.items() if path.startswith(directory) and "conflicted copy" in path]


def test_files_and_directories_both_ways(anna: Agent, bert: Agent, server: ServerView) -> None:
    for agent, name in ((anna, "from anna"), (bert, "from bert")):
        top = agent.folder / name
        (top / "empty").mkdir(parents=True)
        (top / "deep" / "er" / "est").mkdir(parents=True)
        (top / "deep" / "er" / "est" / "f.txt").write_bytes(b"text")
        (top / "zero").write_bytes(b"")
        (top / "large").write_bytes(os.urandom(9_000_000))
        (top / "run.sh").write_bytes(b"#!/bin/sh\n")
        (top / "run.sh").chmod(0o755)
        (top / "link").symlink_to("deep/er")
        os.utime(top / "run.sh", ns=(1, 1_600_000_000_123_000_000))
        for odd in (" x ", "a%20b", "ü#?", "n\nl", "'\"&<>;", "x" * 251 + ".txt"):
            (top / odd).write_bytes(odd.encode())
    tree = settle(server, anna, bert)
    assert len([path for path in tree if path.startswith("from")]) == 2 * 16
    for agent in (anna, bert):
        for name in ("from anna", "from bert"):
            status = (agent.folder / name / "run.sh").stat()
            assert status.st_mode & 0o111
            assert status.st_mtime_ns // 1_000_000 == 1_600_000_000_123


def test_edits_deletions_and_moves(anna: Agent, bert: Agent, server: ServerView) -> None:
    top = anna.folder / "work"
    (top / "old" / "sub").mkdir(parents=True)
    for name in ("edit", "shrink", "gone", "rename", "old/in", "old/sub/in"):
        (top / name).write_bytes(f"first {name}".encode())
    settle(server, anna, bert)
    inode = (bert.folder / "work" / "old").stat().st_ino
    sent = len([event for agent in (anna, bert) for event in agent.history() if event["verb"] in {"sent", "received"}])
    (top / "old").rename(top / "new")
    (top / "rename").rename(top / "new" / "renamed")
    settle(server, anna, bert)
    assert (bert.folder / "work" / "new").stat().st_ino == inode
    both = [event for agent in (anna, bert) for event in agent.history()]
    assert len([event for event in both if event["verb"] in {"sent", "received"}]) == sent
    (bert.folder / "work" / "edit").write_bytes(b"second")
    (bert.folder / "work" / "shrink").write_bytes(b"")
    (bert.folder / "work" / "gone").unlink()
    tree = settle(server, anna, bert)
    assert (tree["work/edit"], tree["work/shrink"], tree["work/new/renamed"]) == (b"second", b"", b"first rename")
    assert "work/gone" not in tree
    assert b"first gone" in anna.trashed()


def test_an_edit_that_keeps_size_and_time(anna: Agent, bert: Agent, server: ServerView) -> None:
    file = anna.folder / "sneaky"
    file.write_bytes(b"one")
    settle(server, anna, bert)
    before = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    appears(bert, "sneaky", b"two")
    settle(server, anna, bert)


def test_offline_edits_meet(anna: Agent, bert: Agent, server: ServerView) -> None:
    top = anna.folder / "off"
    top.mkdir()
    for name in ("both", "same", "edited", "moved", "dir.txt"):
        (top / name).write_bytes(b"old")
    settle(server, anna, bert)
    bert.stop()
    other = bert.folder / "off"
    (top / "both").write_bytes(b"anna's")
    (other / "both").write_bytes(b"bert's")
    (top / "same").write_bytes(b"equal")
    (other / "same").write_bytes(b"equal")
    (top / "edited").unlink()
    (other / "edited").write_bytes(b"an edit beats a deletion")
    (top / "moved").rename(top / "target")
    (other / "moved").write_bytes(b"a move and an edit merge")
    (top / "twice").write_bytes(b"1")
    (other / "twice").write_bytes(b"2")
    (top / "dir.txt").unlink()
    (top / "dir.txt").mkdir()
    (other / "dir.txt").write_bytes(b"this was a file")
    settle(server, anna)
    bert.start()
    tree = settle(server, anna, bert)
    assert tree["off/both"] == b"anna's"
    assert tree["off/same"] == b"equal"
    assert tree["off/edited"] == b"an edit beats a deletion"
    assert tree["off/target"] == b"a move and an edit merge"
    assert "off/moved" not in tree
    assert tree["off/twice"] == b"1"
    assert b"this was a file" in tree.values()
    assert sorted(copies(tree, "off/both")) == [b"bert's"]
    assert sorted(copies(tree, "off/twice")) == [b"2"]
    assert copies(tree, "off/same") == []
    conflicts = ask(bert.home, "conflicts")["conflicts"]
    assert len([path for path in conflicts if path.startswith("/off/")]) >= 2


def test_a_directory_that_one_deletes_and_the_other_fills(anna: Agent, bert: Agent, server: ServerView) -> None:
    (anna.folder / "half" / "a").mkdir(parents=True)
    (anna.folder / "half" / "a" / "f").write_bytes(b"goes")
    settle(server, anna, bert)
    bert.stop()
    (anna.folder / "half" / "a" / "f").unlink()
    (anna.folder / "half" / "a").rmdir()
    (anna.folder / "half").rmdir()
    settle(server, anna)
    (bert.folder / "half" / "a" / "new").write_bytes(b"stays")
    bert.start()
    tree = settle(server, anna, bert)
    assert {path: content for path, content in tree.items() if path.startswith("half")} == {
        "half": None,
        "half/a": None,
        "half/a/new": b"stays",
    }


def test_the_same_name_at_the_same_time(anna: Agent, bert: Agent, server: ServerView) -> None:
    for number in range(10):
        (anna.folder / f"race{number}").write_bytes(b"from anna %d" % number)
        (bert.folder / f"race{number}").write_bytes(b"from bert %d" % number)
    tree = settle(server, anna, bert)
    for number in range(10):
        contents = [content for path, content in tree.items() if path.startswith(f"race{number}")]
        assert sorted(content or b"" for content in contents) == [b"from anna %d" % number, b"from bert %d" % number]


def test_agents_killed_in_the_middle(anna: Agent, bert: Agent, server: ServerView) -> None:
    chance = random.Random(7)
    for attempt in range(4):
        victim = chance.choice((anna, bert))
        top = anna.folder / f"kill{attempt}"
        top.mkdir()
        for number in range(40):
            (top / f"f{number}").write_bytes(os.urandom(chance.randrange(20_000)))
        (top / "large").write_bytes(os.urandom(6_000_000))
        wanted = chance.randrange(45)
        place = victim.folder / f"kill{attempt}"
        with contextlib.suppress(AssertionError):  # the later the better, but it need not come so far
            wait_until(lambda place=place, wanted=wanted: place.exists() and len(list((place).iterdir())) >= wanted, 1)
        victim.kill()
        (top / "f0").write_bytes(b"changed while one was dead")
        victim.start()
    tree = settle(server, anna, bert)
    for attempt in range(4):
        saved = [content for path, content in tree.items() if path.startswith(f"kill{attempt}/f0")]
        assert saved == [b"changed while one was dead"]


def test_a_gateway_that_dies(anna: Agent, bert: Agent, server: ServerView, cluster: Cluster) -> None:
    (anna.folder / "during").mkdir()
    for number in range(60):
        (anna.folder / "during" / f"f{number}").write_bytes(os.urandom(5_000))
        if number == 20:
            gateway = cluster.child("webdav")
            for process in [*gateway.children(recursive=True), gateway]:
                process.kill()
    with contextlib.suppress(HeleniteError):
        server.remote.identity()
    tree = settle(server, anna, bert)
    assert len([path for path in tree if path.startswith("during/")]) == 60


def test_too_many_deletions_are_asked_about(anna: Agent, bert: Agent, server: ServerView) -> None:
    top = anna.folder / "many"
    top.mkdir()
    count = max(60, len(anna.tree()))
    for number in range(count):
        (top / f"f{number}").write_bytes(b"%d" % number)
    settle(server, anna, bert)
    away = anna.folder.with_name("many away")
    top.rename(away)
    wait_until(lambda: anna.status()["problem"].startswith(f"{count + 1} of"), 30)
    assert anna.command("status").returncode == 1
    assert len(list((bert.folder / "many").iterdir())) == count
    ask(anna.home, "decide", decision="undo")
    wait_until(lambda: top.exists() and len(list(top.iterdir())) == count, 30)
    settle(server, anna, bert)
    top.rename(away.with_name("many away again"))
    wait_until(lambda: anna.status()["problem"].startswith(f"{count + 1} of"), 30)
    assert anna.command("decide", "allow").returncode == 0
    wait_until(lambda: bert.status()["problem"].startswith(f"{count + 1} of"), 30)  # each device asks for itself
    assert bert.command("decide", "allow").returncode == 0
    wait_until(lambda: not (bert.folder / "many").exists(), 30)
    settle(server, anna, bert)


def test_a_folder_that_went_away_deletes_nothing(anna: Agent, bert: Agent, server: ServerView) -> None:
    before = settle(server, anna, bert)
    away = anna.folder.with_name("away")
    anna.folder.rename(away)
    anna.folder.mkdir()
    ask(anna.home, "sync")
    wait_until(lambda: anna.status()["mood"] == "attention", 30)
    anna.folder.rmdir()
    ask(anna.home, "sync")
    wait_until(lambda: anna.status()["mood"] == "offline", 30)
    assert server.tree() == before
    away.rename(anna.folder)
    (anna.folder / "back").write_bytes(b"again")
    anna.look_everywhere()
    appears(bert, "back", b"again")
    assert settle(server, anna, bert) == before | {"back": b"again"}


def test_pause_limits_ignore_and_explain(anna: Agent, bert: Agent, server: ServerView) -> None:
    assert anna.command("pause").returncode == 0
    wait_until(lambda: anna.status()["mood"] == "paused")
    (anna.folder / "paused").write_bytes(b"later")
    (bert.folder / "to paused").write_bytes(b"later too")
    wait_until(lambda: "to paused" in server.tree(), 20)
    assert "paused" not in server.tree()
    assert anna.command("resume").returncode == 0
    settle(server, anna, bert)
    assert anna.command("ignore", "*.part").returncode == 0
    appears(bert, ".heleniteignore", b"*.part\n")
    (anna.folder / "x.part").write_bytes(b"mine alone")
    (anna.folder / "y").write_bytes(b"ours")
    appears(bert, "y", b"ours")
    assert not (bert.folder / "x.part").exists()
    (anna.folder / "x.part").unlink()
    settle(server, anna, bert)
    assert "equal" in anna.command("explain", "y").stdout
    assert anna.command("explain", "nothing").returncode == 1
    assert "sent" in anna.command("history").stdout
    assert anna.command("limit", "--up", "2M").stdout.startswith("up: 2000000")
    assert anna.command("limit", "--up", "fast").returncode == 2
    assert anna.command("limit", "--up", "0").returncode == 0


def test_one_agent_for_one_home_and_one_sync_for_one_folder(anna: Agent, cluster: Cluster) -> None:
    second = anna.command("run", "--no-tray")
    assert second.returncode == 2
    assert "already running" in second.stderr
    nested = anna.folder / "from anna"
    assert anna.command("add", f"{cluster.url}other", str(nested)).returncode == 2
    assert (anna.home.path / "control.sock").stat().st_mode & 0o077 == 0


def test_the_first_sync_of_two_full_folders(cluster: Cluster, tmp_path: Path) -> None:
    url = f"{cluster.url}union"
    server = ServerView(url, tmp_path / "scratch")
    first, second = Agent(tmp_path, "first"), Agent(tmp_path, "second")
    for agent in (first, second):
        (agent.folder / "d").mkdir(parents=True)
        (agent.folder / "d" / "same").write_bytes(b"same")
        (agent.folder / "d" / "other").write_bytes(agent.folder.name.encode())
        (agent.folder / f"only {agent.folder.name}").write_bytes(b"x")
    first.add(url)
    first.start()
    settle(server, first)
    said = second.command("add", url, str(second.folder))
    assert "Only here, and going to the server: 1." in said.stdout
    assert "Only there, and coming here: 1." in said.stdout
    assert "Names on both sides: 3;" in said.stdout
    second.start()
    tree = settle(server, first, second)
    assert tree["d/other"] == b"first"
    assert copies(tree, "d/") == [b"second"]
    assert {"only first", "only second"} <= set(tree)
    for agent in (first, second):
        agent.stop()
    server.remote.close()


def test_commands_without_an_agent(tmp_path: Path) -> None:
    agent = Agent(tmp_path, "nobody")
    assert agent.command("status").returncode == 3
    assert agent.command("pause").returncode == 2
    assert agent.command("add", "ftp://x/y", str(tmp_path / "f")).returncode == 2
    assert agent.command("add", "http://127.0.0.1:9/y", str(tmp_path / "f")).returncode == 3
