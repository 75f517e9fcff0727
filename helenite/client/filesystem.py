"""FileSystem: the whole cluster as one object, for the gateway, the command line and the HTTP API.

Metadata verbs are one round trip each. `open` and `create` hand out a Reader and a Writer for content. Paths are
tuples of names (`core.paths`). Every verb raises the errors of `core.errors`. Thread-safe; create it after the fork.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from types import TracebackType
from typing import Self

from helenite.client.batching import Batches
from helenite.client.chunking import Part, plan_splice
from helenite.client.names import ANY, Names
from helenite.client.pool import ChunkPool
from helenite.client.reader import Reader
from helenite.client.rpc import MasterRpc
from helenite.client.smallfiles import SmallFile, Stored, store_small_files
from helenite.client.splicer import Splicer
from helenite.client.writer import Publish, Writer
from helenite.config import ClientSettings
from helenite.core.errors import HeleniteError, InvalidRequestError, UploadExpiredError, WrongKindError
from helenite.core.model import (
    ChunkHandle,
    Condition,
    Entry,
    EntryView,
    Expect,
    Extent,
    Location,
)
from helenite.core.paths import Path, format_path

SMALL_FILES_MAX = 64
"""Stored at once: a master's script queue is held up by some milliseconds at most (as `batching.BATCH_MAX`)."""


class FileSystem(Names):
    """A client of one cluster: its names and their content."""

    def __init__(self, settings: ClientSettings) -> None:
        super().__init__(MasterRpc(settings.masters, settings.deadline_s))
        self._pool = ChunkPool(self.rpc, settings.deadline_s)
        self._small_files = Batches(self._store_all)

    def close(self) -> None:
        self._pool.close()
        self.rpc.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def locate(self, handles: Many[ChunkHandle]) -> tuple[Location, ...]:
        """Where these chunks are; one that the master does not know has no servers."""
        return tuple(self._pool.locate([*handles]))

    def open(self, path: Path) -> Reader:
        """A reader of one whole revision of the file at `path`, whatever happens to the name meanwhile."""
        view = self.lookup(path, with_locations=True)
        if view.entry.is_directory:
            raise WrongKindError(f"{format_path(path)} is a directory")
        return self.open_view(view)

    def open_view(self, view: EntryView) -> Reader:
        """A reader of a file that a look-up or listing has brought (without another round trip)."""
        if view.entry.lacks_extents:
            raise InvalidRequestError(
                f"look {view.entry.name!r} up before opening it: its listing left the extents out"
            )
        return Reader(self._pool, view)

    def create(
        self,
        path: Path,
        *,
        condition: Condition = ANY,
        size_bytes: int | None = None,
        modified_at_ms: int = 0,
    ) -> Writer:
        """A writer of a new revision; nothing is visible until its `commit`, which checks `condition` again.

        `size_bytes` is the announced size, if known: `commit` raises IncompleteBodyError when another number of bytes
        was written. `modified_at_ms` 0 means the time of the commit.
        """

        def store_whole(content: bytes, sha256: bytes) -> tuple[Entry, bool]:
            return self._store(SmallFile(path, content, condition, modified_at_ms, sha256))

        return Writer(self._pool, self._publisher(path, condition, modified_at_ms), size_bytes, store_whole)

    def splice(
        self,
        path: Path,
        view: EntryView,
        parts: Many[Part],
        *,
        condition: Condition,
        modified_at_ms: int = 0,
        source: tuple[Path, EntryView] | None = None,
    ) -> Splicer:
        """A writer of a new revision made of ranges of the one that `view` shows and of new bytes, in order.

        `view` comes from a look-up with locations. `condition` is EXACT for that very revision: its chunks are shared.
        `source` is another file, looked up as well, of which there may be ranges too.
        """
        assert condition.expect is Expect.EXACT, condition
        views = [view] if source is None else [view, source[1]]
        planned = plan_splice([each.entry.extents for each in views], parts, self._pool.chunk_bytes())
        shared = None if source is None else (source[0], Condition.exactly(source[1].entry))
        publish = self._publisher(path, condition, modified_at_ms, shared)
        return Splicer(self._pool, [self.open_view(each) for each in views], planned, publish)

    def _publisher(
        self,
        path: Path,
        condition: Condition,
        modified_at_ms: int,
        source: tuple[Path, Condition] | None = None,
    ) -> Publish:
        def publish(
            extents: tuple[Extent, ...], fresh: tuple[Location, ...], size: int, sha256: bytes
        ) -> tuple[Entry, bool]:
            try:
                return self.commit(
                    path,
                    extents,
                    fresh,
                    size_bytes=size,
                    condition=condition,
                    modified_at_ms=modified_at_ms,
                    sha256=sha256,
                    source=source,
                )
            except UploadExpiredError:
                self._pool.forget_allocations()  # else the client, which sends all again, is refused again
                raise

        return publish

    def create_small(self, files: Many[SmallFile]) -> Many[Stored]:
        """Store whole small files, each as by `create`; what came of each. At most SMALL_FILES_MAX."""
        assert len(files) <= SMALL_FILES_MAX, len(files)
        return self._store_all(files)

    def _store(self, file: SmallFile) -> tuple[Entry, bool]:
        """Store a small file, together with those of other threads."""
        stored = self._small_files.call(file)
        if isinstance(stored, HeleniteError):
            raise stored
        return stored

    def _store_all(self, files: Many[SmallFile]) -> Many[Stored]:
        return store_small_files(self._pool, self._mutate_all, files)
