"""The values that all parts share: entries, extents, chunks, locks, conditions, chunkservers.

Frozen and free of behaviour beyond what follows from their own fields. Times are milliseconds since the
Unix epoch (`_at_ms`), sizes are bytes. Pure: no I/O, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType

EntryId = NewType("EntryId", int)
"""Stable id of a file or directory; follows it through MOVE, never used twice."""
ChunkHandle = NewType("ChunkHandle", int)
"""64-bit id of a chunk; names one content for ever."""
ServerId = NewType("ServerId", int)
"""16-bit id of a chunkserver, given at its first registration."""
Sequence = NewType("Sequence", int)
"""Position in the feed; rises with every mutation of the space."""

ROOT_ID = EntryId(1)
MIB = 1024 * 1024
BLOCK_BYTES = 64 * 1024
"""Unit of checksums: one xxh3-64 for each started block of a chunk."""
DEFAULT_CHUNK_BYTES = 8 * MIB
CHUNK_BYTES_MAX = 64 * MIB
SEGMENT_CHUNK_BYTES_MAX = MIB
"""Chunks up to this size are appended to segments and written by fan-out; larger ones are files, written by chain."""


class Kind(StrEnum):
    """What an entry is."""

    FILE = "file"
    DIRECTORY = "directory"


@dataclass(frozen=True, slots=True)
class Extent:
    """`length` bytes of a file, found at `offset` inside the chunk `handle`."""

    handle: ChunkHandle
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a directory.

    `revision` is the sequence of the commit that gave a file its content; of a directory it is the highest
    sequence of anything beneath it. With the id it makes the ETag. `extents` is empty for directories. `sha256` is the
    digest of this revision's content (32 bytes), empty when nobody has told or computed it.
    """

    name: str
    kind: Kind
    id: EntryId
    revision: Sequence
    size_bytes: int
    modified_at_ms: int
    created_at_ms: int
    extents: tuple[Extent, ...] = ()
    sha256: bytes = b""

    @property
    def is_directory(self) -> bool:
        """Whether the entry can have children."""
        return self.kind is Kind.DIRECTORY

    @property
    def lacks_extents(self) -> bool:
        """Whether a listing left the extents out; a look-up brings them."""
        return self.size_bytes > 0 and not self.extents

    @property
    def etag(self) -> str:
        """Strong entity tag without its quotes."""
        return f"{self.id:x}-{self.revision:x}"


@dataclass(frozen=True, slots=True)
class Location:
    """Where a chunk's replicas are, with the capability that their chunkservers demand."""

    handle: ChunkHandle
    servers: tuple[ServerId, ...]
    capability: bytes


class LockScope(StrEnum):
    """RFC 4918 section 6.2."""

    EXCLUSIVE = "exclusive"
    SHARED = "shared"


@dataclass(frozen=True, slots=True)
class Lock:
    """A WebDAV write lock. `owner` is the client's XML, verbatim. `path` is the lock's root."""

    token: str
    path: str
    scope: LockScope
    is_infinite: bool
    owner: bytes
    principal: str
    timeout_s: int
    expires_at_ms: int


class Expect(StrEnum):
    """What a mutation demands of its target's present state."""

    ANY = "any"
    ABSENT = "absent"
    PRESENT = "present"
    EXACT = "exact"


@dataclass(frozen=True, slots=True)
class Condition:
    """Checked inside the mutation's script. `id` and `revision` matter for EXACT only.

    `tokens` are the lock tokens that the client submitted, `principal` is who asks. For EXACT on a
    directory the revision is its subtree sequence.
    """

    expect: Expect = Expect.ANY
    id: EntryId = EntryId(0)
    revision: Sequence = Sequence(0)
    tokens: tuple[str, ...] = ()
    principal: str = ""

    @classmethod
    def exactly(cls, entry: Entry) -> Condition:
        """Demand that the target is still `entry` at its revision."""
        return cls(Expect.EXACT, entry.id, entry.revision)


@dataclass(frozen=True, slots=True)
class EntryView:
    """An entry with whatever else one round trip was asked to bring."""

    entry: Entry
    locations: tuple[Location, ...] = ()
    properties: dict[str, bytes] = field(default_factory=dict)
    locks: tuple[Lock, ...] = ()


class ServerState(StrEnum):
    """Liveness and duty of a chunkserver as the master sees it."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Chunkserver:
    """A registered chunkserver. `address` is its control port, `data_address` its data port (`host:port`).

    `data_socket` is the path of its unix socket, useful only where that path exists; `host` is what
    placement spreads over.
    """

    id: ServerId
    uuid: str
    address: str
    data_address: str
    data_socket: str
    host: str
    rack: str
    pid: int
    state: ServerState
    capacity_bytes: int
    free_bytes: int
    used_bytes: int
    chunk_count: int


@dataclass(frozen=True, slots=True)
class Allocation:
    """A fresh chunk handle, the replication chain to write it to (primary first) and its capability."""

    handle: ChunkHandle
    servers: tuple[ServerId, ...]
    capability: bytes


@dataclass(frozen=True, slots=True)
class Usage:
    """Totals of the space, all logical: capacity and free space are raw bytes divided by the replica target."""

    file_count: int
    directory_count: int
    file_bytes: int
    capacity_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Change:
    """One element of the feed: `verb` happened to `path` (and, for moves, came from `source`).

    `parents` are the ids of the directories whose listing changed, nearest first. `replaced` is what stood at the
    target of a move or copy and is gone, with all that was beneath it.
    """

    sequence: Sequence
    verb: str
    path: str
    source: str
    id: EntryId
    kind: Kind
    parents: tuple[EntryId, ...]
    replaced: Kind | None = None


@dataclass(frozen=True, slots=True)
class Trashed:
    """A deleted entry that can be restored."""

    id: int
    path: str
    kind: Kind
    size_bytes: int
    principal: str
    deleted_at_ms: int
