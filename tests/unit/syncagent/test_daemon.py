"""The daemon in this process, with real folders, on a gateway with a file system in memory."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helenite.core.clock import Clock
from helenite.core.errors import ConfigurationError, InvalidRequestError, UnavailableError
from syncagent import daemon as daemon_module
from syncagent import runner, steady
from syncagent.control import ask
from syncagent.daemon import Daemon
from syncagent.engine import Engine, Report
from syncagent.inotify import OVERFLOW, DirtyDirectoryEmitter
from syncagent.names import STATE_DIRECTORY
from syncagent.remote import WebDavRemote
from syncagent.settings import PairSettings
from syncagent.status import Mood, parse_status
from syncagent.watcher import FolderWatch
from tests.support.gateways import our_gateway
from tests.support.memory_filesystem import MemoryFileSystem
from tests.support.sync_daemon import Running, names
from tests.support.waiting import wait_until
from webdav.waiting import WaitingRoom


@pytest.fixture
def running(fs: MemoryFileSystem, tmp_path: Path) -> Iterator[Running]:
    with our_gateway(fs) as client:
        found = Running(tmp_path, f"http://{client.host}:{client.port}")
        found.start()
        yield found
        found.stop()


def test_a_file_is_brought_over_and_told(running: Running, fs: MemoryFileSystem) -> None:
    running.settles()
    (running.folder / "a.txt").write_bytes(b"text")
    wait_until(lambda: "a.txt" in names(fs))
    running.settles()
    status = running.status
    assert [(recent.folder, recent.path) for recent in status.recent] == [(str(running.folder), "a.txt")]
    assert status.tray == "not shown: not wanted"
    assert (status.pairs[0].mood, status.pairs[0].left, status.pairs[0].conflicts) == (Mood.IDLE, 0, ())


def test_watching_answers_as_soon_as_something_changes(running: Running) -> None:
    running.settles()
    running.home.pause("", is_paused=True)
    ask(running.home, "reload")
    seen, mood = 0, Mood.SYNCING
    while mood is not Mood.PAUSED:
        answer = ask(running.home, "watch", seen=seen)
        assert answer["seen"] > seen
        seen, mood = answer["seen"], parse_status(answer).pairs[0].mood


def test_watching_ends_after_a_while(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_module, "WATCH_S", 0.01)
    running.settles()
    seen = 0

    def nothing_is_new() -> bool:
        nonlocal seen
        before, seen = seen, ask(running.home, "watch", seen=seen)["seen"]
        return before == seen

    wait_until(nothing_is_new)


def test_a_bug_ends_a_cycle_and_not_the_agent(
    running: Running, fs: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.settles()
    monkeypatch.setattr(steady, "PAUSE_S", (0.2, 1.0))
    cycle = Engine.cycle
    crashes = 3

    def cycle_with_a_bug(engine: Engine, *given: Any, **options: Any) -> Report:
        nonlocal crashes
        if crashes:
            crashes -= 1
            raise ZeroDivisionError("a bug")
        return cycle(engine, *given, **options)

    monkeypatch.setattr(Engine, "cycle", cycle_with_a_bug)
    (running.folder / "a").write_bytes(b"1")

    def tells() -> bool:
        status = running.pair_status
        return status.mood is Mood.ATTENTION and status.problem == "an error of the agent, see its log"

    wait_until(tells)
    wait_until(lambda: "a" in names(fs), 20)
    running.settles()
    assert (running.pair_status.crashes, running.pair_status.problem) == (3, "")
    (running.folder / "b").write_bytes(b"2")
    wait_until(lambda: "b" in names(fs), 20)


def test_a_question_that_meets_a_bug_is_answered(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    running.settles()
    monkeypatch.setattr(steady, "PAUSE_S", (0.01, 1.0))

    def explain_with_a_bug(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(daemon_module, "explain", explain_with_a_bug)
    with pytest.raises(UnavailableError, match="see its log"):
        ask(running.home, "explain", path="/a")
    running.settles()


def test_settings_are_taken_over_while_it_runs(running: Running, fs: MemoryFileSystem, tmp_path: Path) -> None:
    running.settles()
    fs.make_directory(("home", "photos"))
    wait_until((running.folder / "photos").is_dir)
    running.settles()
    running.keep(replace(running.pair, excluded=("photos",)))
    ask(running.home, "reload")
    wait_until(lambda: not (running.folder / "photos").exists())
    assert names(fs) == {"photos"}
    fs.make_directory(("other",))
    second = tmp_path / "second"
    second.mkdir()
    (second / "s").write_bytes(b"s")
    running.keep(running.pair, PairSettings("p2", running.pair.url.replace("home", "other"), str(second)))
    ask(running.home, "reload")
    wait_until(lambda: len(list(fs.list(("other",))[1])) == 1)
    wait_until((running.folder / "photos").is_dir)
    running.keep()
    ask(running.home, "reload")
    assert running.status.pairs == ()


def test_an_hour_later_the_trash_is_emptied(
    running: Running, fs: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.stop()
    trash = running.folder / STATE_DIRECTORY / "trash"
    old = trash / f"{running.clock.now_ms() - 40 * 24 * 3600 * 1000}-0"
    young = trash / f"{running.clock.now_ms() - 4 * 24 * 3600 * 1000}-0"
    for holder in (old, young):
        holder.mkdir(parents=True)
        (holder / "f").write_bytes(b"x")
    monkeypatch.setattr(daemon_module, "HOUSEKEEPING_S", 0.05)
    running._stopping.clear()
    running.start()
    wait_until(lambda: not old.exists())
    assert young.exists()
    running.keep(running.pair, trash_days=3)
    ask(running.home, "reload")
    wait_until(lambda: not young.exists())


def test_after_a_sleep_of_the_machine_everything_is_looked_at(
    running: Running, fs: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What changed meanwhile was told to nobody, on either side."""
    running.stop()  # else its listener is waiting for the server already, and hears of the change

    def hear_nothing(*_: object) -> bool:
        threading.Event().wait(0.05)
        return False

    monkeypatch.setattr(FolderWatch, "hear", lambda *_: None)
    monkeypatch.setattr(WebDavRemote, "wait", hear_nothing)
    running._stopping.clear()
    running.start()
    running.settles()
    (running.folder / "here").write_bytes(b"1")
    fs.make_directory(("home", "there"))
    cycles = running.pair_status.cycles
    assert running.pair_status.is_settled
    running.clock.slept_s = 3_600.0
    wait_until((running.folder / "there").exists, 20)
    wait_until(lambda: "here" in names(fs), 20)
    running.settles()
    assert running.pair_status.cycles > cycles


def brings_what_nobody_hints_at(running: Running, fs: MemoryFileSystem) -> None:
    """One that was stopped starts, and finds files one after another."""
    running._stopping.clear()
    running.start()
    running.settles()
    for number in range(3):
        (running.folder / f"unseen {number}").write_bytes(b"%d" % number)
        wait_until(lambda number=number: f"unseen {number}" in names(fs), 20)


def test_without_enough_watches_everything_is_looked_at_often(
    running: Running, fs: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.stop()
    limit = "the system allows no more watches"
    monkeypatch.setattr(runner, "POLL_S", 0.3)
    monkeypatch.setattr(FolderWatch, "start", lambda watch: setattr(watch, "trouble", limit))
    brings_what_nobody_hints_at(running, fs)
    assert running.pair_status.watch_trouble == limit


def test_everything_is_looked_at_from_time_to_time_whatever_hints_say(
    running: Running, fs: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is every hour: hints that are lost are lost for so long, and not for ever."""
    running.stop()
    monkeypatch.setattr(runner, "EVERYWHERE_S", 0.3)
    monkeypatch.setattr(FolderWatch, "hear", lambda *_: None)
    brings_what_nobody_hints_at(running, fs)
    assert running.pair_status.watch_trouble == ""  # else it would be looked at often for that


def test_a_folder_that_was_away_is_found_back_and_watched_again(
    running: Running, fs: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a disk is taken out and put in again; nobody tells the agent of either."""
    running.stop()
    monkeypatch.setattr(runner, "CHECK_S", 0.3)
    running._stopping.clear()
    running.start()
    (running.folder / "before").write_bytes(b"1")
    wait_until(lambda: "before" in names(fs), 20)
    running.settles()
    away = running.folder.with_name("away")
    running.folder.rename(away)
    wait_until(lambda: running.pair_status.mood in {Mood.OFFLINE, Mood.ATTENTION}, 20)
    back = Path(shutil.copytree(away, running.folder.with_name("back")))  # other directories, as after mounting
    (back / "meanwhile").write_bytes(b"2")
    back.rename(running.folder)
    wait_until(lambda: names(fs) == {"before", "meanwhile"}, 20)
    wait_until(lambda: running.pair_status.mood is Mood.IDLE and running.pair_status.watch_trouble == "", 20)
    monkeypatch.setattr(runner, "CHECK_S", 1_000.0)  # what comes now is noticed by the watcher
    running.settles()
    (running.folder / "afterwards").write_bytes(b"3")
    wait_until(lambda: "afterwards" in names(fs), 20)


def test_what_the_systems_queue_had_no_room_for_is_brought_all_the_same(
    running: Running, fs: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watcher is held up until Linux drops events, those of a whole new tree among them."""
    may_read, overflows, read = threading.Event(), 0, DirtyDirectoryEmitter._read

    def read_late(emitter: DirtyDirectoryEmitter) -> Iterator[Any]:
        nonlocal overflows
        may_read.wait(60)
        for raw in read(emitter):
            overflows += bool(raw.mask & OVERFLOW)
            yield raw

    may_read.set()
    monkeypatch.setattr(DirtyDirectoryEmitter, "_read", read_late)
    for name in ("busy/a", "busy/b", "quiet/old"):
        (running.folder / name).parent.mkdir(exist_ok=True)
        (running.folder / name).write_bytes(b"1")
    wait_until(lambda: fs.exists(("home", "quiet", "old")), 20)
    running.settles()
    may_read.clear()
    room = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for number in range(room // 2 + 100):  # of equal events that follow each other Linux keeps one
        os.utime(running.folder / "busy" / "a", (number, number))
        os.utime(running.folder / "busy" / "b", (number, number))
    tree = running.folder / "quiet" / "new" / "deep"
    tree.mkdir(parents=True)
    for number in range(20):
        (tree / f"f{number}").write_bytes(b"%d" % number)
    assert overflows == 0
    may_read.set()
    wait_until(lambda: fs.exists(("home", "quiet", "new", "deep")), 20)
    wait_until(lambda: names(fs, "quiet", "new", "deep") == {f"f{number}" for number in range(20)}, 20)
    assert overflows
    running.settles()
    (tree / "afterwards").write_bytes(b"1")  # it is watched from now on
    wait_until(lambda: "afterwards" in names(fs, "quiet", "new", "deep"), 20)


def test_a_server_that_cannot_wait_for_a_moment_is_soon_heard_again(
    running: Running, fs: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a master has died: its gateways do not hear of changes, and do not hold answers back."""
    running.settles()
    monkeypatch.setattr(runner, "POLL_S", 1_000.0)
    with monkeypatch.context() as inner:
        inner.setattr(WaitingRoom, "is_fresh", lambda _room: False)
        fs.make_directory(("home", "meanwhile"))
        wait_until((running.folder / "meanwhile").exists)
    for number in range(3):
        fs.make_directory(("home", f"later {number}"))
        wait_until((running.folder / f"later {number}").exists)


def test_a_journal_of_a_newer_program_needs_a_person(running: Running, fs: MemoryFileSystem) -> None:
    running.settles()
    running.stop()
    journal = sqlite3.connect(running.home.pair_dir("p1") / "journal")
    version = journal.execute("PRAGMA user_version").fetchone()[0]
    journal.execute("PRAGMA user_version = 99")
    (running.folder / "a").write_bytes(b"1")
    running._stopping.clear()
    running.start()
    wait_until(lambda: running.pair_status.mood is Mood.ATTENTION, 20)
    assert "newer version of Helenite (schema 99; this one reads" in running.pair_status.problem
    with pytest.raises(ConfigurationError, match="newer version"):
        ask(running.home, "conflicts")
    assert not names(fs)
    journal.execute(f"PRAGMA user_version = {version}")
    journal.close()
    running.settles()
    assert names(fs) == {"a"}


def test_commands_that_make_no_sense(running: Running) -> None:
    running.settles()
    with pytest.raises(InvalidRequestError):
        ask(running.home, "dance")
    with pytest.raises(ConfigurationError):
        ask(running.home, "history", pair="unknown", count=3)
    for decision in ("allow", "undo", "start-over", "dance"):
        with pytest.raises(InvalidRequestError, match="the agent has asked nothing"):
            ask(running.home, "decide", decision=decision)
    assert ask(running.home, "history", count=0) == {"events": []}


def test_one_daemon_for_one_home(running: Running) -> None:
    with pytest.raises(ConfigurationError, match="already running"):
        Daemon(running.home, Clock(), "not wanted").run(threading.Event())


def test_quitting(running: Running) -> None:
    running.settles()
    ask(running.home, "quit")
    wait_until(lambda: not running.answers())
    assert not (running.home.path / "control.sock").exists()
