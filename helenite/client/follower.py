"""Follows the feed, so that a gateway's caches hear what others change.

Run by one worker of each gateway, for all of them. When the masters cannot be reached the table is not kept fresh any
more, and the caches are bypassed. One worker thread.
"""

from __future__ import annotations

import logging
import threading
import time

from helenite.client.coherence import Coherence
from helenite.client.filesystem import FileSystem
from helenite.core.errors import HeleniteError, SequenceExpiredError
from helenite.core.model import Sequence
from helenite.core.paths import parse_path
from helenite.core.pb import common_pb2
from helenite.core.process import Worker

log = logging.getLogger(__name__)

WAIT_S = 0.5
"""How long a master holds back an empty answer."""
FRESH_S = 1.5
"""How long the table may be relied on after a question that was answered: how old an answer can be at worst."""
LIMIT = 1_000
"""Changes of one answer."""
REST_S = 0.04
"""Between answers under load: changes then come together. A single one is heard at once."""
PATIENCE_S = 0.2
"""After a failure."""


class Follower:
    """Keeps one table fresh."""

    def __init__(self, file_system: FileSystem, coherence: Coherence) -> None:
        self._file_system = file_system
        self._coherence = coherence
        self._position: Sequence | None = None
        self._is_troubled = False
        self.worker = Worker("feed", self._run)

    def _run(self, stopping: threading.Event) -> None:
        pause = 0.0
        while not stopping.wait(pause):
            try:
                pause = REST_S if self._step() else 0.0
                self._is_troubled = False
            except HeleniteError as error:
                if not self._is_troubled:
                    log.warning("caches are not used while the feed is not heard: %s", error)
                self._is_troubled, pause = True, PATIENCE_S

    def _step(self) -> int:
        """Hear what there is, or wait for it; how many changes."""
        asked_at = time.monotonic()
        if self._position is None:
            self._position = Sequence(self._file_system.rpc.admin("GetStatus", common_pb2.Empty()).sequence)
            self._coherence.touch_all()
        try:
            changes, last = self._file_system.read_feed(self._position, limit=LIMIT, wait_s=WAIT_S)
        except SequenceExpiredError:
            self._position = None
            return 0
        for change in changes:
            for path in {change.path, change.source} - {""}:
                self._coherence.touch(parse_path(path))
        if changes:
            self._position = changes[-1].sequence
        if self._position >= last:
            self._coherence.keep_fresh(asked_at + FRESH_S)
        return len(changes)
