"""A FileSystem that remembers what it looked up, as long as `coherence` says that it still holds.

Used by the gateway's workers. Answers that show locks are never remembered, as the feed tells nothing of locks.
Thread-safe: the look-ups lie in one dictionary, whose single operations are atomic; a lock guards making room.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import Any

from helenite.client.coherence import Coherence, Observed
from helenite.client.filesystem import FileSystem
from helenite.client.smallfiles import SmallFile, Stored
from helenite.config import ClientSettings
from helenite.core.errors import EntryNotFoundError
from helenite.core.model import Entry, EntryView
from helenite.core.paths import Path, format_path, parse_path
from helenite.core.pb import master_pb2

VIEWS_MAX = 10_000
"""Look-ups remembered: some 20 MB."""
EXTENTS_MAX = 256
"""Of a file whose look-up is remembered; a larger one takes long to read anyway."""
KEPT_S = 60.0
"""How long: replicas move without a word in the feed, and a reader that finds none where it looks must ask first."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """An answer (None: there is no such entry), what it depends on, and how long it may be used at most."""

    view: EntryView | None
    observed: Observed
    until_s: float


class CachingFileSystem(FileSystem):
    """One worker's client of the cluster."""

    def __init__(self, settings: ClientSettings, coherence: Coherence) -> None:
        super().__init__(settings)
        self.coherence = coherence
        self._lock = threading.Lock()  # guards making room in _views
        self._views: dict[tuple[Path, bool, bool], _Kept] = {}

    def lookup(
        self, path: Path, *, with_locations: bool = False, with_properties: bool = False, with_locks: bool = False
    ) -> EntryView:
        """An entry, perhaps remembered."""
        now = time.monotonic()
        if with_locks or not self.coherence.vouches(now):
            return super().lookup(
                path, with_locations=with_locations, with_properties=with_properties, with_locks=with_locks
            )
        key = (path, with_locations, with_properties)
        kept = self._views.get(key)
        if kept is not None and kept.until_s > now and self.coherence.holds(kept.observed):
            if kept.view is None:
                raise EntryNotFoundError(f"there is no {format_path(path)}")
            return kept.view
        observed = self.coherence.observe(path)
        try:
            view = super().lookup(path, with_locations=with_locations, with_properties=with_properties)
        except EntryNotFoundError:
            self._keep(key, _Kept(None, observed, now + KEPT_S))
            raise
        if len(view.entry.extents) <= EXTENTS_MAX:
            self._keep(key, _Kept(view, observed, now + KEPT_S))
        return view

    def _keep(self, key: tuple[Path, bool, bool], kept: _Kept) -> None:
        self._views[key] = kept
        if len(self._views) > VIEWS_MAX:
            with self._lock:
                while len(self._views) > VIEWS_MAX:
                    del self._views[next(iter(self._views))]

    def create_small(self, files: Many[SmallFile]) -> Many[Stored]:
        """The same as for each mutation."""
        try:
            return super().create_small(files)
        finally:
            for file in files:
                self.coherence.touch(file.path)

    def _store(self, file: SmallFile) -> tuple[Entry, bool]:
        """The same."""
        try:
            return super()._store(file)
        finally:
            self.coherence.touch(file.path)

    def _mutate(self, **verb: Any) -> master_pb2.Outcome:
        """Also a mutation that failed may have happened, or happen yet: the feed tells of that."""
        try:
            return super()._mutate(**verb)
        finally:
            for message in verb.values():
                self._touch(message)

    def _touch(self, message: Any) -> None:
        match message:
            case master_pb2.Move():
                self.coherence.touch(parse_path(message.source))
                self.coherence.touch(parse_path(message.target))
            case master_pb2.Copy():
                self.coherence.touch(parse_path(message.target))
            case master_pb2.RestoreTrashed():
                self.coherence.touch_all()  # it may go back to where it was
            case master_pb2.EmptyTrash():
                pass
            case _:
                self.coherence.touch(parse_path(message.path))
