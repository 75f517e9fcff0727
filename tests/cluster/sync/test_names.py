"""Two agents: names of all kinds, and what is kept beside the content."""

from __future__ import annotations

import os
import socket
import stat
import unicodedata
from pathlib import Path

import pytest

from tests.cluster.sync.conftest import Scene
from tests.cluster.sync.test_moves import watching
from tests.support.waiting import wait_until


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_every_sign_of_ascii(scene: Scene) -> None:
    for number in [*range(1, 47), *range(48, 128)]:  # all but NUL and the slash
        sign = chr(number)
        for name in (f"{number} {sign}", f"{sign} {number}", f"a{sign}{number}"):
            (scene.here / name).write_bytes(name.encode())
    tree = scene.settle()
    assert len(tree) == len(names(scene.here))
    assert all(content == path.encode() for path, content in tree.items())


def test_scripts_and_signs_of_the_world(scene: Scene) -> None:
    odd = [
        "👩‍👩‍👧‍👦",
        "שלום",
        "مرحبا.txt",
        "𠜎",
        "日本語",
        "ﷺ",
        "a\u200db",
        "é",
        unicodedata.normalize("NFD", "é"),
        "ß",
        "ẞ",
    ]
    for name in odd:
        (scene.here / name).write_bytes(name.encode())
    assert scene.settle() == {name: name.encode() for name in odd}


def test_names_that_others_would_refuse(scene: Scene) -> None:
    odd = ["CON", "aux.txt", "a:b", "x.", "tail ", "Foo", "foo", "FOO", ".", "..."]
    for name in odd:
        if name != ".":
            (scene.here / name).write_bytes(name.encode())
    (scene.here / "Dir").mkdir()
    (scene.here / "dir").mkdir()
    (scene.here / "Dir" / "f").write_bytes(b"1")
    (scene.here / "dir" / "f").write_bytes(b"2")
    tree = scene.settle()
    assert (tree["Dir/f"], tree["dir/f"]) == (b"1", b"2")
    assert {path for path in tree if not path.lower().startswith("dir")} == set(odd) - {"."}


def test_long_names_and_deep_trees(scene: Scene) -> None:
    place = scene.here
    while len(os.fsencode(place)) < 3_400:
        place = place / ("n" * 200)
        place.mkdir()
    (place / ("x" * 255)).write_bytes(b"deep")
    deep = scene.here
    for _ in range(50):
        deep = deep / "d"
        deep.mkdir()
    (deep / "f").write_bytes(b"fifty down")
    tree = scene.settle()
    assert {content for content in tree.values() if content is not None} == {b"deep", b"fifty down"}
    (scene.here / "d").rename(scene.here / "e")
    assert "e/" + "d/" * 49 + "f" in scene.settle()


def test_what_is_no_file_is_left_alone(scene: Scene, tmp_path: Path) -> None:
    os.mkfifo(scene.here / "pipe")
    (tmp_path / "short").symlink_to(scene.here)  # the path of a socket is short
    bad = Path(os.fsdecode(os.fsencode(scene.here) + b"/not \xff utf-8"))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "short" / "socket"))
    bad.write_bytes(b"bytes")
    scene.write(plain=b"plain")
    wait_until((scene.there / "plain").exists, 20)
    wait_until(lambda: any("UTF-8" in trouble for trouble in scene.anna.status()["troubles"]), 20)
    scene.write(more=b"more")
    wait_until((scene.there / "more").exists, 20)
    assert names(scene.there) == ["more", "plain"]
    told = scene.anna.command("status").stdout
    assert "not \\udcff utf-8: a name must be valid UTF-8" in told  # it is still told
    for path in (scene.here / "pipe", scene.here / "socket", bad):
        path.unlink()
    assert scene.settle() == {"plain": b"plain", "more": b"more"}
    assert scene.anna.status()["troubles"] == []


def test_times(scene: Scene) -> None:
    tomorrow = scene.here.stat().st_mtime_ns // 10**9 + 86_400
    seconds = {"1913": -1_800_000_000, "1970": 0, "2106": 4_294_967_296, "2025": 1_750_000_000, "tomorrow": tomorrow}
    for name, at_s in seconds.items():
        (scene.here / name).write_bytes(name.encode())
        os.utime(scene.here / name, (at_s, at_s))
    scene.settle()
    assert (scene.there / "2025").stat().st_mtime == seconds["2025"]
    assert (scene.there / "2106").stat().st_mtime == seconds["2106"]
    assert (scene.there / "tomorrow").stat().st_mtime == tomorrow


def test_a_touch_sends_no_content(scene: Scene) -> None:
    scene.write(f=b"x" * 100_000)
    scene.settle()
    since = watching(scene)
    os.utime(scene.here / "f", (1_700_000_000, 1_700_000_000))
    wait_until(lambda: (scene.there / "f").stat().st_mtime == 1_700_000_000, 20)
    scene.settle()
    assert not {verb for _, verb in since.verbs()} & {"sent", "received"}


def test_modes_and_attributes_stay(scene: Scene) -> None:
    scene.write(run=b"1", private=b"1", readonly=b"1")
    scene.settle()
    (scene.here / "run").chmod(0o755)
    wait_until(lambda: bool((scene.there / "run").stat().st_mode & stat.S_IXUSR), 20)
    (scene.there / "private").chmod(0o600)
    (scene.there / "readonly").chmod(0o444)
    try:
        os.setxattr(scene.there / "private", "user.note", b"mine")
        has_attributes = True
    except OSError:
        has_attributes = False  # not every file system has them
    scene.settle()
    scene.write(run=b"22", private=b"22", readonly=b"22")
    assert scene.settle() == dict.fromkeys(("run", "private", "readonly"), b"22")
    assert stat.S_IMODE((scene.there / "run").stat().st_mode) & 0o111
    assert stat.S_IMODE((scene.there / "private").stat().st_mode) == 0o600
    assert stat.S_IMODE((scene.there / "readonly").stat().st_mode) == 0o444
    if has_attributes:
        assert os.getxattr(scene.there / "private", "user.note") == b"mine"
    (scene.here / "run").chmod(0o644)
    wait_until(lambda: not (scene.there / "run").stat().st_mode & stat.S_IXUSR, 20)


def test_links_are_kept_and_not_followed(scene: Scene) -> None:
    outside = scene.anna.folder.with_name("outside of links")
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (scene.here / "to outside").symlink_to(outside)
    (scene.here / "dangling").symlink_to("nowhere")
    (scene.here / "loop").symlink_to(".")
    tree = scene.settle()
    assert tree == {
        "to outside": b"-> " + os.fsencode(outside),
        "dangling": b"-> nowhere",
        "loop": b"-> .",
    }
    (scene.here / "dangling").unlink()
    (scene.here / "dangling").symlink_to("elsewhere")
    assert scene.settle()["dangling"] == b"-> elsewhere"
    (scene.here / "to outside").unlink()
    (scene.here / "to outside").mkdir()
    (scene.here / "to outside" / "f").write_bytes(b"a folder now")
    assert scene.settle()["to outside/f"] == b"a folder now"
    assert names(outside) == ["secret"]


@pytest.mark.parametrize("count", [1_000])
def test_a_directory_of_many_files_comes_and_goes(scene: Scene, count: int) -> None:
    (scene.here / "many").mkdir()
    for number in range(count):
        (scene.here / "many" / f"{number}").write_bytes(b"%d" % number)
    scene.settle()
    (scene.here / "many").rename(scene.anna.folder.with_name("many, away"))
    for agent in (scene.anna, scene.bert):
        wait_until(lambda agent=agent: agent.status()["decisions"] == ["allow", "undo"], 60)
        assert agent.command("decide", "allow").returncode == 0
        wait_until(lambda agent=agent: not (agent.folder / scene.name / "many").exists(), 60)
    assert scene.settle() == {}
    assert len(scene.bert.trashed()) >= count
