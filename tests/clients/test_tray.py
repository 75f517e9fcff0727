"""The icon on a real desktop without a person: a screen, a session bus, a panel, and an agent that syncs.

The icon follows the engine, its menu acts on it, what needs a person is told, and Quit leaves no process.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from PIL import Image

from syncagent.control import ask
from syncagent.status import Mood
from syncagent.tray.icons import COLOURS
from syncagent.tray.menu import Badge
from tests.support.desktops import SYSTEM_PYTHON, Panel, panel, screen, session_bus
from tests.support.gateways import our_gateway
from tests.support.memory_filesystem import MemoryFileSystem
from tests.support.sync_agents import Agent
from tests.support.waiting import wait_until

WITHIN_S = 20.0


@pytest.fixture(scope="module")
def desktop(need: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a screen and a session bus."""
    need("Xvfb", "dbus-daemon")
    typelibs = "import gi; gi.require_version('Gtk', '3.0'); gi.require_version('AyatanaAppIndicator3', '0.1')"
    if subprocess.run([SYSTEM_PYTHON, "-c", typelibs], capture_output=True, check=False).returncode != 0:
        need("python3-gi and gir1.2-ayatanaappindicator3-0.1")
    with screen() as display, session_bus(tmp_path_factory.mktemp("bus")) as bus:
        yield display | bus


class Tray:
    """An agent with an icon."""

    def __init__(self, agent: Agent, shown: Panel, close_gateway: Callable[[], None]) -> None:
        self.agent = agent
        self.panel = shown
        self.close_gateway = close_gateway

    def shows(self, badge: Badge, title: str) -> None:
        wait_until(lambda: self.panel.shows(badge) and self.panel.title() == f"Helenite: {title}", WITHIN_S)


def programs(base: Path) -> dict[str, str]:
    """What opens files and pages for a person: here they only write down what they were to open."""
    (base / "bin").mkdir()
    for name in ("xdg-open", "browser"):
        program = base / "bin" / name
        program.write_text(f'#!/bin/sh\nprintf "%s %s\\n" {name} "$1" >> "{base}/opened"\n')
        program.chmod(0o755)
    return {"PATH": f"{base / 'bin'}:{os.environ['PATH']}", "BROWSER": str(base / "bin" / "browser")}


@pytest.fixture
def fs() -> MemoryFileSystem:
    return MemoryFileSystem()


@pytest.fixture
def tray(desktop: dict[str, str], fs: MemoryFileSystem, tmp_path: Path) -> Iterator[Tray]:
    with ExitStack() as gateway, ExitStack() as stack:
        client = gateway.enter_context(our_gateway(fs))
        shown = stack.enter_context(panel(desktop))
        (tmp_path / "tmp").mkdir()
        environment = desktop | {"TMPDIR": str(tmp_path / "tmp")} | programs(tmp_path)
        agent = Agent(tmp_path, "anna", environment)
        agent.add(f"http://{client.host}:{client.port}/shared")
        agent.start("--log-level", "info")
        stack.callback(agent.stop)
        yield Tray(agent, shown, gateway.close)


def content(fs: MemoryFileSystem, *path: str) -> bytes:
    return fs.open(path).read(0, 1_000) if fs.exists(path) else b""


def test_the_icon_follows_and_the_menu_acts(tray: Tray, fs: MemoryFileSystem, tmp_path: Path) -> None:
    agent, shown = tray.agent, tray.panel
    tray.shows(Badge(Mood.IDLE), "up to date")
    assert agent.command("status").stdout.splitlines()[-1] == "icon shown"
    (agent.folder / "a_b.txt").write_bytes(b"text")
    wait_until(lambda: shown.labels("Recent files") == ["a_b.txt"], WITHIN_S)
    assert content(fs, "shared", "a_b.txt") == b"text"

    agent.command("limit", "--up", "10K")
    (agent.folder / "slow").write_bytes(b"x" * 1_000_000)
    tray.shows(Badge(Mood.SYNCING), "syncing, 1 left")
    agent.command("limit", "--up", "0")
    (agent.folder / "slow").write_bytes(b"short")
    tray.shows(Badge(Mood.IDLE), "up to date")

    shown.click("Pause")
    tray.shows(Badge(Mood.PAUSED), "paused")
    cycles = agent.status()["cycles"]
    (agent.folder / "while paused").write_bytes(b"later")
    wait_until(lambda: agent.status()["cycles"] > cycles, WITHIN_S)  # it was noticed, and left alone
    assert not fs.exists(("shared", "while paused"))
    assert agent.status()["mood"] == "paused"
    shown.click("Resume")
    wait_until(lambda: content(fs, "shared", "while paused") == b"later", WITHIN_S)
    tray.shows(Badge(Mood.IDLE), "up to date")
    assert shown.notes() == []  # nothing so far has needed anybody

    unites_after_its_folder_was_exchanged(tray)
    assert (agent.folder / "while paused").read_bytes() == b"later"

    tray.close_gateway()
    ask(agent.home, "sync")
    tray.shows(Badge(Mood.OFFLINE), "offline")
    assert len(shown.notes()) == 1
    shows_colour(tray, COLOURS[Mood.OFFLINE], tmp_path)
    quits_with_its_family(tray, tmp_path / "tmp")


def unites_after_its_folder_was_exchanged(tray: Tray) -> None:
    agent, shown = tray.agent, tray.panel
    away = agent.folder.with_name("away")
    agent.folder.rename(away)
    agent.folder.mkdir()
    ask(agent.home, "sync")
    tray.shows(Badge(Mood.ATTENTION), "needs you")
    wait_until(lambda: shown.labels("Decide") == ["Unite both sides, delete nothing"])
    wait_until(lambda: len(shown.notes()) == 1)
    assert "no marker" in shown.notes()[0][1]
    shown.click("Decide", "Unite both sides, delete nothing")
    tray.shows(Badge(Mood.IDLE), "up to date")


def shows_colour(tray: Tray, colour: tuple[int, int, int], directory: Path) -> None:
    """On light panels and on dark ones."""
    for dark in (False, True):
        file = directory / f"picture{dark}.png"
        tray.panel.ask("picture", str(file), dark, "Recent files")
        colours = Image.open(file).convert("RGB").getcolors(1 << 20)
        assert colours is not None
        assert colour in {found for _, found in colours}


def quits_with_its_family(tray: Tray, temporary: Path) -> None:
    """No process is left, nor a temporary file."""
    agent = tray.agent
    assert agent.process is not None
    process = psutil.Process(agent.process.pid)
    family = [process, *process.children(recursive=True)]
    assert any("syncagent.tray" in member.cmdline() for member in family)
    tray.panel.click("Quit")
    assert agent.process.wait(WITHIN_S) == 0
    agent.process = None
    assert psutil.wait_procs(family, WITHIN_S)[1] == []
    assert list(temporary.iterdir()) == []


def test_clicks_open_what_they_name(tray: Tray, tmp_path: Path) -> None:
    agent, shown = tray.agent, tray.panel
    (agent.folder / "deep").mkdir()
    file = agent.folder / "deep" / "a letter.txt"
    file.write_bytes(b"text")
    wait_until(lambda: shown.labels("Recent files") == ["deep/a letter.txt"], WITHIN_S)
    tray.shows(Badge(Mood.IDLE), "up to date")
    opens(tray, tmp_path, f"xdg-open {agent.folder}", "Open folder")
    opens(tray, tmp_path, f"browser {agent.home.load().pairs[0].url}", "Open in browser")
    opens(tray, tmp_path, f"xdg-open {file}", "Recent files", "deep/a letter.txt")
    shown.click("Pause")
    tray.shows(Badge(Mood.PAUSED), "paused")
    file.unlink()  # what is gone is looked for where it was
    opens(tray, tmp_path, f"xdg-open {file.parent}", "Recent files", "deep/a letter.txt")


def opens(tray: Tray, base: Path, wanted: str, *labels: str) -> None:
    opened = base / "opened"
    opened.write_text("")
    tray.panel.click(*labels)
    wait_until(lambda: opened.read_text() == f"{wanted}\n", WITHIN_S, opened.read_text)


def test_conflicts_are_told_once_each(tray: Tray, fs: MemoryFileSystem, tmp_path: Path) -> None:
    agent, shown = tray.agent, tray.panel
    tray.shows(Badge(Mood.IDLE), "up to date")
    file = agent.folder / "letter.txt"
    file.write_bytes(b"first")
    wait_until(lambda: content(fs, "shared", "letter.txt") == b"first", WITHIN_S)
    wait_until(agent.is_settled)
    shown.click("Pause")
    wait_until(lambda: agent.status()["mood"] == "paused")
    file.write_bytes(b"here")
    with fs.create(("shared", "letter.txt")) as writer:
        writer.write(b"there")
        writer.commit()
    shown.click("Resume")
    wait_until(lambda: len(shown.notes()) == 1, WITHIN_S)
    title, text = shown.notes()[0]
    assert "both are kept" in title
    assert "letter (conflicted copy" in text
    tray.shows(Badge(Mood.IDLE), "up to date")
    wait_until(lambda: len(shown.labels("Conflicts")) == 1)
    assert shown.labels("Conflicts")[0].startswith("letter (conflicted copy")
    opens(tray, tmp_path, f"xdg-open {agent.folder}", "Conflicts", shown.labels("Conflicts")[0])  # beside its original
    (agent.folder / shown.labels("Conflicts")[0]).unlink()
    wait_until(lambda: shown.labels("Conflicts") == ["none"], WITHIN_S)
    assert len(shown.notes()) == 1


def test_an_icon_that_dies_comes_back(tray: Tray) -> None:
    tray.shows(Badge(Mood.IDLE), "up to date")
    assert tray.agent.process is not None
    children = psutil.Process(tray.agent.process.pid).children()
    (icon,) = [child for child in children if "syncagent.tray" in child.cmdline()]
    icon.kill()
    home = tray.agent.home
    wait_until(lambda: ask(home, "status")["tray"] == "not shown: it ended with -9")  # which it tells for two seconds
    wait_until(lambda: ask(home, "status")["tray"] == "shown", WITHIN_S)
    assert tray.agent.command("status").stdout.endswith("icon shown\n")


def test_an_agent_that_is_killed_takes_its_icon_along(tray: Tray) -> None:
    tray.shows(Badge(Mood.IDLE), "up to date")
    assert tray.agent.process is not None
    children = psutil.Process(tray.agent.process.pid).children()
    tray.agent.kill()
    assert psutil.wait_procs(children, WITHIN_S)[1] == []


@pytest.mark.parametrize(
    ("missing", "reason"),
    [("DISPLAY", "there is no display"), ("panel", "no panel shows icons"), ("bus", "the session bus does not answer")],
)
def test_without_a_desktop_it_says_why_and_goes_on(
    desktop: dict[str, str], fs: MemoryFileSystem, tmp_path: Path, missing: str, reason: str
) -> None:
    changes = {"DISPLAY": {"DISPLAY": ""}, "bus": {"DBUS_SESSION_BUS_ADDRESS": f"unix:path={tmp_path}/none"}}
    with our_gateway(fs) as client:
        agent = Agent(tmp_path, "anna", desktop | changes.get(missing, {}))
        agent.add(f"http://{client.host}:{client.port}/shared")
        agent.start("--log-level", "info")
        wait_until(lambda: f"icon not shown: {reason}" in agent.command("status").stdout, WITHIN_S)
        (agent.folder / "a").write_bytes(b"text")
        wait_until(lambda: content(fs, "shared", "a") == b"text", WITHIN_S)
        agent.stop()
