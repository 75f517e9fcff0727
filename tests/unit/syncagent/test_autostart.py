"""Starting at login: each text is read back as its system would, and the Linux ones are installed for real."""

from __future__ import annotations

import configparser
import contextlib
import plistlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from syncagent import login
from syncagent.autostart import System, launchd_plist, systemd_unit, windows_command, xdg_entry
from syncagent.cli import app
from syncagent.settings import Home, default_home

COMMANDS = [
    ("/usr/bin/python3", "-m", "syncagent", "run"),
    ("/home/an na/py thon", "--home", '/x/50% "quoted" $HOME `id` \\back\\slash'),
    ("/p", "", "a b\\", 'c\\"d', "tab\there"),
]


def parse_ini(text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return parser


def unquote(text: str, doubled: dict[str, str]) -> list[str]:
    """Words in double quotes with backslash escapes; `doubled` are signs that stand for one of them."""
    words = []
    for word in re.findall(r'"((?:[^"\\]|\\.)*)"', text):
        plain = re.sub(r"\\(.)", r"\1", word)
        for twice, once in doubled.items():
            plain = plain.replace(twice, once)
        words.append(plain)
    return words


def windows_split(line: str) -> list[str]:
    """CommandLineToArgvW's rules, as Microsoft writes them down."""
    words, current, in_quotes, started = [], "", False, False
    for match in re.finditer(r'(\\*)("?)([^\\"]?)', line):
        slashes, quote, other = match.groups()
        if quote:
            current += "\\" * (len(slashes) // 2)
            if len(slashes) % 2:
                current += '"'
            else:
                in_quotes = not in_quotes
            started = True
        else:
            current += slashes
        if other in {" ", "\t"} and not in_quotes:
            if current or started:
                words.append(current)
            current, started = "", False
        else:
            current += other
    return [*words, current] if current or started else words


@pytest.mark.parametrize("command", COMMANDS)
def test_systemd(command: tuple[str, ...]) -> None:
    unit = parse_ini(systemd_unit(command))
    assert unquote(unit["Service"]["ExecStart"], {"%%": "%", "$$": "$"}) == list(command)
    assert unit["Service"]["Restart"] == "on-failure"
    assert unit["Service"]["RestartPreventExitStatus"] == "2"
    assert unit["Install"]["WantedBy"] == "default.target"


@pytest.mark.parametrize("command", COMMANDS)
def test_xdg(command: tuple[str, ...]) -> None:
    entry = parse_ini(xdg_entry(command))["Desktop Entry"]
    value = entry["Exec"].replace("\\\\", "\\")  # the value of a string key, first
    assert unquote(value, {"%%": "%"}) == list(command)
    assert entry["Type"] == "Application"
    assert entry["Terminal"] == "false"


@pytest.mark.parametrize("command", COMMANDS)
def test_launchd(command: tuple[str, ...]) -> None:
    values = plistlib.loads(launchd_plist("org.helenite.helenite-sync", command))
    assert values["ProgramArguments"] == list(command)
    assert values["Label"] == "org.helenite.helenite-sync"
    assert values["RunAtLoad"] is True


@pytest.mark.parametrize("command", COMMANDS)
def test_windows(command: tuple[str, ...]) -> None:
    assert windows_split(windows_command(command)) == list(command)


def test_windows_agrees_with_pythons_own_quoting() -> None:
    for command in COMMANDS:
        assert windows_split(subprocess.list2cmdline(command)) == list(command)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "my config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    return tmp_path / "my config"


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["autostart", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


@pytest.mark.skipif(sys.platform != "linux", reason="installs what Linux reads")
def test_on_and_off_with_systemd(config: Path) -> None:
    assert run("status") == "off\n"
    assert "systemd" in run("on")  # there is no display
    unit = config / "systemd" / "user" / "helenite-sync.service"
    wants = unit.parent / "default.target.wants" / unit.name
    assert wants.resolve() == unit.resolve()
    command = unquote(parse_ini(unit.read_text())["Service"]["ExecStart"], {"%%": "%"})
    assert command == [sys.executable, "-m", "syncagent", "run", "--home", str(default_home())]
    assert run("status") == "on (systemd)\n"
    assert run("off") == "off\n"
    assert not unit.exists()
    assert not wants.is_symlink()
    assert run("off") == "it was off already\n"


@pytest.mark.skipif(sys.platform != "linux", reason="installs what Linux reads")
def test_a_desktop_takes_its_own_way_and_only_one_is_on(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("on", "--as", "systemd")
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert "xdg" in run("on")
    entry = config / "autostart" / "helenite-sync.desktop"
    assert entry.exists()
    assert run("status") == "on (xdg)\n"
    assert not (config / "systemd" / "user" / "helenite-sync.service").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="installs what Linux reads")
def test_homes_are_told_apart(config: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run("on", "--home", str(tmp_path / name))
    units = sorted(path.name for path in (config / "systemd" / "user").glob("*.service"))
    assert len(units) == 2
    assert "helenite-sync.service" not in units
    run("off", "--home", str(tmp_path / "one"))
    assert len(list((config / "systemd" / "user").glob("*.service"))) == 1


def test_what_another_system_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert login.choose_system("", has_display=False) is System.LAUNCHD
    done = CliRunner().invoke(app, ["autostart", "on", "--as", "systemd"])
    assert done.exit_code == 1
    assert "launchd" in str(done.exception)
    monkeypatch.setattr(sys, "platform", "win32")
    assert login.choose_system("", has_display=True) is System.WINDOWS


def test_on_a_mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("HOME", str(tmp_path))
    path = Path(login.switch_on(System.LAUNCHD, Home(tmp_path / "h")))
    assert path.parent == tmp_path / "Library" / "LaunchAgents"
    assert plistlib.loads(path.read_bytes())["Label"] == path.stem
    assert login.switch_off(Home(tmp_path / "h")) == [System.LAUNCHD]
    assert not path.exists()


class Registry:
    """What `login` uses of winreg: the values of keys that are open."""

    HKEY_CURRENT_USER, KEY_SET_VALUE, REG_SZ = "HKCU", 2, 1

    def __init__(self) -> None:
        self.values: dict[str, dict[str, str]] = {}

    def CreateKey(self, root: str, path: str) -> contextlib.nullcontext[dict[str, str]]:  # noqa: N802 - its name
        return contextlib.nullcontext(self.values.setdefault(f"{root}\\{path}", {}))

    def OpenKey(  # noqa: N802
        self, root: str, path: str, reserved: int = 0, access: int = 0
    ) -> contextlib.nullcontext[dict[str, str]]:
        if f"{root}\\{path}" not in self.values:
            raise FileNotFoundError(path)
        return contextlib.nullcontext(self.values[f"{root}\\{path}"])

    def SetValueEx(self, key: dict[str, str], name: str, _reserved: int, kind: int, value: str) -> None:  # noqa: N802
        assert kind == self.REG_SZ
        key[name] = value

    def QueryValueEx(self, key: dict[str, str], name: str) -> tuple[str, int]:  # noqa: N802
        if name not in key:
            raise FileNotFoundError(name)
        return key[name], self.REG_SZ

    def DeleteValue(self, key: dict[str, str], name: str) -> None:  # noqa: N802
        del key[name]


def test_on_and_off_with_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry()
    monkeypatch.setitem(sys.modules, "winreg", registry)
    monkeypatch.setattr(sys, "platform", "win32")
    one, two = Home(tmp_path / "one"), Home(tmp_path / "a second")
    assert login.switch_off(one) == []
    place = login.switch_on(System.WINDOWS, one)
    login.switch_on(System.WINDOWS, two)
    [(key, values)] = registry.values.items()
    assert key == r"HKCU\Software\Microsoft\Windows\CurrentVersion\Run"
    assert place == rf"HKEY_CURRENT_USER\Software\Microsoft\Windows\CurrentVersion\Run\{login.name_of(one)}"
    command = [sys.executable, "-m", "syncagent", "run", "--home"]
    assert windows_split(values[login.name_of(one)]) == [*command, str(one.path)]
    assert windows_split(values[login.name_of(two)]) == [*command, str(two.path)]
    assert login.active_systems(one) == [System.WINDOWS]
    assert login.switch_off(one) == [System.WINDOWS]
    assert login.active_systems(one) == []
    assert set(values) == {login.name_of(two)}
