"""The texts by which systems start the agent when a person logs in.

Used by `login`, which puts them where they belong. Each text is quoted by its system's
own rules, so that a home or an interpreter may have blanks, quotes and percent signs in its path. Pure.
"""

from __future__ import annotations

import plistlib
import re
from collections.abc import Sequence
from enum import StrEnum

TITLE = "Helenite sync"


class System(StrEnum):
    """Who starts the agent."""

    SYSTEMD = "systemd"  # Linux, also where nobody sits at a screen
    XDG = "xdg"  # Linux desktops
    LAUNCHD = "launchd"  # macOS
    WINDOWS = "windows"


def systemd_unit(command: Sequence[str]) -> str:
    """A user unit (systemd.service(5)). Wrong settings (status 2) are not tried again, everything else is."""
    return f"""\
[Unit]
Description={TITLE}: keeps folders equal with a server
StartLimitIntervalSec=0

[Service]
ExecStart={" ".join(map(_systemd_word, command))}
Restart=on-failure
RestartSec=10
RestartPreventExitStatus=2

[Install]
WantedBy=default.target
"""


def xdg_entry(command: Sequence[str]) -> str:
    """An entry for the autostart directory (freedesktop.org, Desktop Application Autostart)."""
    return f"""\
[Desktop Entry]
Type=Application
Name={TITLE}
Comment=Keeps folders equal with a server
Exec={" ".join(map(_xdg_word, command))}
Terminal=false
X-GNOME-Autostart-enabled=true
"""


def launchd_plist(label: str, command: Sequence[str]) -> bytes:
    """A launch agent (launchd.plist(5)), started at login and again when it crashes."""
    values = {
        "Label": label,
        "ProgramArguments": list(command),
        "RunAtLoad": True,
        "KeepAlive": {"Crashed": True},
        "ProcessType": "Background",
    }
    return plistlib.dumps(values)


def windows_command(command: Sequence[str]) -> str:
    """The value of the registry's Run key: one line, quoted as CommandLineToArgvW reads it."""
    return " ".join(map(_windows_word, command))


def _systemd_word(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def _xdg_word(word: str) -> str:
    """Quoted once for the command line, then for the value of a key."""
    quoted = re.sub(r'(["`$\\])', r"\\\1", word).replace("%", "%%")
    return f'"{quoted}"'.replace("\\", "\\\\")


def _windows_word(word: str) -> str:
    """Backslashes count double before a quote, the closing one included."""
    if word and not re.search(r'[\s"]', word):
        return word
    inner = re.sub(r'(\\*)"', lambda found: found[1] * 2 + '\\"', word)
    tail = len(inner) - len(inner.rstrip("\\"))
    return f'"{inner}{inner[len(inner) - tail :] if tail else ""}"'
