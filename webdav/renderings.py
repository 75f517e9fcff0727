"""Answers to PROPFIND that were written out before, kept while nothing that they show has changed.

Used by `propfind`. A client that mounts the drive asks the same of the same directories again and again. Kept are
answers without locks and quotas, which change without a word in the feed. Thread-safe.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterator

from helenite.client.coherence import Coherence, Observed

BYTES_MAX = 32 * 1024 * 1024
"""Kept by each worker."""
ANSWER_BYTES_MAX = 4 * 1024 * 1024
"""Of one answer: a directory of about 8,000 entries."""


class Renderings:
    """The answers of one worker, the least recently used leaving first."""

    def __init__(self, coherence: Coherence) -> None:
        self._coherence = coherence
        self._lock = threading.Lock()  # guards the two below
        self._answers: OrderedDict[Hashable, tuple[Observed, bytes]] = OrderedDict()
        self._bytes = 0

    def find(self, key: Hashable) -> bytes | None:
        """The whole answer, if it still holds."""
        with self._lock:
            kept = self._answers.get(key)
            if kept is None or not self._coherence.vouches(time.monotonic()):
                return None
            if not self._coherence.holds(kept[0]):
                self._forget(key)
                return None
            self._answers.move_to_end(key)
            return kept[1]

    def keep(self, key: Hashable, observed: Observed, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Pass an answer through and keep it when it was whole; `observed` was noted before it was fetched."""
        collected: list[bytes] = []
        size = 0
        for piece in pieces:
            size += len(piece)
            if size <= ANSWER_BYTES_MAX:
                collected.append(piece)
            yield piece
        if size <= ANSWER_BYTES_MAX:
            self._add(key, observed, b"".join(collected))

    def _add(self, key: Hashable, observed: Observed, answer: bytes) -> None:
        with self._lock:
            self._forget(key)
            self._answers[key] = observed, answer
            self._bytes += len(answer)
            while self._bytes > BYTES_MAX:
                self._forget(next(iter(self._answers)))

    def _forget(self, key: Hashable) -> None:
        kept = self._answers.pop(key, None)
        if kept is not None:
            self._bytes -= len(kept[1])
