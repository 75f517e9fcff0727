"""Writing a new revision that is made of pieces of the present one and of new bytes, without moving what it keeps.

Made by `FileSystem.splice`. What comes, and the ranges that are too short to be shared, goes through a Writer as one
stream; the commit names its chunks and, under the condition that the files still have the revisions they had, those of
what is kept. `chunking` decides which is which. One splicer serves one thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from helenite.client.chunking import Fresh, Kept, Planned, Zeros, find_run, resolve_splice
from helenite.client.pool import ChunkPool
from helenite.client.reader import Reader
from helenite.client.writer import Publish, Writer
from helenite.core.errors import IncompleteBodyError
from helenite.core.model import Entry, EntryView, Extent, Location

ZEROS_BYTES = 1 << 20
_ZEROS = memoryview(bytes(ZEROS_BYTES))


class Splicer:
    """Collects the new bytes of one splice. Used as a context manager, it aborts unless it was committed."""

    def __init__(self, pool: ChunkPool, files: Sequence[Reader], planned: Sequence[Planned], publish: Publish) -> None:
        self._pool = pool
        self._files = files
        self._planned = tuple(planned)
        self._publish = publish
        self._writer = Writer(pool, self._publish_all, None)
        self._rest: Iterator[Planned] = iter((Zeros(find_run(self._planned)), *self._planned))
        self._room = 0
        """Bytes that still belong to the present Fresh part."""
        self.size_bytes = sum(part.length for part in self._planned)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append to the new bytes. IncompleteBodyError when they are more than the parts have room for."""
        view = memoryview(data)
        while len(view) > 0:
            if self._room == 0:
                self._advance()
            if self._room == 0:
                raise IncompleteBodyError("more bytes arrived than the parts have room for")
            piece, view = view[: self._room], view[self._room :]
            self._room -= len(piece)
            self._writer.write(piece)

    def commit(self, sha256: bytes = b"") -> Entry:
        """Wait until every chunk is durable, then make the revision visible; `sha256` of all of it is kept with it.

        IncompleteBodyError when new bytes are missing, PreconditionFailedError when the file has another revision by
        now; nothing is visible then.
        """
        self._finish()
        return self._writer.commit(sha256)[0]

    def read_back(self) -> Reader:
        """The revision that a commit would make visible, from where it is stored by then; nothing is written after it.

        IncompleteBodyError when new bytes are missing.
        """
        self._finish()
        written, fresh = self._writer.seal()
        extents = resolve_splice(self._planned, written)
        entry = replace(self._files[0].entry, size_bytes=self.size_bytes, extents=extents, sha256=b"")
        return Reader(self._pool, EntryView(entry, fresh))

    def abort(self) -> None:
        """Give up: nothing becomes visible, chunks already written are collected as garbage."""
        self._writer.abort()

    def _finish(self) -> None:
        if self._room == 0:
            self._advance()
        if self._room > 0:
            raise IncompleteBodyError(f"at least {self._room} bytes of what was announced did not arrive")

    def _advance(self) -> None:
        """Copy what is due, up to the next part that comes from outside or to the end."""
        for part in self._rest:
            match part:
                case Fresh(length):
                    self._room = length
                    return
                case Zeros(length):
                    for at in range(0, length, ZEROS_BYTES):
                        self._writer.write(_ZEROS[: length - at])
                case Kept(offset, length, file):
                    for piece in self._files[file].iterate(offset, length):
                        self._writer.write(piece)
                case _:
                    continue

    def _publish_all(
        self, written: tuple[Extent, ...], fresh: tuple[Location, ...], _: int, sha256: bytes
    ) -> tuple[Entry, bool]:
        return self._publish(resolve_splice(self._planned, written), fresh, self.size_bytes, sha256)
