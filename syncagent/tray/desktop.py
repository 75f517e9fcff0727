"""Finds out whether there is a desktop that shows icons, and says in one sentence what is missing if not.

Used by the tray's process before it imports pystray, whose import fails in ways that tell a person nothing. On Linux an
icon needs a screen, a session bus, PyGObject with the library of indicators, and a panel (a StatusNotifier host).
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

WATCHER = "org.kde.StatusNotifierWatcher"
PANEL_S = 5_000
"""Milliseconds that a panel may take to answer."""

PYGOBJECT_PLACES = (
    "/usr/lib/python3/dist-packages",
    f"/usr/lib/python3.{sys.version_info.minor}/site-packages",
    f"/usr/lib64/python3.{sys.version_info.minor}/site-packages",
)
"""Where systems keep PyGObject, which an environment of its own (venv) does not look into."""


def find_obstacle(environment: Mapping[str, str]) -> str:
    """Why no icon can be shown; empty when one can. Makes PyGObject importable on the way."""
    if sys.platform != "linux":
        return ""
    if not (environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")):
        return "there is no display"
    if not find_pygobject(PYGOBJECT_PLACES):
        return (
            f"PyGObject for Python {sys.version_info.major}.{sys.version_info.minor} is missing"
            " (package python3-gi if that is the system's Python, else: pip install PyGObject)"
        )
    return _find_library() or _find_panel()


def find_pygobject(places: Iterable[str]) -> bool:
    """Whether `gi` can be imported, if need be from one of these places, when it is made for this very Python."""
    if importlib.util.find_spec("gi") is not None:
        return True
    for place in places:
        if any(Path(place, "gi", f"_gi{suffix}").exists() for suffix in importlib.machinery.EXTENSION_SUFFIXES):
            sys.path.append(place)  # at the end: whatever else is there must not hide our own packages
            importlib.invalidate_caches()
            return True
    return False


def _find_library() -> str:
    gi = importlib.import_module("gi")
    for name in ("AyatanaAppIndicator3", "AppIndicator3"):
        try:
            gi.require_version(name, "0.1")
        except ValueError:
            continue
        return ""
    return "the library of indicators is missing (package gir1.2-ayatanaappindicator3-0.1)"


def _find_panel() -> str:
    gio, glib = (importlib.import_module(f"gi.repository.{name}") for name in ("Gio", "GLib"))
    try:
        bus = gio.bus_get_sync(gio.BusType.SESSION)
        if _ask(bus, glib, WATCHER, "/StatusNotifierWatcher", WATCHER, "IsStatusNotifierHostRegistered"):
            return ""
    except glib.Error as error:
        if "org.freedesktop.DBus.Error.ServiceUnknown" not in error.message:
            return f"the session bus does not answer: {error.message}"
    return "no panel shows icons (GNOME needs the AppIndicator extension)"


def _ask(bus: Any, glib: Any, name: str, path: str, interface: str, field: str) -> bool:
    arguments = glib.Variant("(ss)", (interface, field))
    answer = bus.call_sync(name, path, "org.freedesktop.DBus.Properties", "Get", arguments, None, 0, PANEL_S, None)
    return bool(answer.unpack()[0])
