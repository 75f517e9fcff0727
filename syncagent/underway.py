"""Remembers what this device has begun to bring over, until it is known what came of it.

An agent that dies after an upload and before it has written that down finds a revision on the server that it does not
know; one that dies after it has put a download in place finds a file that it does not know. If the file was saved or
renamed meanwhile, here or there, that would look like a conflict, of the device with itself. So each upload is noted,
in a file of the folder's own directory, before it is sent, and each download before it is put in place, with all that
tells the file again: name, content, inode and id on the server. What that proves is decided in `recognition`. Moves on
the server are noted likewise: who renames an entry again has not moved it against somebody else.

Losing the file costs a conflict copy or a name, so it is not flushed. After a power cut it counts as lost: what this
device had by then may be gone from its disk, and an emptied file must not look like a person's edit of it.

Kept by `folder`. Any thread: one lock guards the file and the memory.
"""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from pathlib import Path as FilePath
from typing import NamedTuple

from helenite.core.paths import Path
from syncagent.model import Tree

KEPT_MAX = 8_192
"""More than can be under way at a time (`transfers`); the file has at most twice as many lines."""


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


_Moved = tuple[str, str]
"""Which entry of the server was to get which name."""
_DONE = "done"


class UnderWay:
    """What is on its way, of one pair."""

    def __init__(self, file: FilePath, boot: str) -> None:
        """`boot` tells one start of the machine from another; empty: unknown, and no earlier process is believed."""
        self._file = file
        self._boot = boot
        self._lock = threading.Lock()
        self._kept: deque[Carried | _Moved] | None = None  # as in the file; None: not read yet
        self._by_content: defaultdict[bytes, list[Carried]] | None = None  # None: to be made of what is kept
        self._by_inode: defaultdict[int, list[Carried]] = defaultdict(list)
        self._lines = 0

    @property
    def is_empty(self) -> bool:
        with self._lock:
            return not self._load()

    def note(self, carried: Iterable[Carried]) -> None:
        """These are about to be brought over."""
        self._add(list(carried))

    def note_move(self, path: Path, resource: str) -> None:
        """An entry of the server is about to be moved there."""
        self._add([(resource, path[-1])])

    def end_moves(self, moves: Iterable[tuple[Path, str]]) -> None:
        """It is written down that these entries were moved there."""
        self._end(Counter((resource, path[-1]) for path, resource in moves))

    def end(self, carried: Iterable[Carried]) -> None:
        """It is written down that these were brought over. An earlier attempt may still come to something."""
        self._end(Counter(carried))

    def _end(self, ended: Counter[Carried | _Moved]) -> None:
        with self._lock:
            kept = self._load()
            if ended.keys().isdisjoint(kept):
                return
            self._kept, self._by_content = deque(_without(kept, ended), KEPT_MAX), None
            with self._file.open("a", encoding="utf-8") as stream:
                stream.writelines(_line(each, _DONE) for each in ended.elements())
            self._lines += ended.total()

    def of_content(self, digest: bytes) -> Sequence[Carried]:
        """All that had this content."""
        with self._lock:
            return tuple(self._index().get(digest, ()))

    def of_inode(self, inode: int) -> Sequence[Carried]:
        """All that had this inode."""
        with self._lock:
            self._index()
            return tuple(self._by_inode.get(inode, ()))

    def has_moved(self, path: Path, resource: str) -> bool:
        """Whether this entry of the server was given the name of this path, perhaps in vain."""
        with self._lock:
            return (resource, path[-1]) in self._load()

    def forget(self) -> None:
        """It is known what came of all of them."""
        with self._lock:
            if self._load() or self._lines:
                self._kept, self._lines, self._by_content = deque(maxlen=KEPT_MAX), 0, None
                self._file.unlink(missing_ok=True)

    def _add(self, fresh: list[Carried] | list[_Moved]) -> None:
        with self._lock:
            kept = self._load()
            kept.extend(fresh)
            self._by_content = None
            if not self._lines or self._lines + len(fresh) > 2 * KEPT_MAX:
                self._file.write_text("".join([f"{self._boot}\n", *map(_line, kept)]), encoding="utf-8")
                self._lines = 1 + len(kept)
                return
            with self._file.open("a", encoding="utf-8") as stream:
                stream.writelines(map(_line, fresh))
            self._lines += len(fresh)

    def _load(self) -> deque[Carried | _Moved]:
        if self._kept is None:
            try:
                lines = self._file.read_text(encoding="utf-8").splitlines()
            except FileNotFoundError:
                lines = []
            if not self._boot or lines[:1] != [self._boot]:
                lines = []  # what there is is written over
            self._kept, self._lines = deque(_parse(lines[1:]), KEPT_MAX), len(lines)
        return self._kept

    def _index(self) -> defaultdict[bytes, list[Carried]]:
        if self._by_content is None:
            self._by_content, self._by_inode = defaultdict(list), defaultdict(list)
            for carried in self._load():
                if isinstance(carried, Carried):
                    self._by_content[carried.digest].append(carried)
                    self._by_inode[carried.inode].append(carried)
        return self._by_content


def find_boot() -> str:
    """The id that Linux gives to each start of the machine; empty elsewhere."""
    try:
        return FilePath("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _line(noted: Carried | _Moved, *end: str) -> str:
    values = (noted.had, noted.name, noted.digest.hex(), *noted[3:]) if isinstance(noted, Carried) else noted
    return json.dumps((*values, *end)) + "\n"


def _without(noted: Iterable[Carried | _Moved], ended: Counter[Carried | _Moved]) -> Iterable[Carried | _Moved]:
    """One less of each for each time that it has ended."""
    left = Counter(ended)
    for each in noted:
        if left[each] > 0:
            left[each] -= 1
        else:
            yield each


def _parse(lines: Iterable[str]) -> Iterable[Carried | _Moved]:
    noted: list[Carried | _Moved] = []
    ended: Counter[Carried | _Moved] = Counter()
    for line in lines:
        try:
            values = json.loads(line)
            is_end = isinstance(values, list) and values[-1:] == [_DONE] and len(values) in {3, 8}
            found = _from_values(values[:-1] if is_end else values)
        except ValueError:
            continue  # the process died while it wrote this line
        if found is None:
            continue  # another version of this program wrote it
        if is_end:
            ended[found] += 1
        else:
            noted.append(found)
    return _without(noted, ended)


def _from_values(values: object) -> Carried | _Moved | None:
    match values:
        case [str(had), str(name), str(digest), int(inode), str(resource), str(parent), str(path)]:
            return Carried(Tree(had), name, bytes.fromhex(digest), inode, resource, parent, path)
        case [str(resource), str(name)]:
            return resource, name
        case _:
            return None
