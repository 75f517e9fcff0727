"""Where small chunks lie: handle -> (segment, offset, length), in LMDB.

Used by `segments`, which can rebuild it from the segments; so it is not synced as it changes. It is trusted after a
clean end only: a marker file says that the last process closed it. Thread-safe.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lmdb

from helenite.core.model import ChunkHandle

MAP_BYTES = 64 * 1024**3
"""Address space, not memory: room for about 10^9 small chunks."""
_KEY = struct.Struct(">Q")
_VALUE = struct.Struct(">IQI")


@dataclass(frozen=True, slots=True)
class Place:
    """A small chunk's record: where it begins in a segment, and the chunk's length."""

    segment: int
    offset: int
    length: int


class Index:
    """The index in one directory."""

    def __init__(self, directory: Path) -> None:
        self._marker = directory / "clean"
        self.was_clean = self._marker.exists()
        """Whether what it says can be believed; otherwise it has been emptied and must be rebuilt."""
        if not self.was_clean:
            shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True, exist_ok=True)
        self._marker.unlink(missing_ok=True)
        self._env = lmdb.open(str(directory), map_size=MAP_BYTES, sync=False, metasync=False, max_readers=1024)

    def close(self) -> None:
        """Sync and mark as clean."""
        self._env.sync(True)  # noqa: FBT003 - lmdb's flag: wait for it
        self._env.close()
        self._marker.touch()

    def get(self, handle: ChunkHandle) -> Place | None:
        with self._env.begin(buffers=False) as transaction:
            packed = transaction.get(_KEY.pack(handle))
        return None if packed is None else Place(*_VALUE.unpack(packed))

    def put(self, handle: ChunkHandle, place: Place) -> None:
        with self._env.begin(write=True) as transaction:
            transaction.put(_KEY.pack(handle), _VALUE.pack(place.segment, place.offset, place.length))

    def change(self, puts: dict[ChunkHandle, Place], deletes: set[ChunkHandle]) -> None:
        """Many changes in one transaction."""
        with self._env.begin(write=True) as transaction:
            for handle in deletes:
                transaction.delete(_KEY.pack(handle))
            for handle, place in puts.items():
                transaction.put(_KEY.pack(handle), _VALUE.pack(place.segment, place.offset, place.length))

    def delete(self, handle: ChunkHandle) -> Place | None:
        """Where the chunk was; None when it was not there."""
        with self._env.begin(write=True) as transaction:
            packed = transaction.pop(_KEY.pack(handle))
        return None if packed is None else Place(*_VALUE.unpack(packed))

    def move(self, handle: ChunkHandle, old: Place, new: Place) -> bool:
        """Point to `new` if it still points to `old`; a chunk deleted meanwhile stays deleted."""
        with self._env.begin(write=True) as transaction:
            key = _KEY.pack(handle)
            if transaction.get(key) != _VALUE.pack(old.segment, old.offset, old.length):
                return False
            transaction.put(key, _VALUE.pack(new.segment, new.offset, new.length))
            return True

    def places(self) -> Iterator[Place]:
        """All places, in rising order of handle."""
        with self._env.begin() as transaction, transaction.cursor() as cursor:
            for packed in cursor.iternext(keys=False, values=True):
                yield Place(*_VALUE.unpack(packed))

    def after(self, handle: ChunkHandle, limit: int) -> list[ChunkHandle]:
        """The next handles above `handle`."""
        with self._env.begin() as transaction, transaction.cursor() as cursor:
            found: list[ChunkHandle] = []
            if cursor.set_range(_KEY.pack(handle + 1)):
                for key in cursor.iternext(keys=True, values=False):
                    found.append(ChunkHandle(_KEY.unpack(key)[0]))
                    if len(found) == limit:
                        break
            return found
