"""Looks again at replicas that the disk refused, until each is good or has failed for too long.

Used by `__main__`, in a worker thread of its own: the scrub may be days away, or off. What follows from a look is
decided by `bad_replicas`.
"""

from __future__ import annotations

import logging
import threading

from helenite.chunkserver.bad_replicas import WELL_BELOW
from helenite.chunkserver.store import ChunkStore
from helenite.core.errors import ChunkCorruptError, ChunkNotFoundError, HeleniteError, ReplicaUnreadableError

log = logging.getLogger(__name__)

RECHECK_S = 5.0
"""Pause between looks: a passing trouble is over soon, and a disk that retries needs seconds for each bad sector."""


def keep_looking(store: ChunkStore, stopping: threading.Event) -> None:
    """Look again and again until `stopping` is set."""
    while not stopping.wait(RECHECK_S):
        look_again(store, stopping)


def look_again(store: ChunkStore, stopping: threading.Event) -> None:
    """One round. It ends as soon as it is clear that a sick disk is still sick."""
    failures = 0
    for handle in store.bad.doubtful():
        try:
            store.check(handle, is_cold=True)
        except ReplicaUnreadableError as error:
            log.info("%s", error)
            failures += 1
        except ChunkNotFoundError:
            store.bad.note_good(handle)  # deleted meanwhile
        except ChunkCorruptError as error:
            log.warning("%s", error)
        except HeleniteError as error:  # no descriptor left, say
            log.warning("unreadable replicas are looked at later: %s", error)
            return
        if stopping.is_set() or (store.bad.is_sick and failures >= WELL_BELOW):
            return
