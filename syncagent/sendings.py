"""Remembers what this device has begun to send, until it is known what came of it.

An agent that dies after an upload and before it has written that down finds a revision on the server that it does not
know. If the file was saved again meanwhile, that would look like a conflict, with itself. So each upload is noted, in a
file of the folder's own directory, before it is sent: a revision that has that very content at that very path is ours,
and what was saved after it replaces it. Losing the file costs a conflict copy, so it is not flushed.

Used by `folder`. Any thread: one lock guards the file and the memory.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path as FilePath

from helenite.core.paths import Path

KEPT_MAX = 8_192
"""More than can be under way at a time (`transfers`); the file has at most twice as many lines."""


class Sendings:
    """The uploads of one pair."""

    def __init__(self, file: FilePath) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._kept: deque[tuple[Path, str]] | None = None  # as in the file; None: not read yet
        self._lines = 0

    def note(self, uploads: Iterable[tuple[Path, bytes]]) -> None:
        """These contents are about to be sent to these paths."""
        with self._lock:
            kept = self._load()
            fresh = [(path, digest.hex()) for path, digest in uploads]
            kept.extend(fresh)
            if self._lines + len(fresh) > 2 * KEPT_MAX:
                self._file.write_text("".join(map(_line, kept)), encoding="utf-8")
                self._lines = len(kept)
                return
            with self._file.open("a", encoding="utf-8") as stream:
                stream.writelines(map(_line, fresh))
            self._lines += len(fresh)

    def has(self, path: Path, digest: bytes) -> bool:
        """Whether this content was sent to this path, perhaps in vain."""
        with self._lock:
            return (path, digest.hex()) in self._load()

    @property
    def is_empty(self) -> bool:
        with self._lock:
            return not self._load()

    def forget(self) -> None:
        """It is known what came of all of them."""
        with self._lock:
            if self._load():
                self._kept, self._lines = deque(maxlen=KEPT_MAX), 0
                self._file.unlink(missing_ok=True)

    def _load(self) -> deque[tuple[Path, str]]:
        if self._kept is None:
            try:
                lines = self._file.read_text(encoding="utf-8").splitlines()
            except FileNotFoundError:
                lines = []
            self._kept, self._lines = deque(_parse(lines), KEPT_MAX), len(lines)
        return self._kept


def _line(upload: tuple[Path, str]) -> str:
    return json.dumps(upload) + "\n"


def _parse(lines: Iterable[str]) -> Iterable[tuple[Path, str]]:
    for line in lines:
        try:
            path, digest = json.loads(line)
        except ValueError:
            continue  # the process died while it wrote this line
        yield tuple(path), digest
