"""Remembers what this device has begun to bring over, until it is known what came of it.

An agent that dies after an upload and before it has written that down finds a revision on the server that it does not
know; one that dies after it has put a download in place finds a file that it does not know. If the file was saved or
renamed meanwhile, here or there, that would look like a conflict, of the device with itself. So each upload is noted,
in a file of the folder's own directory, before it is sent, and each download before it is put in place, with all that
tells the file again: name, content, inode and id on the server. What that proves is decided in `recognition`. Moves on
either side are noted likewise: who renames an entry again has not moved it against somebody else. What is written down
in the journal is forgotten here at once: the same content or name may come again, and from somebody else.

Losing the file costs a conflict copy or a name, so it is not flushed, and trouble with it stops nothing. After a power
cut it counts as lost: what this device had by then may be gone from its disk, and an emptied file must not look like a
person's edit of it.

Kept by `folder`. Any thread: one lock guards the file and the memory.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import repeat
from pathlib import Path as FilePath
from typing import NamedTuple

from syncagent.model import Tree

KEPT_MAX = 8_192
"""More than can be under way at a time (`transfers`); the file has about twice as many lines at most."""
ATTEMPTS_MAX = 2
"""Of one request: the one that is written down, and earlier ones that may still come to something."""


class Carried(NamedTuple):
    """One content, a local file and an entry of the server that was to have it too, perhaps in vain."""

    had: Tree
    """The side that surely has had the content: whence it came."""
    name: str
    """Of both."""
    digest: bytes
    """Empty: a directory."""
    inode: int
    """Of the local entry, or of the staged file that was to become one; 0: not known."""
    resource: str
    """The id on the server; empty: it was to be a new entry there."""
    parent: str = ""
    """Of a new entry there: the id of the directory, which may be renamed meanwhile; empty: the synced folder."""
    path: str = ""
    """Of a new entry there: where it was sent to, which may be another directory by then."""
    touched_ns: int = 0
    """Of a directory that was made here: what tells it from a later one that was given its inode; 0: not known."""


class Moved(NamedTuple):
    """An entry that was to get another name, perhaps in vain."""

    entry: str | int
    """Of the server: its id there; of the local folder: its inode."""
    name: str


Doing = Carried | Moved
_DONE = "done"


class UnderWay:
    """What is on its way, of one pair."""

    def __init__(self, file: FilePath, boot: str) -> None:
        """`boot` tells one start of the machine from another; empty: unknown, and no earlier process is believed."""
        self._file = file
        self._boot = boot
        self._lock = threading.Lock()
        self._kept: dict[Doing, int] | None = None  # how often, the oldest first; None: the file was not read yet
        self._found: defaultdict[object, list[Carried]] | None = None  # by what is asked for; None: to be made anew
        self._lines = 0  # in the file; 0: it has to be written anew

    @property
    def is_empty(self) -> bool:
        with self._lock:
            return not self._load()

    def note(self, doings: Iterable[Doing]) -> None:
        """These are about to be done."""
        fresh = list(doings)
        if not fresh:
            return
        with self._lock:
            kept = self._load()
            for each in fresh:
                _remember(kept, each)
            self._found = None
            self._write([_line(each) for each in fresh])

    def end(self, doings: Iterable[Doing]) -> None:
        """It is written down that these were done. An earlier attempt may still come to something."""
        with self._lock:
            kept = self._load()
            ended = [each for each in doings if _end(kept, each)]
            if not ended:
                return
            self._found = None
            if kept:
                self._write([_line(each, _DONE) for each in ended])
            else:
                self._remove()

    def of_content(self, digest: bytes, *marks: str | int) -> Sequence[Carried]:
        """All that had this content, and one of these for its name, its inode or its id on the server."""
        with self._lock:
            found = self._index()
            return tuple(dict.fromkeys(each for mark in marks for each in found.get((digest, mark), ())))

    def of_inode(self, inode: int) -> Sequence[Carried]:
        """All that had this inode."""
        with self._lock:
            return tuple(self._index().get(inode, ()))

    def has_moved(self, entry: str | int, name: str) -> bool:
        """Whether this entry was given this name, perhaps in vain."""
        with self._lock:
            return Moved(entry, name) in self._load()

    def forget(self) -> None:
        """It is known what came of all of them."""
        with self._lock:
            if self._load() or self._lines:
                self._kept, self._found = {}, None
                self._remove()

    def _write(self, lines: list[str]) -> None:
        """Add lines to the file, or write it anew, with all that is kept."""
        is_anew = not self._lines or self._lines + len(lines) > 2 * KEPT_MAX
        if is_anew:
            every = (line for each, count in self._load().items() for line in repeat(_line(each), count))
            lines = [f"{self._boot}\n", *every]
        known, self._lines = 0 if is_anew else self._lines, 0
        with suppress(OSError), self._file.open("w" if is_anew else "a", encoding="utf-8") as stream:
            stream.writelines(lines)
            stream.close()  # what is written now may fail now
            self._lines = known + len(lines)

    def _remove(self) -> None:
        self._lines = 0
        with suppress(OSError):  # then it is written over
            self._file.unlink(missing_ok=True)

    def _load(self) -> dict[Doing, int]:
        if self._kept is None:
            try:
                lines = self._file.read_text(encoding="utf-8", errors="replace").splitlines()
            except OSError:
                lines = []
            if not self._boot or lines[:1] != [self._boot]:
                lines = []  # what there is is written over
            self._kept, self._lines = _parse(lines[1:]), len(lines)
        return self._kept

    def _index(self) -> defaultdict[object, list[Carried]]:
        if self._found is None:
            self._found = defaultdict(list)
            for each in self._load():
                if isinstance(each, Carried):
                    self._found[each.inode].append(each)
                    for mark in (each.name, each.inode, each.resource):
                        self._found[each.digest, mark].append(each)
        return self._found


def find_boot() -> str:
    """The id that Linux gives to each start of the machine; empty elsewhere."""
    try:
        return FilePath("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _remember(kept: dict[Doing, int], doing: Doing) -> None:
    """Once more, and as the youngest; what is too many is forgotten. What is done here does not come late."""
    is_asked = isinstance(doing.entry, str) if isinstance(doing, Moved) else doing.had is Tree.LOCAL
    kept[doing] = min(kept.pop(doing, 0) + 1, ATTEMPTS_MAX if is_asked else 1)
    if len(kept) > KEPT_MAX:
        del kept[next(iter(kept))]


def _end(kept: dict[Doing, int], doing: Doing) -> bool:
    """Once less; whether it was kept."""
    count = kept.get(doing, 0)
    if count > 1:
        kept[doing] = count - 1
    elif count:
        del kept[doing]
    return count > 0


def _line(doing: Doing, *end: str) -> str:
    values = (doing.had, doing.name, doing.digest.hex(), *doing[3:]) if isinstance(doing, Carried) else doing
    return json.dumps((*values, *end)) + "\n"


def _parse(lines: Iterable[str]) -> dict[Doing, int]:
    kept: dict[Doing, int] = {}
    for line in lines:
        try:
            values = json.loads(line)
            is_end = isinstance(values, list) and values[-1:] == [_DONE] and len(values) in {3, 8, 9}
            found = _from_values(values[:-1] if is_end else values)
        except ValueError:
            continue  # the process died while it wrote this line
        if found is None:
            continue  # another version of this program wrote it
        if is_end:
            _end(kept, found)
        else:
            _remember(kept, found)
    return kept


def _from_values(values: object) -> Doing | None:
    match values:
        case [str(had), str(name), str(digest), int(inode), str(resource), str(parent), str(path)]:  # before touched_ns
            return Carried(Tree(had), name, bytes.fromhex(digest), inode, resource, parent, path)
        case [str(had), str(name), str(digest), int(inode), str(resource), str(parent), str(path), int(touched)]:
            return Carried(Tree(had), name, bytes.fromhex(digest), inode, resource, parent, path, touched)
        case [str(entry) | int(entry), str(name)]:
            return Moved(entry, name)
        case _:
            return None
