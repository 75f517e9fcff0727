"""What the engine asks of the outside: the server and the local disk, as narrow interfaces.

`folder.LocalFolder` is the local disk; a WebDAV client is the server; tests have a server in memory and put faults in
front of both. All methods block and may be called from several threads at a time, with one exception each: nobody else
of this agent writes. Errors are those of `helenite.core.errors`; which of them means what:

- PreconditionFailedError, EntryExistsError, EntryNotFoundError, ParentNotFoundError, WrongKindError: what is behind
  the port is not as the journal says. Nothing was changed; the next cycle looks again.
- any other HeleniteError: it may have happened or not (a lost reply). The next cycle looks again and finds out; if it
  has not, the node is left alone for a while that grows.
- OSError never leaves a port.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Protocol

from helenite.core.errors import HeleniteError, UnavailableError
from helenite.core.paths import Path
from syncagent.model import Kind, LocalStamp, RemoteStamp
from syncagent.underway import Carried, Doing

LARGE_BYTES = 4 << 20
"""A larger file has a lane for itself and its like, and of what changes in it only that travels."""
RETRY_MAX_S = 300.0
"""Nobody is waited for longer, whatever a server asks for."""


class OverloadedError(UnavailableError):
    """The server is there, and asks not to be asked again for `wait_s` seconds (`Retry-After`)."""

    def __init__(self, sentence: str, wait_s: float = 0.0) -> None:
        super().__init__(sentence)
        self.wait_s = min(wait_s, RETRY_MAX_S)


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """Whose answers these are. Any difference stops the sync until a person has looked.

    `instance` is another after the server was replaced, `root` the resource id of the synced folder there, and
    `fingerprint` another after the server's metadata was restored from a copy. Empty: the server does not say.
    """

    instance: str
    root: str
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class RemoteEntry:
    """One entry as the server describes it.

    `stamp.etag` of a directory is empty; `walk_tag` has its ETag if that changes with anything beneath, else it is
    empty. `digest` is the SHA-256 of the content (of a link, of its target), if known.
    """

    path: Path
    kind: Kind
    stamp: RemoteStamp
    digest: bytes | None = None
    walk_tag: str = ""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is kept beside the content; None leaves one as it is."""

    mtime_ms: int | None
    executable: bool | None


@dataclass(frozen=True, slots=True)
class Changes:
    """What became different on the server, as RFC 6578 tells it: each path as it is at the end, named once.

    A directory that was created or moved there is named, what is beneath it need not be. What was removed is named by
    its last name in its directory, as that is called at the end: when `a/x` was deleted and `a` then renamed to `b`, it
    is `b/x` that is removed. `token` continues from here. `names_all`: what is beneath is named all the same.
    """

    token: str
    changed: Sequence[RemoteEntry]
    removed: Sequence[Path]
    is_complete: bool = True  # False: truncated (507), ask again with the new token
    names_all: bool = False


class Remote(Protocol):
    """The server's side of a pair; paths begin at the synced folder there. Every call has its own deadline inside.

    An answer that is not what the protocol says (200 instead of 207, a truncated body, a page of a captive portal) is a
    ProtocolError or UnavailableError, never an empty listing. Names that `core.paths` refuses are left out.
    """

    def identity(self) -> ServerIdentity:
        """Who answers. Also tells that the server can be reached."""
        ...

    def token(self) -> str:
        """The present position in the server's changes; empty when it cannot tell changes, so that listings must do."""
        ...

    def changes(self, since: str) -> Changes:
        """What changed since a token; SequenceExpiredError when the server no longer knows."""
        ...

    def list(self, directory: Path) -> Sequence[RemoteEntry]:
        """All entries directly in a directory, complete or an error; EntryNotFoundError when it is gone.

        The directory's own `walk_tag` must have been read before its entries were.
        """
        ...

    def walk(self) -> Iterator[Sequence[RemoteEntry]] | None:
        """Everything in the folder, in pages, directories before what is in them; None: only listings can tell.

        What is moved or made meanwhile may be missing; the changes since a token from before tell of it.
        """
        ...

    def walk_tag(self, directory: Path) -> str:
        """A tag that changes with anything beneath; empty when the server has none."""
        ...

    def fetch(
        self,
        path: Path,
        expected: RemoteStamp,
        into: FilePath,
        present: Present | None = None,
        known: bytes | None = None,
    ) -> bytes:
        """Write the content (of a link, its target) of exactly this revision into a local file; returns its SHA-256.

        The file may exist with the beginning of this very content, from an attempt that broke off. What was written is
        flushed to the disk later. DigestMismatchError when the server's own checksum disagrees. What it has in common
        with the `present` file may be copied from there; `known` is its SHA-256, if the server has told it.
        """
        ...

    def study(self, path: Path, stamp: RemoteStamp, digest: bytes, file: FilePath) -> None:
        """Both sides have this large content, here in `file`: what helps with its next transfer may be learnt now.

        In the background; nothing comes of it when the content has changed by then.
        """
        ...

    def store(self, path: Path, upload: Upload, replaces: RemoteStamp | None) -> RemoteStamp:
        """Make the content of a local file the new revision (If-Match), or a new entry (If-None-Match: *).

        The server must refuse what does not have `upload.digest`, and what has no directory to go into: one that is
        missing was moved, and is never made. An empty `replaces` must refuse any existing entry. A repetition after a
        lost reply finds its own content, is refused, and the next look adopts it.
        """
        ...

    def group_max(self) -> int:
        """How many small files, or directories, go into one request; 1: the server takes them one by one."""
        ...

    def store_many(self, orders: Sequence[Sending]) -> Sequence[RemoteStamp | HeleniteError]:
        """As `store` for each of some small files, in one request; what came of each, in order.

        What is raised concerns all of them: each may have happened or not.
        """
        ...

    def fetch_many(self, wanted: Sequence[Fetching]) -> Sequence[bytes | HeleniteError]:
        """As `fetch` for each of some small files, in one request; what came of each, in order."""
        ...

    def digests(self, wanted: Sequence[tuple[Path, RemoteStamp]]) -> Sequence[bytes | HeleniteError | None]:
        """The SHA-256 of exactly these revisions, which the server may have to compute; None: it does not do that."""
        ...

    def make_directory(self, path: Path) -> RemoteStamp:
        """EntryExistsError when anything has the name, ParentNotFoundError when its directory is missing."""
        ...

    def make_directories(self, paths: Sequence[Path]) -> Sequence[RemoteStamp | HeleniteError]:
        """As `make_directory` for each, none in another, in one request; what came of each, in order."""
        ...

    def move(self, source: Path, target: Path, expected: RemoteStamp) -> None:
        """Rename, Overwrite: F. A file must still have the ETag, a directory the resource id, that is expected."""
        ...

    def delete(self, path: Path, expected: RemoteStamp, beneath: Mapping[Path, RemoteStamp]) -> None:
        """Delete an entry (into the server's trash) if it still is as expected; of a directory, with all beneath.

        `beneath` is everything that is known to be in the directory, by full path. Anything else in there, or another
        ETag, is a PreconditionFailedError and deletes nothing: read the walk tag, compare a listing of all beneath, and
        delete under the condition of that tag. A server without walk tags: delete the files one by one, each under
        the condition of its ETag, then the empty directories, and stop at the first surprise.
        """
        ...

    def set_attributes(self, path: Path, expected: RemoteStamp, attributes: Attributes) -> RemoteStamp:
        """Set what the server keeps of these."""
        ...


@dataclass(frozen=True, slots=True)
class Present:
    """A local file with content that both sides agreed on: the one that a download replaces, or one with its content.

    `state` names the state it is in; `confirm` raises PreconditionFailedError when that has changed.
    """

    file: FilePath
    digest: bytes
    state: str
    confirm: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Twin:
    """An entry on the server that has some content."""

    path: Path
    stamp: RemoteStamp


@dataclass(frozen=True, slots=True)
class Upload:
    """What `Remote.store` sends. `file` does not change while it is sent: the caller compares its stamp afterwards."""

    kind: Kind
    file: FilePath
    size: int
    digest: bytes
    attributes: Attributes
    identical: Twin | None = None  # it has this very content: a COPY may do
    stamp: LocalStamp | None = None  # while the file has it, it has this content


@dataclass(frozen=True, slots=True)
class Sending:
    """One of several uploads in a request; see `Remote.store`."""

    path: Path
    upload: Upload
    replaces: RemoteStamp | None


@dataclass(frozen=True, slots=True)
class Fetching:
    """One of several downloads in a request; see `Remote.fetch`."""

    path: Path
    expected: RemoteStamp
    into: FilePath


@dataclass(frozen=True, slots=True)
class Seen:
    """An entry of the local disk. Other kinds than ours (devices, sockets, pipes) are not seen at all."""

    name: str
    kind: Kind
    stamp: LocalStamp


@dataclass(frozen=True, slots=True)
class Listing:
    """A local directory. `unreadable` names are there, but nothing can be said about them but why."""

    entries: Sequence[Seen]
    unreadable: Mapping[str, str]


class Memory(Protocol):
    """What this device has begun to bring over, also in an earlier life, and may not know the end of. Any thread."""

    @property
    def is_empty(self) -> bool: ...

    def note(self, doings: Iterable[Doing]) -> None:
        """These are about to be done; called before."""
        ...

    def end(self, doings: Iterable[Doing]) -> None:
        """It is written down that these were done; called after."""
        ...

    def of_content(self, digest: bytes, *marks: str | int) -> Sequence[Carried]:
        """All that had this content (by SHA-256), and one of these for name, inode here or id on the server."""
        ...

    def of_inode(self, inode: int) -> Sequence[Carried]:
        """All that had this inode here."""
        ...

    def has_moved(self, entry: str | int, name: str) -> bool:
        """Whether this entry (of the server: its id; here: its inode) was given this name, perhaps in vain."""
        ...

    def forget(self) -> None:
        """It is known what came of all of them."""
        ...


class Folder(Protocol):
    """The local side of a pair.

    What it replaces or deletes it compares with what is expected, and if it finds another content it puts that back,
    even if it was saved in the microsecond before.
    """

    @property
    def under_way(self) -> Memory: ...

    def marker(self) -> str | None:
        """The id that `mark` left in the folder; None when there is none. UnavailableError when there is no folder."""
        ...

    def recover(self) -> None:
        """Put away what an earlier process left half done; called once, before anything else is changed."""
        ...

    def mark(self, pair: str) -> None:
        """Leave the id of the pair in the folder, so that an unmounted or replaced one is known as such."""
        ...

    def list(self, directory: Path) -> Listing:
        """EntryNotFoundError when it is gone, PermissionDeniedError when it cannot be read."""
        ...

    def see(self, path: Path) -> Seen | None:
        """How an entry looks now; None when there is none."""
        ...

    def digest(self, path: Path, expected: LocalStamp) -> bytes:
        """SHA-256 of the content (of a link, of its target); PreconditionFailedError when it changed meanwhile."""
        ...

    def file_of(self, path: Path) -> FilePath:
        """Where the operating system finds an entry."""
        ...

    def staging_file(self, key: str) -> FilePath:
        """A file on the same file system to write a download to; the same for the same key, to go on after a break."""
        ...

    def make_directory(self, path: Path) -> LocalStamp:
        """EntryExistsError when anything has the name."""
        ...

    def touched_ns(self, path: Path) -> int:
        """When a directory, its name or one of its entries was last changed; EntryNotFoundError when it is gone."""
        ...

    def move(self, source: Path, target: Path, expected: LocalStamp) -> LocalStamp:
        """Rename, without ever replacing anything; the new stamp."""
        ...

    def install(self, path: Path, content: Content, replaces: LocalStamp | None) -> LocalStamp:
        """Put a staged file at its place, in place of exactly the expected entry or of nothing."""
        ...

    def flush(self, paths: Sequence[Path]) -> None:
        """Make sure that these entries, under these names, survive a power cut; called before the journal says so."""
        ...

    def set_attributes(self, path: Path, expected: LocalStamp, attributes: Attributes) -> LocalStamp:
        """Set these and nothing else."""
        ...

    def trash(self, path: Path, beneath: Mapping[Path, LocalStamp], goes_along: Callable[[Path, Kind], bool]) -> None:
        """Move an entry with all beneath into the local trash, if it is as expected.

        `beneath` has the entry itself and everything that is known to be in it, by full path. When anything is found to
        be different, all is put back; but entries that `goes_along` (they are not synced) go with their directory.
        """
        ...


@dataclass(frozen=True, slots=True)
class Content:
    """What `Folder.install` puts in place."""

    kind: Kind
    staged: FilePath
    digest: bytes
    attributes: Attributes
