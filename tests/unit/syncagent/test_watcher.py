"""The watcher on a real folder: what it must notice, and what stock watchdog does not."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from syncagent import inotify
from syncagent.watcher import FolderWatch
from tests.support.waiting import wait_until

Hints = set[tuple[str, ...]]


class Watched:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.hints: Hints = set()
        self.everything = 0
        (root / ".helenite-sync").mkdir()
        self.watch = FolderWatch(str(root), self.hints.add, self.hear_everything)

    def hear_everything(self) -> None:
        self.everything += 1

    def notices(self, *directories: str) -> None:
        wanted = {tuple(directory.split("/")) if directory else () for directory in directories}
        wait_until(lambda: wanted <= self.hints)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    root = tmp_path / "root"
    root.mkdir()
    (root / "old" / "deep").mkdir(parents=True)
    found = Watched(root)
    found.watch.start()
    yield found
    found.watch.stop()


def test_changes_make_their_directory_dirty(watched: Watched) -> None:
    file = watched.root / "old" / "deep" / "f"
    for change in (
        lambda: file.write_text("x"),
        lambda: os.utime(file, (1, 1)),
        lambda: file.chmod(0o755),
        lambda: file.rename(file.with_name("g")),
        lambda: file.with_name("g").unlink(),
    ):
        watched.hints.clear()
        change()
        watched.notices("old/deep")
        assert watched.hints == {("old", "deep")}


def test_new_directories_are_watched(watched: Watched) -> None:
    (watched.root / "a" / "b" / "c").mkdir(parents=True)
    watched.notices("")
    wait_until(watched.watch.check)
    watched.hints.clear()
    (watched.root / "a" / "b" / "c" / "f").write_text("x")
    watched.notices("a/b/c")


def test_a_tree_that_is_moved_in_is_watched(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "out" / "one" / "two").mkdir(parents=True)
    (tmp_path / "out").rename(watched.root / "in")
    watched.notices("", "in")
    watched.hints.clear()
    (watched.root / "in" / "one" / "two" / "f").write_text("x")
    watched.notices("in/one/two")


def test_moved_directories_have_their_new_name(watched: Watched) -> None:
    (watched.root / "old").rename(watched.root / "new")
    watched.notices("", "new")
    wait_until(watched.watch.check)  # nothing more comes of that
    watched.hints.clear()
    (watched.root / "new" / "deep" / "f").write_text("x")
    watched.notices("new/deep")
    assert watched.hints == {("new", "deep")}


def test_what_was_moved_out_gives_no_hints(watched: Watched, tmp_path: Path) -> None:
    (watched.root / "old").rename(tmp_path / "out")
    emitter = next(iter(watched.watch._observer.emitters))
    wait_until(lambda: len(emitter._watches) == 2)
    watched.hints.clear()
    (tmp_path / "out" / "deep" / "f").write_text("x")
    assert watched.watch.check()
    assert watched.hints == set()


def test_the_agents_own_directory_gives_no_hints(watched: Watched) -> None:
    (watched.root / ".helenite-sync" / "staging").mkdir()
    (watched.root / ".helenite-sync" / "staging" / "part-1").write_text("x")
    assert watched.watch.check()
    assert watched.hints <= {()}


def test_lost_events_are_told(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    emitter = next(iter(watched.watch._observer.emitters))
    real = emitter._read
    monkeypatch.setattr(emitter, "_read", lambda: [*real(), _overflow()])
    (watched.root / "f").write_text("x")
    wait_until(lambda: watched.everything)


def _overflow() -> object:
    return inotify._Raw(-1, inotify.OVERFLOW, 0, b"")


def test_the_limit_of_watches_is_told(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def inotify_add_watch(self, *_: object) -> int:
            ctypes.set_errno(errno.ENOSPC)
            return -1

    monkeypatch.setattr(inotify, "_libc", Refusing())
    (watched.root / "more").mkdir()
    watched.notices("")
    wait_until(lambda: not watched.watch.check())
    assert "watches" in watched.watch.trouble


def test_a_watch_that_is_dead_is_found_out(watched: Watched) -> None:
    assert watched.watch.check()
    for emitter in watched.watch._observer.emitters:
        emitter.stop()
        emitter.join(5)
    assert not watched.watch.check()
    watched.watch.start()
    assert watched.watch.check()


def test_a_storm_of_renames_leaves_nothing_unwatched(watched: Watched, tmp_path: Path) -> None:
    chance = random.Random(5)
    outside = tmp_path / "outside"
    outside.mkdir()
    names = [watched.root / name for name in "abcdef"]
    for _ in range(1500):
        one, other = chance.choice(names), chance.choice(names)
        change: Callable[[], object] = chance.choice(
            [
                partial((one / other.name / "x").mkdir, parents=True, exist_ok=True),
                partial(one.rename, other / one.name),
                partial(shutil.rmtree, one),
                partial(one.rename, outside / one.name),
                partial((outside / one.name).rename, one),
            ]
        )
        with contextlib.suppress(OSError):
            change()
    wait_until(watched.watch.check)
    for directory, _, _ in os.walk(watched.root):
        if ".helenite-sync" not in directory:
            (Path(directory) / "probe").write_text("x")
            relative = os.path.relpath(directory, watched.root)
            watched.notices("" if relative == "." else relative)
