"""Where small chunks lie: handle -> (segment, offset, length), in LMDB.

Used by `segments`, which can rebuild it from the segment files; so it is not synced as it changes. It is believed after
a clean end only: a marker file, written at the end and removed durably at the start, says so and carries what lives in
each segment. Thread-safe.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lmdb

from helenite.chunkserver.disk import disk_errors, sync_directory, write_durably
from helenite.core.errors import InsufficientStorageError, UnavailableError
from helenite.core.model import ChunkHandle

log = logging.getLogger(__name__)

MAP_BYTES = 64 * 1024**3
"""Address space, not memory: room for about 10^9 small chunks."""
READERS_MAX = 1024
"""Threads that may look things up at once; there are fewer connections than that."""
_KEY = struct.Struct(">Q")
_VALUE = struct.Struct(">IQI")


@dataclass(frozen=True, slots=True)
class Place:
    """A small chunk's record: where it begins in a segment, and the chunk's length."""

    segment: int
    offset: int
    length: int


@dataclass(slots=True)
class Living:
    """What of a segment is still needed."""

    count: int = 0
    bytes: int = 0


class Index:
    """The index in one directory."""

    def __init__(self, directory: Path) -> None:
        self._marker = directory / "clean"
        self._is_sound = True
        self._is_ending = False
        self.living: dict[int, Living] | None = None
        """By segment, after a clean end. None: the index has been emptied and must be rebuilt."""
        with disk_errors(f"the index in {directory}"):
            self.living = self._load_marker()
            if self.living is None:
                shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True, exist_ok=True)
            self._marker.unlink(missing_ok=True)
            sync_directory(directory)
        try:
            self._env = lmdb.open(
                str(directory), map_size=MAP_BYTES, sync=False, metasync=False, max_readers=READERS_MAX
            )
        except lmdb.Error as error:
            raise UnavailableError(f"the index in {directory} cannot be opened: {error}") from error

    def close(self, living: dict[int, Living]) -> None:
        """Sync, and mark as clean unless something went wrong."""
        try:
            self._env.sync(True)  # noqa: FBT003 - lmdb's flag: wait for it
            self._env.close()
        except lmdb.Error as error:
            log.warning("the index of small chunks will be rebuilt: %s", error)
            return
        if self._is_sound:
            totals = {number: (found.count, found.bytes) for number, found in living.items()}
            with disk_errors(f"marking the index as clean in {self._marker}"):
                write_durably(self._marker, json.dumps(totals).encode())

    def distrust(self) -> None:
        """It lacks something: the next start is to build it anew."""
        self._is_sound = False

    def _load_marker(self) -> dict[int, Living] | None:
        try:
            values = json.loads(self._marker.read_bytes())
            return {int(number): Living(*totals) for number, totals in values.items()}
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, AttributeError) as error:
            log.warning("the index of small chunks has a damaged marker and is rebuilt: %s", error)
            return None

    @contextmanager
    def _transaction(self, *, write: bool = False) -> Iterator[lmdb.Transaction]:
        try:
            with self._env.begin(write=write) as transaction:
                yield transaction
        except lmdb.Error as error:
            self._is_sound = False
            if isinstance(error, lmdb.PanicError):
                self._end_process(error)
            if isinstance(error, lmdb.MapFullError) or "No space left" in str(error):
                raise InsufficientStorageError("the index of small chunks has no room left") from error
            raise UnavailableError(f"the index of small chunks fails: {error}") from error

    def _end_process(self, error: lmdb.Error) -> None:
        """The disk failed in the middle of a commit: LMDB serves nobody until it is opened anew, by the next start."""
        if not self._is_ending:
            self._is_ending = True
            log.critical("the index of small chunks is broken, this chunkserver ends to rebuild it: %s", error)
            os.kill(os.getpid(), signal.SIGTERM)

    def get(self, handle: ChunkHandle) -> Place | None:
        with self._transaction() as transaction:
            return _unpack(transaction.get(_KEY.pack(handle)))

    def replace_all(self, places: Mapping[ChunkHandle, Place]) -> dict[ChunkHandle, Place]:
        """Point to these places, all or none; where those pointed before that were there."""
        with self._transaction(write=True) as transaction:
            before = {h: _unpack(transaction.replace(_KEY.pack(h), _pack(place))) for h, place in places.items()}
        return {handle: place for handle, place in before.items() if place is not None}

    def delete(self, handle: ChunkHandle) -> Place | None:
        """Where the chunk was; None when it was not there."""
        with self._transaction(write=True) as transaction:
            return _unpack(transaction.pop(_KEY.pack(handle)))

    def move(self, handle: ChunkHandle, old: Place, new: Place) -> bool:
        """Point to `new` if it still points to `old`; a chunk deleted meanwhile stays deleted."""
        with self._transaction(write=True) as transaction:
            key = _KEY.pack(handle)
            if transaction.get(key) != _pack(old):
                return False
            transaction.put(key, _pack(new))
            return True

    def put_all(self, places: dict[ChunkHandle, Place]) -> None:
        """Point to many places in one transaction."""
        with self._transaction(write=True) as transaction, transaction.cursor() as cursor:
            cursor.putmulti([(_KEY.pack(handle), _pack(places[handle])) for handle in sorted(places)])

    def places(self) -> Iterator[Place]:
        """All places, in rising order of handle."""
        with self._transaction() as transaction, transaction.cursor() as cursor:
            for packed in cursor.iternext(keys=False, values=True):
                yield Place(*_VALUE.unpack(packed))

    def after(self, handle: int, limit: int) -> list[ChunkHandle]:
        """The next handles above `handle`."""
        found: list[ChunkHandle] = []
        with self._transaction() as transaction, transaction.cursor() as cursor:
            if cursor.set_range(_KEY.pack(handle + 1)):
                for key in cursor.iternext(keys=True, values=False):
                    found.append(ChunkHandle(_KEY.unpack(key)[0]))
                    if len(found) == limit:
                        break
        return found


def _pack(place: Place) -> bytes:
    return _VALUE.pack(place.segment, place.offset, place.length)


def _unpack(packed: bytes | memoryview | None) -> Place | None:
    return None if packed is None else Place(*_VALUE.unpack(packed))
