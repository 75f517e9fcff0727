"""What masters order a chunkserver to do, in the background: delete these chunks, verify those, copy that one.

Used by `peers`, which takes the orders from the replies to heartbeats and puts the results into the next. An order that
is under way or whose result has not been heard yet is not begun again. Thread-safe: one lock guards what runs and what
has come of it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from helenite.chunkserver.pulling import pull
from helenite.chunkserver.store import ChunkStore
from helenite.core.errors import HeleniteError
from helenite.core.model import ChunkHandle, Chunkserver

log = logging.getLogger(__name__)

ORDERS_MAX = 10_000
"""Waiting, running or unheard at once. More are ignored: a master repeats what it has not heard the result of."""
PULLS_AT_ONCE = 4
"""Enough to hide the latency of sources; clients come first."""


@dataclass(frozen=True, slots=True)
class Results:
    """What has been done since it was last heard: chunks deleted; found good; copied, or why not."""

    deleted: tuple[ChunkHandle, ...]
    held: tuple[ChunkHandle, ...]
    copied: dict[ChunkHandle, HeleniteError | None]


class Orders:
    """The background work of one chunkserver."""

    def __init__(self, store: ChunkStore, on_copied: Callable[[], None]) -> None:
        self._store = store
        self._on_copied = on_copied
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._running: set[ChunkHandle] = set()
        self._deleted: set[ChunkHandle] = set()
        self._held: set[ChunkHandle] = set()
        self._copied: dict[ChunkHandle, HeleniteError | None] = {}
        self._deleting = ThreadPoolExecutor(1, thread_name_prefix="deletions")
        self._verifying = ThreadPoolExecutor(1, thread_name_prefix="verifications")
        self._pulling = ThreadPoolExecutor(PULLS_AT_ONCE, thread_name_prefix="pulls")

    def stop(self) -> None:
        """Give up what waits, and what runs at its next step."""
        self._stopping.set()
        self._deleting.shutdown(wait=True, cancel_futures=True)
        self._verifying.shutdown(wait=True, cancel_futures=True)
        self._pulling.shutdown(wait=True, cancel_futures=True)

    def results(self) -> Results:
        with self._lock:
            return Results(tuple(sorted(self._deleted)), tuple(sorted(self._held)), dict(self._copied))

    def forget(self, heard: Results) -> None:
        """These results have been heard."""
        with self._lock:
            self._deleted.difference_update(heard.deleted)
            self._held.difference_update(heard.held)
            for handle in heard.copied:
                self._copied.pop(handle, None)

    def delete(self, handles: Iterable[ChunkHandle]) -> None:
        """Delete these chunks soon."""
        accepted = [handle for handle in handles if self._accept(handle)]
        if accepted:
            self._submit(self._deleting, lambda: self._delete(accepted))

    def verify(self, handles: Iterable[ChunkHandle]) -> None:
        """Look soon whether these replicas are here and good; the store reports those that are not.

        Never while one is being deleted, nor the other way round: who is told that it is held can rely on that.
        """
        accepted = [handle for handle in handles if self._accept(handle)]
        if accepted:
            self._submit(self._verifying, lambda: self._verify(accepted))

    def replicate(self, handle: ChunkHandle, sources: tuple[Chunkserver, ...], capability: bytes) -> None:
        """Copy a chunk soon from one of these servers."""
        if self._accept(handle):
            self._submit(self._pulling, lambda: self._replicate(handle, sources, capability))

    def _accept(self, handle: ChunkHandle) -> bool:
        with self._lock:
            known = self._running, self._deleted, self._held, self._copied
            if any(handle in some for some in known) or sum(map(len, known)) >= ORDERS_MAX:
                return False
            self._running.add(handle)
            return True

    def _delete(self, handles: list[ChunkHandle]) -> None:
        for handle in handles:
            is_deleted = False
            try:
                if not self._stopping.is_set():
                    self._store.delete(handle)
                    is_deleted = True
            except HeleniteError as error:
                log.warning("%s", error)  # the master will ask again
            finally:
                with self._lock:
                    self._running.discard(handle)
                    if is_deleted:
                        self._deleted.add(handle)

    def _verify(self, handles: list[ChunkHandle]) -> None:
        for handle in handles:
            is_held = False
            try:
                if not self._stopping.is_set():
                    self._store.verify(handle)
                    is_held = True
            except HeleniteError as error:
                log.warning("%s", error)  # what is corrupt or missing has been noted
            finally:
                with self._lock:
                    self._running.discard(handle)
                    if is_held:
                        self._held.add(handle)

    def _replicate(self, handle: ChunkHandle, sources: tuple[Chunkserver, ...], capability: bytes) -> None:
        problem: HeleniteError | None = None
        try:
            pull(self._store, handle, sources, capability, self._stopping)
        except HeleniteError as error:
            problem = error
        finally:
            with self._lock:
                self._running.discard(handle)
        with self._lock:
            self._copied[handle] = problem
        self._on_copied()

    def _submit(self, pool: ThreadPoolExecutor, work: Callable[[], None]) -> None:
        pool.submit(work).add_done_callback(_log_crash)


def _log_crash(done: Future[None]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        log.error("an order crashed", exc_info=error)
