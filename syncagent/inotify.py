"""An emitter for watchdog on Linux that says which directories have become dirty, and never less than that.

Used by `watcher`. The stock emitter tells of single files and loses its thread in a storm of renames, hears nothing in
directories that were moved in, and ignores overflow. This one promises only hints: a DirModifiedEvent for a directory
in which something changed, an EverythingEvent when any may have. A new directory is watched before it is called dirty,
so what is made in it meanwhile is found by the scan that follows. When the system allows no more watches it says so.

The agent's own directory in the root is watched itself, for the self-test, but nothing inside it. Threading: watchdog's
emitter thread, but for `start`, which sets the first watches before it returns.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from watchdog.events import DirModifiedEvent, FileSystemEvent
from watchdog.observers.api import EventEmitter

from syncagent.names import STATE_DIRECTORY

if sys.platform != "linux":
    raise ImportError("inotify is a part of Linux")

MODIFY, ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO = 0x2, 0x4, 0x8, 0x40, 0x80
CREATE, DELETE, DELETE_SELF, MOVE_SELF = 0x100, 0x200, 0x400, 0x800
UNMOUNT, OVERFLOW, IGNORED, IS_DIRECTORY = 0x2000, 0x4000, 0x8000, 0x40000000
ONLYDIR, DONT_FOLLOW, EXCL_UNLINK = 0x01000000, 0x02000000, 0x04000000
MASK = (MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF) | (
    ONLYDIR | DONT_FOLLOW | EXCL_UNLINK
)
HEADER = struct.Struct("iIII")
READ_BYTES = 1 << 18
MOVE_S = 0.5
"""The second half of a move follows at once or not at all: then the directory has left the tree."""
GATHER_S = 0.01
"""A burst is read together: one hint for a directory in it instead of one for each file."""

_libc = ctypes.CDLL(None, use_errno=True)


class EverythingEvent(FileSystemEvent):
    """Anything may have changed: events were lost, or the root is not what it was."""


@dataclass(frozen=True, slots=True)
class _Raw:
    watch: int
    mask: int
    cookie: int
    name: bytes


class DirtyDirectoryEmitter(EventEmitter):
    """Watches a tree."""

    is_limited = False
    """The system allows no more watches: changes in some directories are not noticed."""

    def on_thread_start(self) -> None:
        self._root = os.fsencode(self.watch.path)
        self._own = os.path.join(self._root, os.fsencode(STATE_DIRECTORY))
        self._closing = threading.Lock()  # guards the descriptor that `stop` wakes the thread by
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._inotify = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._inotify < 0:
            code = ctypes.get_errno()
            os.close(self._wake)
            raise OSError(code, os.strerror(code))
        self._paths: dict[int, bytes] = {}
        self._watches: dict[bytes, int] = {}
        self._leaving: dict[int, tuple[bytes, float]] = {}  # directories moved from, by cookie, with the deadline
        self._poll = select.poll()
        self._poll.register(self._inotify, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)
        self._add_tree(self._root)

    def on_thread_stop(self) -> None:
        with self._closing:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def run(self) -> None:
        try:
            super().run()
        finally:
            with self._closing:
                os.close(self._inotify)
                os.close(self._wake)
                self._wake = -1

    def queue_events(self, timeout: float) -> None:
        """Wait for events and pass on what they come to."""
        ready = self._poll.poll(1000 * (MOVE_S if self._leaving else timeout))
        if ready and self.should_keep_running():
            self.stopped_event.wait(GATHER_S)
        dirty: set[bytes] = set()
        is_everything = False
        for raw in self._read():
            if raw.mask & OVERFLOW or (raw.mask & (DELETE_SELF | MOVE_SELF | UNMOUNT) and self._is_root(raw)):
                is_everything = True
            else:
                dirty |= self._take(raw)
        dirty |= self._forget_what_left()
        if is_everything:
            self._add_tree(self._root)
            self.queue_event(EverythingEvent(os.fsdecode(self._root)))
        for path in dirty:
            self.queue_event(DirModifiedEvent(os.fsdecode(path)))

    def _is_root(self, raw: _Raw) -> bool:
        return self._paths.get(raw.watch) == self._root

    def _read(self) -> Iterator[_Raw]:
        """The events that are there."""
        try:
            buffer = os.read(self._inotify, READ_BYTES)
        except BlockingIOError:
            return
        at = 0
        while at < len(buffer):
            watch, mask, cookie, length = HEADER.unpack_from(buffer, at)
            at += HEADER.size
            yield _Raw(watch, mask, cookie, buffer[at : at + length].rstrip(b"\0"))
            at += length

    def _take(self, raw: _Raw) -> set[bytes]:
        """Follow directories; which ones an event makes dirty."""
        directory = self._paths.get(raw.watch)
        if raw.mask & IGNORED:
            self._forget(raw.watch)
            return set()
        if directory is None or not raw.name:
            return set()
        dirty = {directory}
        if raw.mask & IS_DIRECTORY and directory != self._own:
            path = os.path.join(directory, raw.name)
            if raw.mask & MOVED_FROM:
                self._leaving[raw.cookie] = (path, time.monotonic() + MOVE_S)
            elif raw.mask & (CREATE | MOVED_TO):
                old, _ = self._leaving.pop(raw.cookie, (b"", 0.0)) if raw.mask & MOVED_TO else (b"", 0.0)
                if old:
                    self._move_tree(old, path)
                self._add_tree(path)
                dirty.add(path)
        return dirty

    def _forget_what_left(self) -> set[bytes]:
        """Directories that were moved out of the tree are watched no longer."""
        now = time.monotonic()
        gone = [cookie for cookie, (_, until) in self._leaving.items() if until <= now]
        dirty = set()
        for cookie in gone:
            path, _ = self._leaving.pop(cookie)
            if not os.path.isdir(path):
                for inside in self._beneath(path):
                    _libc.inotify_rm_watch(self._inotify, self._watches[inside])
            dirty.add(os.path.dirname(path))
        return dirty

    # Watches

    def _add_tree(self, top: bytes) -> None:
        stack = [top]
        while stack:
            path = stack.pop()
            if not self._add(path) or path == self._own:
                continue
            try:
                with os.scandir(path) as entries:
                    stack.extend(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
            except OSError:
                continue  # it went away, or may not be read: the scan says so

    def _add(self, path: bytes) -> bool:
        watch = _libc.inotify_add_watch(self._inotify, path, MASK)
        if watch < 0:
            self.is_limited = self.is_limited or ctypes.get_errno() in {errno.ENOSPC, errno.ENOMEM}
            return False
        old = self._paths.get(watch)
        if old is not None and old != path:
            self._watches.pop(old, None)  # the same directory under a new name
        self._paths[watch] = path
        self._watches[path] = watch
        return True

    def _beneath(self, top: bytes) -> list[bytes]:
        prefix = top + b"/"
        return [path for path in self._watches if path == top or path.startswith(prefix)]

    def _move_tree(self, old: bytes, new: bytes) -> None:
        for path in self._beneath(old):
            watch = self._watches.pop(path)
            fresh = new + path[len(old) :]
            self._paths[watch] = fresh
            self._watches[fresh] = watch

    def _forget(self, watch: int) -> None:
        path = self._paths.pop(watch, None)
        if path is not None and self._watches.get(path) == watch:
            del self._watches[path]
