"""Notices that something changed in the synced folder. The one door to watchdog, with `inotify`.

Used by `runner`. It gives hints (which directories to look at), never facts: the truth is the scan. It tests itself by
touching a file, and tells when hints may be missing, so that the agent looks everywhere from time to time instead.
Threading: hints come on a thread of watchdog's.
"""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable
from pathlib import Path as FilePath

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from helenite.core.paths import ROOT, Path
from syncagent.names import STATE_DIRECTORY

IS_LINUX = platform.system() == "Linux"
PROBE_FILE = "probe"
PROBE_S = 3.0
"""So long the hint for the self-test's own file may take."""

OnHint = Callable[[Path], None]
OnEverything = Callable[[], None]


class FolderWatch:
    """Watches one folder."""

    def __init__(self, root: str, on_hint: OnHint, on_everything: OnEverything) -> None:
        self._root = os.path.realpath(root)
        self._on_hint = on_hint
        self._on_everything = on_everything
        self._probed = threading.Event()
        self._observer: BaseObserver | None = None
        self.trouble = ""
        """Why hints may be missing; empty when all is well."""

    def start(self) -> None:
        """Begin; on return every change from now on gives a hint, or there is a `trouble`."""
        self.stop()
        observer = _make_observer()
        try:
            observer.schedule(_Handler(self), self._root, recursive=True)
            observer.start()
        except OSError as error:
            self.trouble = f"the folder cannot be watched: {error.strerror or error}"
            return
        self._observer = observer
        self.trouble = ""
        self._notice_limits()

    def stop(self) -> None:
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.stop()
            observer.join(PROBE_S)

    def check(self) -> bool:
        """The self-test: whether a change still gives a hint."""
        self._probed.clear()
        try:
            FilePath(self._root, STATE_DIRECTORY, PROBE_FILE).touch()
        except OSError as error:
            self.trouble = f"the folder cannot be watched: {error.strerror or error}"
            return False
        if self._observer is None or not self._probed.wait(PROBE_S):
            self.trouble = self.trouble or "the system does not tell what changes in the folder"
            return False
        self._notice_limits()
        return not self.trouble

    def _notice_limits(self) -> None:
        emitters = () if self._observer is None else self._observer.emitters
        if any(getattr(emitter, "is_limited", False) for emitter in emitters):
            self.trouble = "the system allows no more watches (fs.inotify.max_user_watches)"

    def hear(self, event: FileSystemEvent) -> None:
        """An event of watchdog's, of whatever kind the platform has."""
        if IS_LINUX:
            from syncagent.inotify import EverythingEvent  # noqa: PLC0415 - only Linux has it

            if isinstance(event, EverythingEvent):
                self._on_everything()
            else:
                self._hint(os.fsdecode(event.src_path))
            return
        for path in {os.fsdecode(event.src_path), os.fsdecode(event.dest_path or event.src_path)}:
            self._hint(os.path.dirname(path))

    def _hint(self, directory: str) -> None:
        relative = os.path.relpath(directory, self._root)
        path: Path = ROOT if relative == os.curdir else tuple(relative.split(os.sep))
        if path and path[0] == os.pardir:
            return  # the parent of the root itself
        if path and path[0] == STATE_DIRECTORY:
            self._probed.set()
        else:
            self._on_hint(path)


class _Handler(FileSystemEventHandler):
    def __init__(self, watch: FolderWatch) -> None:
        self._watch = watch

    def dispatch(self, event: FileSystemEvent) -> None:
        self._watch.hear(event)


def _make_observer() -> BaseObserver:
    if IS_LINUX:
        from syncagent.inotify import DirtyDirectoryEmitter  # noqa: PLC0415 - only Linux has it

        return BaseObserver(DirtyDirectoryEmitter)
    return Observer()
