"""Remembers what this device has begun to bring over, until it is known what came of it.

An agent that dies after an upload and before it has written that down finds a revision on the server that it does not
know; one that dies after it has put a download in place finds a file that it does not know. If the file was saved again
meanwhile, here or there, that would look like a conflict, of the device with itself. So each upload is noted, in a file
of the folder's own directory, before it is sent, and each download before it is put in place. What has that very
content under that very name is the past of what the other side has, and gives way to it. In which directory does not
matter: those are renamed meanwhile. Moves on the server are noted likewise: who renames an entry again has not moved it
against somebody else. Losing the file costs a conflict copy or a name, so it is not flushed.

Used by `folder`. Any thread: one lock guards the file and the memory.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path as FilePath

from helenite.core.paths import Path
from syncagent.model import Tree

KEPT_MAX = 8_192
"""More than can be under way at a time (`transfers`); the file has at most twice as many lines."""

_Carried = tuple[Tree, str, str]
"""To which side, under which name, which content, or which entry of the server."""


class UnderWay:
    """The contents that are on their way, of one pair."""

    def __init__(self, file: FilePath) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._kept: deque[_Carried] | None = None  # as in the file; None: not read yet
        self._lines = 0

    def note(self, side: Tree, contents: Iterable[tuple[Path, bytes]]) -> None:
        """These contents are about to become what is at these paths of this side."""
        fresh = [(side, path[-1], digest.hex()) for path, digest in contents]
        with self._lock:
            kept = self._load()
            kept.extend(fresh)
            if self._lines + len(fresh) > 2 * KEPT_MAX:
                self._file.write_text("".join(map(_line, kept)), encoding="utf-8")
                self._lines = len(kept)
                return
            with self._file.open("a", encoding="utf-8") as stream:
                stream.writelines(map(_line, fresh))
            self._lines += len(fresh)

    def has(self, side: Tree, path: Path, digest: bytes) -> bool:
        """Whether this content was brought to this side under the name of this path, perhaps in vain."""
        with self._lock:
            return (side, path[-1], digest.hex()) in self._load()

    def note_move(self, path: Path, resource: str) -> None:
        """An entry of the server is about to be moved there."""
        self.note(Tree.REMOTE, [(path, resource.encode())])

    def has_moved(self, path: Path, resource: str) -> bool:
        """Whether this entry of the server was given the name of this path, perhaps in vain."""
        return self.has(Tree.REMOTE, path, resource.encode())

    def forget(self) -> None:
        """It is known what came of all of them."""
        with self._lock:
            if self._load():
                self._kept, self._lines = deque(maxlen=KEPT_MAX), 0
                self._file.unlink(missing_ok=True)

    def _load(self) -> deque[_Carried]:
        if self._kept is None:
            try:
                lines = self._file.read_text(encoding="utf-8").splitlines()
            except FileNotFoundError:
                lines = []
            self._kept, self._lines = deque(_parse(lines), KEPT_MAX), len(lines)
        return self._kept


def _line(carried: _Carried) -> str:
    return json.dumps(carried) + "\n"


def _parse(lines: Iterable[str]) -> Iterable[_Carried]:
    for line in lines:
        try:
            side, name, digest = json.loads(line)
        except ValueError:
            continue  # the process died while it wrote this line
        yield Tree(side), name, digest
