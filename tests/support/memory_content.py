"""Content of the FileSystem in memory: keeping it, reading it, collecting it, splicing it.

Used by `memory_filesystem`, which publishes what is committed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

from helenite.client.chunking import (
    Fresh,
    Kept,
    Part,
    Planned,
    count_written,
    resolve_splice,
)
from helenite.core import errors
from helenite.core.model import (
    DEFAULT_CHUNK_BYTES,
    MIB,
    ChunkHandle,
    Condition,
    Entry,
    EntryId,
    EntryView,
    Extent,
    Sequence,
)
from helenite.core.paths import Path


class Owner(Protocol):
    """What writers need of their file system."""

    def publish(
        self,
        path: Path,
        content: bytes,
        condition: Condition,
        modified_at_ms: int,
        planned: tuple[Planned, ...],
        sha256: bytes,
    ) -> tuple[Entry, bool]: ...

    def check(self, path: Path, condition: Condition) -> None: ...


class Contents:
    """What each revision held. A view pins its revision, so those of old ones are kept, too."""

    def __init__(self) -> None:
        self._bytes: dict[tuple[EntryId, Sequence], bytes] = {}
        self._extents: dict[tuple[EntryId, Sequence], tuple[Extent, ...]] = {}
        self._handles = itertools.count(1)

    def keep(self, entry: Entry, content: bytes) -> None:
        self._bytes[entry.id, entry.revision] = content

    def of(self, entry: Entry) -> bytes:
        return self._bytes[entry.id, entry.revision]

    def lose(self, entry: Entry) -> None:
        """Its reader breaks off."""
        del self._bytes[entry.id, entry.revision]

    def lay_out(self, entry: Entry, planned: tuple[Planned, ...]) -> None:
        """Give it extents as a writer would: what is not shared in chunks of its own."""
        written = count_written(planned)
        chunks = tuple(
            Extent(ChunkHandle(next(self._handles)), 0, min(DEFAULT_CHUNK_BYTES, written - at))
            for at in range(0, written, DEFAULT_CHUNK_BYTES)
        )
        self._extents[entry.id, entry.revision] = resolve_splice(planned, chunks)

    def extents(self, entry: Entry) -> tuple[Extent, ...]:
        return self._extents.get((entry.id, entry.revision), ())


class MemoryReader:
    """Reads one revision."""

    def __init__(self, entry: Entry, content: bytes) -> None:
        self.entry = entry
        self._content = memoryview(content)

    @property
    def size_bytes(self) -> int:
        return self.entry.size_bytes

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> MemoryReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._content[offset : offset + length])

    def iterate(self, offset: int = 0, length: int | None = None) -> Iterator[memoryview]:
        end = len(self._content) if length is None else min(len(self._content), offset + length)
        for at in range(offset, end, MIB):
            yield self._content[at : min(at + MIB, end)]


class MemoryWriter:
    """Collects content; nothing is visible until the commit."""

    def __init__(
        self,
        owner: Owner,
        path: Path,
        condition: Condition,
        size_bytes: int | None,
        modified_at_ms: int,
        planned: tuple[Planned, ...] = (),
    ) -> None:
        self._planned = planned
        self._owner = owner
        self._path = path
        self._condition = condition
        self._announced = size_bytes
        self._modified_at_ms = modified_at_ms
        self._content = bytearray()
        self.is_aborted = False
        self.bytes_written = 0

    def __enter__(self) -> MemoryWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._content += data
        self.bytes_written += len(data)
        if self._announced is not None and self.bytes_written > self._announced:
            raise errors.IncompleteBodyError(f"more than the announced {self._announced} bytes arrived")

    def commit(self, sha256: bytes = b"") -> tuple[Entry, bool]:
        if self._announced is not None and self.bytes_written != self._announced:
            raise errors.IncompleteBodyError(f"{self.bytes_written} bytes arrived, {self._announced} were announced")
        content = bytes(self._content)
        planned = self._planned or (Fresh(len(content)),)
        return self._owner.publish(self._path, content, self._condition, self._modified_at_ms, planned, sha256)

    def check(self, path: Path, condition: Condition) -> None:
        """PreconditionFailedError unless the entry is as demanded."""
        self._owner.check(path, condition)

    def abort(self) -> None:
        self.is_aborted = True
        self._content = bytearray()


class MemorySplicer:
    """Collects the new bytes of a splice and puts the content together at the commit."""

    def __init__(
        self,
        writer: MemoryWriter,
        entry: Entry,
        contents: list[bytes],
        parts: tuple[Part, ...],
        source: tuple[Path, EntryView] | None,
    ) -> None:
        self._writer = writer
        self._entry = entry
        self._contents = contents
        self._source = source
        self._parts = parts
        self._fresh = bytearray()
        self._room = sum(part.length for part in parts if isinstance(part, Fresh))
        self.size_bytes = sum(part.length for part in parts)

    def __enter__(self) -> MemorySplicer:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._fresh += data
        if len(self._fresh) > self._room:
            raise errors.IncompleteBodyError("more bytes arrived than the parts have room for")

    def commit(self, sha256: bytes = b"") -> Entry:
        self._writer.write(self._whole())
        if self._source is not None:
            path, view = self._source
            self._writer.check(path, Condition.exactly(view.entry))
        return self._writer.commit(sha256)[0]

    def read_back(self) -> MemoryReader:
        whole = self._whole()
        return MemoryReader(replace(self._entry, size_bytes=len(whole), sha256=b""), whole)

    def _whole(self) -> bytes:
        if len(self._fresh) < self._room:
            raise errors.IncompleteBodyError("bytes are missing")
        whole, at = bytearray(), 0
        for part in self._parts:
            if isinstance(part, Fresh):
                whole += self._fresh[at : at + part.length]
                at += part.length
            elif isinstance(part, Kept):
                whole += self._contents[part.file][part.offset : part.offset + part.length]
            else:
                whole += bytes(part.length)
        return bytes(whole)

    def abort(self) -> None:
        self._writer.abort()
