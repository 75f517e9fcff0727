"""What the agent has done, for the person to look up: one line in a file for each change that it made on either side.

`RecordedFolder` and `RecordedRemote` are the two sides with a History that hears of every change that went well. The
file is cut to its newer half when it has LINES_MAX lines. Any thread: one lock guards the file.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path as FilePath

from helenite.core.clock import Clock
from helenite.core.errors import HeleniteError
from helenite.core.paths import Path
from syncagent.folder import LocalFolder
from syncagent.model import Kind, LocalStamp, RemoteStamp
from syncagent.ports import Content, Sending, Upload
from syncagent.remote import WebDavRemote
from syncagent.session import Session

LINES_MAX = 20_000
"""A few megabytes; the newer half outlives the cut."""
RECENT_MAX = 50
"""Kept in memory too, for the tray, which looks after each change."""


@dataclass(frozen=True, slots=True)
class Event:
    """One change. `verb`: sent, received, made, moved, deleted; `side`: where it was made."""

    at_ms: int
    side: str
    verb: str
    path: str
    source: str = ""


class History:
    """The file of one pair."""

    def __init__(self, file: FilePath, clock: Clock) -> None:
        self._file = file
        self._clock = clock
        self._lock = threading.Lock()  # guards the file and the two below
        self._count = len(self._read())
        self._recent = deque(self._parse(RECENT_MAX), RECENT_MAX)

    def note(self, side: str, verb: str, path: Path, source: Path = ()) -> None:
        """Write down one change."""
        self._write([Event(self._clock.now_ms(), side, verb, "/".join(path), "/".join(source))])

    def note_all(self, side: str, verb: str, paths: Sequence[Path]) -> None:
        """Write down some changes of one kind."""
        if not paths:
            return
        now_ms = self._clock.now_ms()
        self._write([Event(now_ms, side, verb, "/".join(path)) for path in paths])

    def _write(self, events: list[Event]) -> None:
        with self._lock:
            if self._count >= LINES_MAX:
                kept = self._read()[-LINES_MAX // 2 :]
                fresh = self._file.with_suffix(".new")
                fresh.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
                fresh.replace(self._file)
                self._count = len(kept)
            with self._file.open("a", encoding="utf-8") as stream:
                stream.writelines(json.dumps(asdict(event)) + "\n" for event in events)
            self._count += len(events)
            self._recent.extend(events)

    @property
    def recent(self) -> list[Event]:
        """The newest changes, oldest first, without a look at the file."""
        with self._lock:
            return list(self._recent)

    def last(self, count: int) -> list[Event]:
        """The newest changes, oldest first."""
        with self._lock:
            return self._parse(count)

    def _parse(self, count: int) -> list[Event]:
        events: list[Event] = []
        for line in self._read()[-count:] if count > 0 else []:
            try:
                events.append(Event(**json.loads(line)))
            except (ValueError, TypeError):
                continue  # the process died while it wrote this line
        return events

    def _read(self) -> list[str]:
        try:
            return self._file.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []


class RecordedFolder(LocalFolder):
    """The local folder."""

    def __init__(self, root: FilePath, clock: Clock, history: History) -> None:
        super().__init__(root, clock)
        self._history = history
        self._received: list[Path] = []  # since the last flush, which comes after each group

    def make_directory(self, path: Path) -> LocalStamp:
        stamp = super().make_directory(path)
        self._history.note("local", "made", path)
        return stamp

    def move(self, source: Path, target: Path, expected: LocalStamp) -> LocalStamp:
        stamp = super().move(source, target, expected)
        self._history.note("local", "moved", target, source)
        return stamp

    def install(self, path: Path, content: Content, replaces: LocalStamp | None) -> LocalStamp:
        stamp = super().install(path, content, replaces)
        self._received.append(path)
        return stamp

    def flush(self, paths: Iterable[Path]) -> None:
        super().flush(paths)
        received, self._received = self._received, []
        self._history.note_all("local", "received", received)

    def trash(self, path: Path, beneath: Mapping[Path, LocalStamp], goes_along: Callable[[Path, Kind], bool]) -> None:
        super().trash(path, beneath, goes_along)
        self._history.note("local", "deleted", path)


class RecordedRemote(WebDavRemote):
    """The folder on the server."""

    def __init__(self, session: Session, history: History, memory: FilePath) -> None:
        super().__init__(session, memory)
        self._history = history

    def store(self, path: Path, upload: Upload, replaces: RemoteStamp | None) -> RemoteStamp:
        stamp = super().store(path, upload, replaces)
        self._history.note("remote", "sent", path)
        return stamp

    def store_many(self, orders: Sequence[Sending]) -> Sequence[RemoteStamp | HeleniteError]:
        stamps = super().store_many(orders)
        pairs = zip(orders, stamps, strict=True)
        self._history.note_all(
            "remote", "sent", [order.path for order, stamp in pairs if isinstance(stamp, RemoteStamp)]
        )
        return stamps

    def make_directory(self, path: Path) -> RemoteStamp:
        stamp = super().make_directory(path)
        self._history.note("remote", "made", path)
        return stamp

    def make_directories(self, paths: Sequence[Path]) -> Sequence[RemoteStamp | HeleniteError]:
        stamps = super().make_directories(paths)
        pairs = zip(paths, stamps, strict=True)
        self._history.note_all("remote", "made", [path for path, stamp in pairs if isinstance(stamp, RemoteStamp)])
        return stamps

    def move(self, source: Path, target: Path, expected: RemoteStamp) -> None:
        super().move(source, target, expected)
        self._history.note("remote", "moved", target, source)

    def delete(self, path: Path, expected: RemoteStamp, beneath: Mapping[Path, RemoteStamp]) -> None:
        super().delete(path, expected, beneath)
        self._history.note("remote", "deleted", path)
