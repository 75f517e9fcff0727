"""The local disk: `ports.Folder` on a real directory.

Downloads are staged in `.helenite-sync/` inside the folder, so that putting them in place is a rename. What is replaced
is swapped out in the same step and looked at afterwards: if it is not what was expected, somebody saved a moment ago,
and it is swapped back. What is deleted goes through the same in the local trash. So there is no moment at which an edit
could be lost, where the file system can exchange names (`renames`).

Nothing that the journal is going to be told may be undone by a power cut: call `flush` first. Any thread.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path as FilePath

from helenite.core.clock import Clock
from helenite.core.errors import (
    EntryExistsError,
    EntryNotFoundError,
    HeleniteError,
    InsufficientStorageError,
    InvalidPathError,
    PermissionDeniedError,
    PreconditionFailedError,
    UnavailableError,
    WrongKindError,
)
from helenite.core.paths import ROOT, Path, format_path, validate_name
from syncagent.entries import (
    digest_file,
    flush_entry,
    flush_file_system,
    inherit,
    kind_of,
    set_attributes,
    stamp_from,
    stamp_of,
)
from syncagent.model import Kind, LocalStamp
from syncagent.names import STATE_DIRECTORY
from syncagent.ports import Attributes, Content, Listing, Seen
from syncagent.renames import exchange, move_to_free_name
from syncagent.underway import UnderWay, find_boot

READ_BYTES = 1 << 20
"""Pieces in which files are hashed."""
SYNC_ONE_BY_ONE_MAX = 8
"""More fresh files are flushed with the whole file system at once (syncfs), which costs as much as some single ones."""
PART_MS_MAX = 7 * 24 * 3600 * 1000
"""A download that has not gone on for so long begins anew."""
RECENT_NS = 2_000_000_000
"""What was written so short a time before it was replaced goes to the trash: somebody may still be writing to it."""

_ERRORS: dict[int, type[HeleniteError]] = {
    errno.ENOENT: EntryNotFoundError,
    errno.EEXIST: EntryExistsError,
    errno.ENOTEMPTY: EntryExistsError,
    errno.ENOTDIR: WrongKindError,
    errno.EISDIR: WrongKindError,
    errno.EACCES: PermissionDeniedError,
    errno.EPERM: PermissionDeniedError,
    errno.EROFS: PermissionDeniedError,
    errno.ENOSPC: InsufficientStorageError,
    errno.EDQUOT: InsufficientStorageError,
    errno.ENAMETOOLONG: InvalidPathError,
}


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        found = _ERRORS.get(error.errno or 0, UnavailableError)
        raise found(f"{format_path(path)}: {error.strerror or error}") from error


class LocalFolder:
    """One synced directory."""

    def __init__(self, root: FilePath, clock: Clock) -> None:
        self._root = os.path.realpath(root)
        self._clock = clock
        self._state = os.path.join(self._root, STATE_DIRECTORY)
        self._staging = os.path.join(self._state, "staging")
        self._trash = os.path.join(self._state, "trash")
        self._numbers = itertools.count()
        self.under_way = UnderWay(FilePath(self._state, "underway"), find_boot())

    # The folder itself

    def marker(self) -> str | None:
        if not os.path.isdir(self._root):
            raise UnavailableError(f"the folder {self._root} is not there")
        try:
            return FilePath(self._state, "pair").read_text(encoding="utf-8").strip() or None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnavailableError(f"the folder {self._root} cannot be read: {error}") from error

    def mark(self, pair: str) -> None:
        with _translated(ROOT):
            os.makedirs(self._state, mode=0o700, exist_ok=True)
            fresh = os.path.join(self._state, "pair.new")
            FilePath(fresh).write_text(f"{pair}\n", encoding="utf-8")
            os.replace(fresh, os.path.join(self._state, "pair"))

    def recover(self) -> None:
        """Clear what an earlier process left in the staging directory; what is not a download goes to the trash."""
        with _translated(ROOT):
            if not os.path.isdir(self._staging):
                return
            for entry in sorted(os.scandir(self._staging), key=lambda entry: entry.name):
                if entry.name.startswith("part-"):  # the beginning of a download, to go on with
                    if self._clock.now_ms() - entry.stat(follow_symlinks=False).st_mtime_ns // 1_000_000 > PART_MS_MAX:
                        os.unlink(entry.path)
                elif entry.is_file(follow_symlinks=False) and digest_file(entry.path).hex() in entry.name:
                    os.unlink(entry.path)
                else:
                    move_to_free_name(entry.path, self._new_trash(entry.name))

    # Looking

    def list(self, directory: Path) -> Listing:
        entries: list[Seen] = []
        unreadable: dict[str, str] = {}
        with _translated(directory), os.scandir(self._absolute(directory)) as found:
            for entry in found:
                if directory == ROOT and entry.name == STATE_DIRECTORY:
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                    kind = kind_of(status)
                    if kind is not None:
                        entries.append(Seen(validate_name(entry.name), kind, stamp_from(status, kind)))
                except FileNotFoundError:
                    continue  # it went away while we were looking, and the watcher will say so
                except (OSError, InvalidPathError) as error:
                    unreadable[entry.name] = str(error)
        return Listing(entries, unreadable)

    def see(self, path: Path) -> Seen | None:
        try:
            status = os.lstat(self._absolute(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UnavailableError(f"{format_path(path)}: {error}") from error
        kind = kind_of(status)
        return None if kind is None else Seen(path[-1], kind, stamp_from(status, kind))

    def digest(self, path: Path, expected: LocalStamp) -> bytes:
        with _translated(path):
            self._expect(path, expected)
            found = digest_file(self._absolute(path))
            self._expect(path, expected)
            return found

    def file_of(self, path: Path) -> FilePath:
        return FilePath(self._absolute(path))

    def staging_file(self, key: str) -> FilePath:
        with _translated(ROOT):
            os.makedirs(self._staging, mode=0o700, exist_ok=True)
        return FilePath(self._staging, f"part-{hashlib.sha256(key.encode()).hexdigest()[:32]}")

    # Changing

    def make_directory(self, path: Path) -> LocalStamp:
        with _translated(path):
            os.mkdir(self._writable(path))
            return self._stamp_now(path)

    def touched_ns(self, path: Path) -> int:
        with _translated(path):
            return os.lstat(self._absolute(path)).st_ctime_ns

    def move(self, source: Path, target: Path, expected: LocalStamp) -> LocalStamp:
        with _translated(target):
            self._expect(source, expected)
            move_to_free_name(self._writable(source), self._writable(target))
            return self._stamp_after(target, expected)

    def set_attributes(self, path: Path, expected: LocalStamp, attributes: Attributes) -> LocalStamp:
        with _translated(path):
            self._expect(path, expected)
            return self._stamp_after(path, set_attributes(self._absolute(path), attributes, expected))

    def install(self, path: Path, content: Content, replaces: LocalStamp | None) -> LocalStamp:
        with _translated(path):
            target = self._writable(path)
            ready = self._make_ready(content)
            mine = stamp_of(ready)
            try:
                if replaces is not None:
                    self._expect(path, replaces)
                    inherit(target, ready)
                mine = set_attributes(ready, content.attributes, stamp_of(ready))
                if replaces is None:
                    move_to_free_name(ready, target)
                else:
                    self._swap_in(path, ready, replaces)
            except (OSError, HeleniteError):
                if os.path.lexists(ready) and stamp_of(ready).inode == mine.inode:
                    os.rename(ready, content.staged)  # the next attempt need not fetch it again
                raise
            return self._stamp_after(path, mine)

    def trash(self, path: Path, beneath: Mapping[Path, LocalStamp], goes_along: Callable[[Path, Kind], bool]) -> None:
        with _translated(path):
            source = self._writable(path)
            self._expect_tree(source, path, beneath, goes_along)
            target = self._new_trash(path[-1])
            move_to_free_name(source, target)
            try:
                self._expect_tree(target, path, beneath, goes_along)
            except PreconditionFailedError:
                move_to_free_name(target, source)
                raise

    def flush(self, paths: Iterable[Path]) -> None:
        """Make sure that these entries, and that they have these names, survive a power cut."""
        with _translated(ROOT):
            todo = {self._absolute(path[: len(path) - up]) for path in paths for up in (0, 1) if path or not up}
            if len(todo) > SYNC_ONE_BY_ONE_MAX and flush_file_system(self._root):
                return
            for name in sorted(todo):
                flush_entry(name)

    # Inside

    def _make_ready(self, content: Content) -> str:
        """Give a complete download the name that tells `recover` what it holds; of a link, make the link."""
        unique = f"{self._clock.now_ms()}-{next(self._numbers)}"  # never that of a leftover, which may be precious
        ready = os.path.join(self._staging, f"ready-{content.digest.hex()}-{unique}")
        if content.kind is Kind.LINK and not content.staged.is_symlink():
            os.symlink(content.staged.read_bytes().decode(), ready)
            content.staged.unlink()
        else:
            os.rename(content.staged, ready)
        return ready

    def _swap_in(self, path: Path, ready: str, replaces: LocalStamp) -> None:
        """Exchange the staged file with the one in place; if that was another after all, exchange them back."""
        target = self._absolute(path)
        mine = os.lstat(ready).st_ino
        if not exchange(ready, target):
            self._replace_in_steps(path, ready, replaces)
            return
        out = stamp_of(ready)
        if not out.same_content_as(replaces):
            exchange(ready, target)
            if os.lstat(ready).st_ino != mine:  # what is out now was saved between the two exchanges
                move_to_free_name(ready, self._new_trash(path[-1]))
            raise PreconditionFailedError(f"{format_path(path)} was changed while its new revision came")
        self._discard(ready, path, out)

    def _replace_in_steps(self, path: Path, ready: str, replaces: LocalStamp) -> None:
        """Without exchange: a second name keeps the old content, so that an edit in place is not lost."""
        target, kept = self._absolute(path), ready.replace("ready-", "kept-")
        os.link(target, kept, follow_symlinks=False)
        os.replace(ready, target)
        out = stamp_of(kept)
        if not out.same_content_as(replaces):
            os.replace(kept, target)
            raise PreconditionFailedError(f"{format_path(path)} was changed while its new revision came")
        self._discard(kept, path, out)

    def _discard(self, name: str, path: Path, out: LocalStamp) -> None:
        if self._clock.now_ms() * 1_000_000 - out.mtime_ns < RECENT_NS:
            move_to_free_name(name, self._new_trash(path[-1]))
        else:
            os.unlink(name)

    def _new_trash(self, name: str) -> str:
        """A free place in the trash, in a directory of its own that tells the time."""
        while True:
            holder = os.path.join(self._trash, f"{self._clock.now_ms()}-{next(self._numbers)}")
            with contextlib.suppress(FileExistsError):
                os.makedirs(holder, mode=0o700)
                return os.path.join(holder, name)

    def _expect(self, path: Path, expected: LocalStamp) -> None:
        if self._stamp_now(path) != expected:
            raise PreconditionFailedError(f"{format_path(path)} was changed a moment ago")

    def _expect_tree(
        self, name: str, path: Path, beneath: Mapping[Path, LocalStamp], goes_along: Callable[[Path, Kind], bool]
    ) -> None:
        """Compare everything under a name with what is known of `path`, whose own ctime a rename has changed."""
        stack = [(name, path)]
        while stack:
            current, known_as = stack.pop()
            status = os.lstat(current)
            kind, expected = kind_of(status), beneath.get(known_as)
            if kind is None or (expected is None and goes_along(known_as, kind)):
                continue
            found = stamp_from(status, kind)
            same = found == expected or (known_as == path and expected is not None and found.same_content_as(expected))
            if not same:
                raise PreconditionFailedError(f"{format_path(known_as)} is not as it was")
            if kind is Kind.DIRECTORY:
                stack += [(os.path.join(current, child), (*known_as, child)) for child in os.listdir(current)]

    def _stamp_now(self, path: Path) -> LocalStamp:
        status = os.lstat(self._absolute(path))
        kind = kind_of(status)
        if kind is None:
            raise WrongKindError(f"{format_path(path)} is neither file, folder nor link")
        return stamp_from(status, kind)

    def _stamp_after(self, path: Path, expected: LocalStamp) -> LocalStamp:
        """The stamp of an entry after we renamed or touched it, which changes its ctime.

        If it is another entry or content by now, somebody was quick: then the stamp that it had for us, so that the
        next scan sees the difference.
        """
        found = self._stamp_now(path)
        return found if found.same_content_as(expected) and found.executable is expected.executable else expected

    def _absolute(self, path: Path) -> str:
        return os.path.join(self._root, *path)

    def _writable(self, path: Path) -> str:
        """The absolute name, if no link on the way leads out of the folder."""
        parent = self._absolute(path[:-1])
        if os.path.realpath(parent) != parent:
            raise PreconditionFailedError(f"{format_path(path[:-1])} has become a link")
        return os.path.join(parent, path[-1])
