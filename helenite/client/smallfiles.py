"""Whole small files, stored together: chunks in one request to each chunkserver, commits in one to a master.

Used by `filesystem`; each file is as atomic, conditional and durable as by a Writer of its own. Called by one thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from helenite.client.pool import ChunkPool
from helenite.core.errors import HeleniteError, UploadExpiredError
from helenite.core.model import Condition, Entry, Extent, Location
from helenite.core.paths import Path, format_path
from helenite.core.pb import master_pb2
from helenite.core.record import encode_extents
from helenite.core.wire import condition_to_message, entry_from_message, failure_from_message, location_to_message

Stored = tuple[Entry, bool] | HeleniteError
"""The entry and whether it is new, or why the file was not stored."""
Mutate = Callable[[Sequence[master_pb2.Mutation]], Sequence[master_pb2.Outcome]]


@dataclass(frozen=True, slots=True)
class SmallFile:
    """A file of at most one small chunk (SEGMENT_CHUNK_BYTES_MAX). `modified_at_ms` 0 means now; `sha256` if known."""

    path: Path
    content: bytes
    condition: Condition
    modified_at_ms: int = 0
    sha256: bytes = b""


def store_small_files(pool: ChunkPool, mutate: Mutate, files: Sequence[SmallFile]) -> list[Stored]:
    """Store files; what came of each, in order. `mutate` takes all of their commits at once.

    Chunks that were allocated before Redis failed over cannot be committed after it. The content is at hand, so it is
    stored once more and its client need not send it again.
    """
    stored = _store_once(pool, mutate, files)
    expired = [at for at, outcome in enumerate(stored) if isinstance(outcome, UploadExpiredError)]
    if expired:
        pool.forget_allocations()
        for at, outcome in zip(expired, _store_once(pool, mutate, [files[at] for at in expired]), strict=True):
            stored[at] = outcome
    return stored


def _store_once(pool: ChunkPool, mutate: Mutate, files: Sequence[SmallFile]) -> list[Stored]:
    """Store files, whatever chunks it takes: a repeat takes fresh ones."""
    places = iter(pool.write_small([file.content for file in files if file.content]))
    stored: list[Location | HeleniteError | None] = [next(places) if file.content else None for file in files]
    commits = [
        master_pb2.Mutation(operation_id=os.urandom(16), commit=_commit(file, place))
        for file, place in zip(files, stored, strict=True)
        if not isinstance(place, HeleniteError)
    ]
    try:
        outcomes = iter(mutate(commits) if commits else ())
    except HeleniteError as error:
        return [place if isinstance(place, HeleniteError) else error for place in stored]
    return [place if isinstance(place, HeleniteError) else _outcome(next(outcomes)) for place in stored]


def _commit(file: SmallFile, place: Location | None) -> master_pb2.Commit:
    return master_pb2.Commit(
        path=format_path(file.path),
        size_bytes=len(file.content),
        extents=encode_extents((Extent(place.handle, 0, len(file.content)),) if place else ()),
        fresh=[location_to_message(place)] if place else [],
        modified_at_ms=file.modified_at_ms,
        condition=condition_to_message(file.condition),
        sha256=file.sha256,
    )


def _outcome(message: master_pb2.Outcome) -> Stored:
    if message.HasField("failure"):
        return failure_from_message(message.failure)
    return entry_from_message(message.entry), message.created
