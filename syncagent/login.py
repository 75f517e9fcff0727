"""Lets the agent start when the person logs in: puts what `autostart` says where the system looks for it.

Used by `cli`. On Linux a desktop's autostart directory if there is a screen now, else a user unit of systemd, which
also starts where nobody sits at a screen; one at a time, since a home has one daemon. One thread.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from helenite.core.errors import ConfigurationError
from syncagent.autostart import System, launchd_plist, systemd_unit, windows_command, xdg_entry
from syncagent.settings import Home, default_home

NAME = "helenite-sync"
RUN_KEY = r"Software\Microsoft\Windows\CurrentVersion\Run"
RELOAD_S = 10.0
"""So long systemd may take to read its units again."""


@dataclass(frozen=True, slots=True)
class _File:
    """What is to lie where; `link`: a second name, by which systemd knows a unit as enabled."""

    path: Path
    content: bytes
    link: Path | None = None


def possible_systems() -> tuple[System, ...]:
    """Who can start the agent here, the one that is usual first."""
    match sys.platform:
        case "win32":
            return (System.WINDOWS,)
        case "darwin":
            return (System.LAUNCHD,)
        case _:
            return (System.XDG, System.SYSTEMD)


def choose_system(wanted: str, *, has_display: bool) -> System:
    """The system that a person named, or the one that suits."""
    possible = possible_systems()
    if wanted:
        if wanted not in possible:
            raise ConfigurationError(f"here it can be one of: {', '.join(possible)}")
        return System(wanted)
    return System.SYSTEMD if System.SYSTEMD in possible and not has_display else possible[0]


def switch_on(system: System, home: Home) -> str:
    """Start the agent of a home at every login from now on; where that is written."""
    switch_off(home)
    if system is System.WINDOWS:
        return _set_run_key(name_of(home), windows_command(_command(home)))
    file = _file(system, home)
    file.path.parent.mkdir(parents=True, exist_ok=True)
    file.path.write_bytes(file.content)
    if file.link is not None:
        file.link.parent.mkdir(parents=True, exist_ok=True)
        file.link.symlink_to(file.path)
        _reload_systemd()
    return str(file.path)


def switch_off(home: Home) -> list[System]:
    """Do so no longer; who did."""
    were_on = active_systems(home)
    for system in were_on:
        if system is System.WINDOWS:
            _delete_run_key(name_of(home))
            continue
        file = _file(system, home)
        file.path.unlink(missing_ok=True)
        if file.link is not None:
            file.link.unlink(missing_ok=True)
            _reload_systemd()
    return were_on


def active_systems(home: Home) -> list[System]:
    """Who starts the agent of a home."""
    return [system for system in possible_systems() if _is_on(system, home)]


def name_of(home: Home) -> str:
    """Several homes are told apart."""
    if home.path == default_home():
        return NAME
    return f"{NAME}-{hashlib.sha256(os.fsencode(home.path)).hexdigest()[:8]}"


def _command(home: Home) -> tuple[str, ...]:
    program = Path(sys.executable)
    quiet = program.with_name("pythonw.exe")  # without a window for its output
    if sys.platform == "win32" and quiet.exists():
        program = quiet
    return str(program), "-m", "syncagent", "run", "--home", str(home.path)


def _file(system: System, home: Home) -> _File:
    name, command = name_of(home), _command(home)
    config = Path(platformdirs.user_config_dir())
    match system:
        case System.SYSTEMD:
            units = config / "systemd" / "user"
            link = units / "default.target.wants" / f"{name}.service"
            return _File(units / f"{name}.service", systemd_unit(command).encode(), link)
        case System.XDG:
            return _File(config / "autostart" / f"{name}.desktop", xdg_entry(command).encode())
        case _:
            label = f"org.helenite.{name}"
            return _File(Path.home() / "Library" / "LaunchAgents" / f"{label}.plist", launchd_plist(label, command))


def _is_on(system: System, home: Home) -> bool:
    if system is System.WINDOWS:
        return _has_run_key(name_of(home))
    file = _file(system, home)
    return file.path.exists() or (file.link is not None and file.link.is_symlink())


def _reload_systemd() -> None:
    """Without a user manager that runs, the next login reads the units anyway."""
    try:
        subprocess.run(["systemctl", "--user", "daemon-reload"], capture_output=True, timeout=RELOAD_S, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return


def _set_run_key(name: str, value: str) -> str:
    if sys.platform == "win32":
        import winreg  # noqa: PLC0415 - only Windows has it

        with winreg.CreateKey(winreg.HKEY_CURRENT_USER, RUN_KEY) as key:
            winreg.SetValueEx(key, name, 0, winreg.REG_SZ, value)
    return rf"HKEY_CURRENT_USER\{RUN_KEY}\{name}"


def _delete_run_key(name: str) -> None:
    if sys.platform == "win32":
        import winreg  # noqa: PLC0415

        with winreg.OpenKey(winreg.HKEY_CURRENT_USER, RUN_KEY, 0, winreg.KEY_SET_VALUE) as key:
            winreg.DeleteValue(key, name)


def _has_run_key(name: str) -> bool:
    if sys.platform == "win32":
        import winreg  # noqa: PLC0415

        try:
            with winreg.OpenKey(winreg.HKEY_CURRENT_USER, RUN_KEY) as key:
                winreg.QueryValueEx(key, name)
        except FileNotFoundError:
            return False
        return True
    return False
