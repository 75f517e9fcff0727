"""The namespace: entries, properties, locks, the trash and the feed, one round trip for each verb.

Used by `filesystem`, which adds content. Thread-safe.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from collections.abc import Sequence as Many
from dataclasses import replace
from typing import Any

from helenite.client.batching import Batches
from helenite.client.rpc import ATTEMPT_S, MasterRpc
from helenite.core.errors import EntryNotFoundError
from helenite.core.model import (
    Change,
    Condition,
    Entry,
    EntryView,
    Extent,
    Location,
    Lock,
    LockScope,
    Sequence,
    Trashed,
    Usage,
)
from helenite.core.paths import Path, format_path
from helenite.core.pb import common_pb2, master_pb2
from helenite.core.record import encode_extents
from helenite.core.wire import (
    change_from_message,
    condition_to_message,
    entry_from_message,
    failure_from_message,
    location_to_message,
    lock_from_message,
    trashed_from_message,
    usage_from_message,
    view_from_message,
)

ANY = Condition()
"""No demand on the target, no lock tokens, nobody in particular."""
COPY_ATTEMPT_S = 25.0
"""Patience with one master that copies a large directory: a repeat would begin a second copy beside the first."""


def entry_values(entry: Entry) -> dict[str, Any]:
    """An entry as JSON, for the HTTP API and the command line."""
    return {
        "name": entry.name,
        "kind": str(entry.kind),
        "id": entry.id,
        "size_bytes": entry.size_bytes,
        "modified_at_ms": entry.modified_at_ms,
        "created_at_ms": entry.created_at_ms,
        "etag": entry.etag,
    }


class Names:
    """The metadata of one cluster."""

    def __init__(self, rpc: MasterRpc) -> None:
        self.rpc = rpc
        self._mutations = Batches(self._mutate_all)

    # Reading the namespace

    def stat(self, path: Path) -> Entry:
        """The entry at `path`; EntryNotFoundError when there is none."""
        return self.lookup(path).entry

    def lookup(
        self, path: Path, *, with_locations: bool = False, with_properties: bool = False, with_locks: bool = False
    ) -> EntryView:
        """An entry with its chunks' locations, dead properties and locks (own and inherited), in one round trip."""
        request = master_pb2.LookupRequest(
            path=format_path(path),
            with_locations=with_locations,
            with_properties=with_properties,
            with_locks=with_locks,
        )
        return view_from_message(self.rpc.namespace("Lookup", request))

    def exists(self, path: Path) -> bool:
        """Whether an entry has this path."""
        try:
            self.stat(path)
        except EntryNotFoundError:
            return False
        return True

    def list(
        self, path: Path, *, with_properties: bool = False, with_locks: bool = False, with_locations: bool = False
    ) -> tuple[EntryView, Iterator[EntryView]]:
        """The directory itself and its members in no particular order, fetched page by page while iterated.

        WrongKindError when `path` is a file. A name appears once even when the directory changes meanwhile. Extents
        come only `with_locations` (see Entry.lacks_extents).
        """
        request = master_pb2.ListRequest(
            path=format_path(path),
            with_properties=with_properties,
            with_locks=with_locks,
            with_locations=with_locations,
        )
        first = self.rpc.namespace("List", request)
        views = self._pages(request, first)
        return view_from_message(first.directory), self._completed(path, views) if with_locations else views

    def _pages(self, request: master_pb2.ListRequest, page: master_pb2.ListReply) -> Iterator[EntryView]:
        seen: set[str] = set()
        inherited = tuple(lock for lock in view_from_message(page.directory).locks if lock.is_infinite)
        while True:
            for message in page.entries:
                if message.name not in seen:
                    view = view_from_message(message)
                    yield replace(view, locks=view.locks + inherited) if inherited else view
            if page.cursor == 0:
                return
            seen.update(message.name for message in page.entries)
            request.cursor = page.cursor
            page = self.rpc.namespace("List", request)

    def _completed(self, path: Path, views: Iterator[EntryView]) -> Iterator[EntryView]:
        """Look up each file whose extents the listing left out; one that is gone meanwhile is skipped."""
        for view in views:
            if not view.entry.lacks_extents:
                yield view
                continue
            with contextlib.suppress(EntryNotFoundError):
                yield self.lookup((*path, view.entry.name), with_locations=True, with_properties=True, with_locks=True)

    def usage(self) -> Usage:
        """Totals of the space."""
        return usage_from_message(self.rpc.namespace("GetUsage", common_pb2.Empty()))

    def read_feed(
        self, after: Sequence, *, limit: int = 1000, wait_s: float = 0.0
    ) -> tuple[tuple[Change, ...], Sequence]:
        """Changes after a sequence, at most `limit`, and the last sequence; SequenceExpiredError when trimmed."""
        request = master_pb2.ReadFeedRequest(after=after, limit=limit, wait_ms=int(wait_s * 1000))
        reply = self.rpc.namespace("ReadFeed", request, wait_s + 10.0, wait_s + ATTEMPT_S)
        return tuple(map(change_from_message, reply.changes)), Sequence(reply.last)

    # Mutations. Each returns the entry as it is afterwards where there is one.

    def commit(  # noqa: PLR0913 - the parts of a revision
        self,
        path: Path,
        extents: tuple[Extent, ...],
        fresh: tuple[Location, ...],
        *,
        size_bytes: int,
        condition: Condition = ANY,
        modified_at_ms: int = 0,
        sha256: bytes = b"",
        source: tuple[Path, Condition] | None = None,
    ) -> tuple[Entry, bool]:
        """Swap the file's record; returns the entry and whether it is new.

        Extents whose chunk is not in `fresh` are shared with the revision that an EXACT condition demands, or with that
        of `source`, another file with an EXACT condition of its own. `sha256` of the content is kept with the revision.
        """
        commit = master_pb2.Commit(
            path=format_path(path),
            size_bytes=size_bytes,
            extents=encode_extents(extents),
            fresh=[location_to_message(location) for location in fresh],
            modified_at_ms=modified_at_ms,
            condition=condition_to_message(condition),
            sha256=sha256,
            source="" if source is None else format_path(source[0]),
            source_condition=condition_to_message(ANY if source is None else source[1]),
        )
        outcome = self._mutate(commit=commit)
        return entry_from_message(outcome.entry), outcome.created

    def make_directory(self, path: Path, *, condition: Condition = ANY, modified_at_ms: int = 0) -> Entry:
        """A new directory. EntryExistsError when the name is taken, ParentNotFoundError without its parent.

        `modified_at_ms` 0 means now.
        """
        verb = master_pb2.MakeDirectory(
            path=format_path(path), condition=condition_to_message(condition), modified_at_ms=modified_at_ms
        )
        return entry_from_message(self._mutate(make_directory=verb).entry)

    def remove(self, path: Path, *, condition: Condition = ANY) -> None:
        """Move a file or a whole directory to the trash, in constant time."""
        self._mutate(remove=master_pb2.Remove(path=format_path(path), condition=condition_to_message(condition)))

    def move(
        self,
        source: Path,
        target: Path,
        *,
        overwrite: bool,
        condition: Condition = ANY,
        target_condition: Condition = ANY,
    ) -> tuple[Entry, bool]:
        """Rename atomically; returns the entry and whether the target is new. What was there goes to the trash.

        PreconditionFailedError when the target exists and must not be overwritten, CycleError into itself.
        """
        verb = master_pb2.Move(
            source=format_path(source),
            target=format_path(target),
            overwrite=overwrite,
            condition=condition_to_message(condition),
            target_condition=condition_to_message(target_condition),
        )
        outcome = self._mutate(move=verb)
        return entry_from_message(outcome.entry), outcome.created

    def copy(
        self,
        source: Path,
        target: Path,
        *,
        overwrite: bool,
        is_shallow: bool = False,
        condition: Condition = ANY,
        target_condition: Condition = ANY,
    ) -> tuple[Entry, bool]:
        """Copy without moving content: extents are shared. Returns the entry and whether the target is new."""
        verb = master_pb2.Copy(
            source=format_path(source),
            target=format_path(target),
            overwrite=overwrite,
            is_shallow=is_shallow,
            condition=condition_to_message(condition),
            target_condition=condition_to_message(target_condition),
        )
        outcome = self._mutate(copy=verb)
        return entry_from_message(outcome.entry), outcome.created

    def set_properties(
        self,
        path: Path,
        *,
        set_values: dict[str, bytes] | None = None,
        remove: tuple[str, ...] = (),
        modified_at_ms: int = 0,
        created_at_ms: int = 0,
        condition: Condition = ANY,
    ) -> Entry:
        """Set and remove dead properties (`{namespace}name` to serialised XML element) and times, all or nothing."""
        verb = master_pb2.SetProperties(
            path=format_path(path),
            set=set_values or {},
            remove=remove,
            modified_at_ms=modified_at_ms,
            created_at_ms=created_at_ms,
            condition=condition_to_message(condition),
        )
        return entry_from_message(self._mutate(set_properties=verb).entry)

    def set_digest(self, path: Path, *, sha256: bytes, condition: Condition) -> Entry:
        """Keep the SHA-256 of the very revision that an EXACT condition names. Nobody sees this as a change."""
        verb = master_pb2.SetDigest(path=format_path(path), sha256=sha256, condition=condition_to_message(condition))
        return entry_from_message(self._mutate(set_digest=verb).entry)

    # Locks

    def lock(  # noqa: PLR0913 - the parts of a LOCK request
        self,
        path: Path,
        *,
        token: str,
        scope: LockScope,
        is_infinite: bool,
        owner: bytes,
        timeout_s: int,
        condition: Condition = ANY,
    ) -> tuple[Lock, Entry, bool]:
        """Take a lock under the caller's fresh `token` (`urn:uuid:…`); a free name becomes an empty file.

        LockedError when a conflicting lock exists. Returns the lock, the entry and whether the entry is new.
        """
        verb = master_pb2.AcquireLock(
            path=format_path(path),
            token=token,
            scope=scope,
            is_infinite=is_infinite,
            owner=owner,
            timeout_s=timeout_s,
            condition=condition_to_message(condition),
        )
        outcome = self._mutate(acquire_lock=verb)
        return lock_from_message(outcome.entry.locks[0]), entry_from_message(outcome.entry), outcome.created

    def refresh_lock(self, path: Path, *, token: str, timeout_s: int, principal: str) -> Lock:
        """Prolong a lock that covers `path`; LockNotFoundError when the token does not."""
        verb = master_pb2.RefreshLock(path=format_path(path), token=token, timeout_s=timeout_s, principal=principal)
        return lock_from_message(self._mutate(refresh_lock=verb).entry.locks[0])

    def unlock(self, path: Path, *, token: str, principal: str) -> None:
        """Release a lock that covers `path`; LockNotFoundError, or PermissionDeniedError when it is another's."""
        self._mutate(release_lock=master_pb2.ReleaseLock(path=format_path(path), token=token, principal=principal))

    # Trash

    def list_trash(self, *, principal: str = "", limit: int = 1000) -> tuple[Trashed, ...]:
        """Deleted entries that can be restored, youngest first; an empty principal means everyone's."""
        request = master_pb2.ListTrashRequest(principal=principal, limit=limit)
        return tuple(map(trashed_from_message, self.rpc.namespace("ListTrash", request).items))

    def restore(self, trash_id: int, target: Path | None = None) -> Entry:
        """Put a deleted entry back with everything beneath it; EntryExistsError when its place is taken."""
        text = "" if target is None else format_path(target)
        return entry_from_message(
            self._mutate(restore_trashed=master_pb2.RestoreTrashed(id=trash_id, target=text)).entry
        )

    def empty_trash(self, ids: tuple[int, ...] = ()) -> None:
        """Free what is in the trash for good: the named items or everything."""
        self._mutate(empty_trash=master_pb2.EmptyTrash(ids=ids))

    def _mutate(self, **verb: object) -> master_pb2.Outcome:
        mutation = master_pb2.Mutation(operation_id=os.urandom(16), **verb)  # type: ignore[arg-type]
        is_long = "copy" in verb  # and travels alone
        outcome = self._mutate_all([mutation], COPY_ATTEMPT_S)[0] if is_long else self._mutations.call(mutation)
        if outcome.HasField("failure"):
            raise failure_from_message(outcome.failure)
        return outcome

    def _mutate_all(
        self, mutations: Many[master_pb2.Mutation], attempt_s: float = ATTEMPT_S
    ) -> Many[master_pb2.Outcome]:
        request = master_pb2.MutateRequest(mutations=mutations)
        outcomes: Many[master_pb2.Outcome] = self.rpc.namespace("Mutate", request, attempt_s=attempt_s).outcomes
        return outcomes
