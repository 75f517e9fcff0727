"""What a transfer carries: one file or link, prepared by the engine's thread and carried by any other.

Used by `transfers`. Carrying touches neither the journal nor the synced folder, except for reading what goes up; what
comes down is staged. Small files travel together where the server takes bundles, and each has an outcome of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path as FilePath

from helenite.core.errors import DigestMismatchError, HeleniteError
from helenite.core.paths import Path, format_path
from syncagent.model import Kind, LocalStamp, LocalState, Place, RemoteStamp, Tree
from syncagent.plan import Download
from syncagent.plan import Upload as UploadStep
from syncagent.ports import Attributes, Content, Fetching, Folder, Present, Remote, Sending, Twin, Upload
from syncagent.underway import Carried

BUNDLED_BYTES = 256 << 10
"""Larger files gain nothing from company: their own request costs little beside their content."""
BUNDLE_BYTES_MAX = 4 << 20
"""Of content in one bundle: it is held in memory while it is sent."""


@dataclass(frozen=True, slots=True)
class Uploaded:
    """The server has what the local file was when it was sent."""

    sent: LocalState
    place: Place
    stamp: RemoteStamp


@dataclass(frozen=True, slots=True)
class Fetched:
    """Content of a revision of the server's, staged."""

    stamp: RemoteStamp
    content: Content


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A local file that is to become a revision on the server; `replaces` None: a new entry."""

    step: UploadStep
    local: LocalState
    source: Path
    place: Place
    target: Path
    replaces: RemoteStamp | None
    twins: Mapping[bytes, Twin]
    """Entries of this size on the server, by their digests."""
    parent: str
    """The id of the target's directory on the server."""

    @property
    def size(self) -> int:
        return self.local.stamp.size

    @property
    def travels_in_company(self) -> bool:
        return self.local.kind is Kind.FILE and self.size <= BUNDLED_BYTES

    def pack(self, folder: Folder) -> Sending:
        """As the server's port takes it, with its digest; PreconditionFailedError when the file has changed."""
        local = self.local
        digest = local.digest or folder.digest(self.source, local.stamp)
        attributes = Attributes(local.stamp.mtime_ns // 1_000_000, local.stamp.executable)
        file = folder.file_of(self.source)
        upload = Upload(local.kind, file, self.size, digest, attributes, self.twins.get(digest), local.stamp)
        return Sending(self.target, upload, self.replaces)

    def carried(self, digest: bytes) -> Carried:
        """To be remembered until it is known what came of it."""
        name, inode = self.target[-1], self.local.stamp.inode
        if self.replaces is not None:
            return Carried(Tree.LOCAL, name, digest, inode, self.replaces.resource)
        return Carried(Tree.LOCAL, name, digest, inode, "", self.parent, "/".join(self.target))

    def sent(self, sending: Sending, stamp: RemoteStamp) -> Uploaded:
        """What has come of it."""
        state = LocalState(self.local.place, self.local.kind, self.local.stamp, sending.upload.digest)
        return Uploaded(state, self.place, stamp)


@dataclass(frozen=True, slots=True)
class Incoming:
    """A revision of the server's that is to be staged; `digest` is what the server says of it, if it does.

    `replaces` is what it was planned to take the place of; what is there by then may be another, which it must not.
    """

    step: Download
    kind: Kind
    source: Path
    stamp: RemoteStamp
    digest: bytes | None
    staging: FilePath
    present: Present | None
    replaces: LocalStamp | None

    @property
    def size(self) -> int:
        return self.stamp.size

    @property
    def travels_in_company(self) -> bool:
        """A link is a small file for the server."""
        return self.size <= BUNDLED_BYTES

    @property
    def wanted(self) -> Fetching:
        """As the server's port takes it."""
        return Fetching(self.source, self.stamp, self.staging)

    @property
    def revision(self) -> tuple[str, str]:
        """Which content it is of: resource id and ETag."""
        return self.stamp.resource, self.stamp.etag

    def discard(self) -> None:
        """Remove what is staged of it, also beside what it was copied from (`downloads`)."""
        for staged in self.staging.parent.glob(f"{self.staging.name}*"):
            with suppress(OSError):  # it goes when it is old (`folder`)
                staged.unlink()

    def arrived(self, digest: bytes) -> Fetched:
        """What has come of it; DigestMismatchError when it is not what the server describes."""
        if self.digest is not None and digest != self.digest:
            self.staging.unlink(missing_ok=True)
            raise DigestMismatchError(f"{format_path(self.source)} did not arrive as the server describes it")
        attributes = Attributes(self.stamp.mtime_ms, self.stamp.executable)
        return Fetched(self.stamp, Content(self.kind, self.staging, digest, attributes))


Cargo = Outgoing | Incoming
Result = Uploaded | Fetched | HeleniteError
"""An error belongs to one item; what befalls all of a request is raised."""


def carry(cargo: Cargo, folder: Folder, remote: Remote) -> Uploaded | Fetched:
    """Carry one item; raises what befell it."""
    match cargo:
        case Outgoing():
            sending = cargo.pack(folder)
            folder.under_way.note([cargo.carried(sending.upload.digest)])
            return cargo.sent(sending, remote.store(sending.path, sending.upload, sending.replaces))
        case Incoming():
            return cargo.arrived(remote.fetch(cargo.source, cargo.stamp, cargo.staging, cargo.present, cargo.digest))


def carry_up(group: Sequence[Outgoing], folder: Folder, remote: Remote) -> list[Result]:
    """Carry small files to the server in one request; outcomes in order."""
    results: dict[int, Result] = {}
    packed: dict[int, Sending] = {}
    for number, cargo in enumerate(group):
        try:
            packed[number] = cargo.pack(folder)
        except HeleniteError as error:
            results[number] = error
    folder.under_way.note(group[number].carried(sending.upload.digest) for number, sending in packed.items())
    stamps = remote.store_many(list(packed.values())) if packed else ()
    for (number, sending), stamp in zip(packed.items(), stamps, strict=True):
        results[number] = stamp if isinstance(stamp, HeleniteError) else group[number].sent(sending, stamp)
    return [results[number] for number in range(len(group))]


def carry_down(group: Sequence[Incoming], remote: Remote) -> list[Result]:
    """Stage small files of the server in one request; outcomes in order."""
    digests = remote.fetch_many([cargo.wanted for cargo in group])
    return [_arrived(cargo, digest) for cargo, digest in zip(group, digests, strict=True)]


def _arrived(cargo: Incoming, digest: bytes | HeleniteError) -> Result:
    if isinstance(digest, HeleniteError):
        return digest
    try:
        return cargo.arrived(digest)
    except HeleniteError as error:
        return error


def is_full(group: Iterable[Cargo], members_max: int) -> bool:
    """Whether nothing more should join these."""
    sizes = [cargo.size for cargo in group]
    return len(sizes) >= members_max or sum(sizes) >= BUNDLE_BYTES_MAX
