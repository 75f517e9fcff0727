"""Answers of scripts as values. Pure.

An entry stays packed (StoredEntry) on its way from Redis to a client, which is what listings are fast by; whoever needs
its fields asks for `entry`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import msgpack

from helenite.core.model import (
    Change,
    ChunkHandle,
    Chunkserver,
    Entry,
    EntryId,
    Lock,
    LockScope,
    Sequence,
    ServerId,
    ServerState,
    Trashed,
)
from helenite.core.record import KIND_BY_CODE, decode_record
from helenite.core.wire import pack_servers, unpack_servers


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry as a look-up or a listing brings it: its record, and packed replicas in the order of its extents."""

    name: str
    record: bytes
    replicas: tuple[bytes, ...] = ()
    properties: dict[str, bytes] = field(default_factory=dict)
    locks: tuple[Lock, ...] = ()

    @property
    def entry(self) -> Entry:
        return decode_record(self.name, self.record)


@dataclass(frozen=True, slots=True)
class Page:
    """A directory and some of its members; `cursor` 0 = these were the last.

    Members bring their own locks; those that they inherit are the directory's infinite ones.
    """

    directory: StoredEntry
    entries: list[StoredEntry]
    cursor: int


@dataclass(frozen=True, slots=True)
class ReportPage:
    """What a page of a chunk report came to.

    Chunks that are old enough to be orphans; replicas that the table does not name, if the server still has them; how
    many of the orphans no person has accepted as such; the life of Redis that judged, and the last handle given out.
    """

    orphans: list[ChunkHandle]
    unnamed: list[ChunkHandle]
    surprising: int
    life: int
    last_handle: ChunkHandle


@dataclass(frozen=True, slots=True)
class NamedDeletions:
    """Chunks that a server should delete by the word of a named Redis, and those whose deletion is called off."""

    doomed: list[ChunkHandle]
    called_off: list[ChunkHandle]
    is_named: bool
    """The Redis that was asked is the one."""
    is_witnessed: bool
    """Replicas know all that it knew, or nothing is to be deleted."""


@dataclass(frozen=True, slots=True)
class Needed:
    """What must be left of a chunk where a replica goes: so many others, on servers that are certainly alive."""

    keep: int
    alive: frozenset[ServerId]

    def packed(self) -> dict[str, Any]:
        """As the scripts take it."""
        return {"keep": self.keep, "alive": pack_servers(self.alive)}


@dataclass(frozen=True, slots=True)
class MendBatch:
    """Actions of an audit (audit.py), the `batch`-th of one repair, and what its snapshot knew of repairs and lives."""

    id: str
    batch: int
    mends: int
    life: int
    actions: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Progress:
    """Chunks that wait, copies under way and the pace of the last seconds."""

    waiting: int = 0
    under_way: int = 0
    chunks_per_s: float = 0.0

    @property
    def left_s(self) -> int:
        """An estimate; 0 = done, or none can be made."""
        return round(self.waiting / self.chunks_per_s) if self.chunks_per_s else 0


@dataclass(frozen=True, slots=True)
class User:
    """Someone who may log in at a gateway."""

    name: str
    password_hash: str
    created_at_ms: int


@dataclass(frozen=True, slots=True)
class Member:
    """A master or gateway that announces itself."""

    id: str
    kind: str
    address: str
    pid: int
    is_alive: bool


def unpack(packed: bytes) -> Any:
    """Msgpack as Lua and we write it: texts and bytes alike come as bytes."""
    return msgpack.unpackb(packed, raw=True, strict_map_key=False)


def decode_lock(fields: dict[bytes, Any]) -> Lock:
    return Lock(
        fields[b"token"].decode(),
        fields[b"path"].decode(),
        LockScope(fields[b"scope"].decode()),
        bool(fields[b"is_infinite"]),
        fields[b"owner"],
        fields[b"principal"].decode(),
        fields[b"timeout_s"],
        fields[b"expires_at_ms"],
    )


def decode_stored(name: bytes, record: bytes, extra: bytes) -> StoredEntry:
    if not extra:
        return StoredEntry(name.decode(), record)
    replicas, properties, locks = unpack(extra)
    named = {key.decode(): value for key, value in zip(properties[::2], properties[1::2], strict=True)}
    return StoredEntry(name.decode(), record, tuple(replicas), named, tuple(map(decode_lock, locks)))


def decode_page(reply: list[Any]) -> Page:
    directory, cursor, flat, extras = reply
    names, records = flat[::2], flat[1::2]
    if extras:
        entries = list(map(decode_stored, names, records, extras))
    else:
        entries = [StoredEntry(name.decode(), record) for name, record in zip(names, records, strict=True)]
    return Page(decode_stored(*directory), entries, int(cursor))


def decode_change(element: tuple[bytes, list[bytes]]) -> Change:
    identifier, (_, packed) = element
    verb, path, source, entry_id, kind, ids, *replaced = unpack(packed)
    return Change(
        Sequence(int(identifier.partition(b"-")[0])),
        verb.decode(),
        path.decode(),
        source.decode(),
        EntryId(entry_id),
        KIND_BY_CODE[kind],
        tuple(map(EntryId, ids)),
        KIND_BY_CODE[replaced[0]] if replaced else None,
    )


def decode_trashed(item_id: bytes, packed: bytes) -> Trashed:
    item = unpack(packed)
    names = cast("list[bytes]", item[b"names"])
    return Trashed(
        int(item_id),
        "/" + "/".join(name.decode() for name in names),
        KIND_BY_CODE[item[b"record"][0]],
        item[b"bytes"],
        item[b"principal"].decode(),
        item[b"deleted_at_ms"],
    )


def decode_totals(packed: bytes) -> tuple[int, int, int]:
    """Files, directories and bytes beneath a directory."""
    return (
        int.from_bytes(packed[8:16], "big"),
        int.from_bytes(packed[16:24], "big"),
        int.from_bytes(packed[24:32], "big"),
    )


def encode_server(server: Chunkserver) -> dict[str, Any]:
    """What outlives a chunkserver's process; its load comes with its heartbeats."""
    return {
        "uuid": server.uuid,
        "address": server.address,
        "data_address": server.data_address,
        "data_socket": server.data_socket,
        "host": server.host,
        "rack": server.rack,
        "pid": server.pid,
        "capacity_bytes": server.capacity_bytes,
    }


def decode_server(server_id: bytes, packed: bytes) -> Chunkserver:
    fields = {key.decode(): value for key, value in unpack(packed).items()}
    texts = {key: value.decode() for key, value in fields.items() if isinstance(value, bytes)}
    return Chunkserver(
        ServerId(int(server_id)),
        state=ServerState.SUSPECT,
        pid=fields["pid"],
        capacity_bytes=fields["capacity_bytes"],
        free_bytes=0,
        used_bytes=0,
        chunk_count=0,
        **texts,
    )


def decode_replicas(flat: list[Any]) -> list[tuple[ChunkHandle, tuple[ServerId, ...]]]:
    """Pairs from handle, packed ids, ..."""
    return [(ChunkHandle(h), unpack_servers(packed)) for h, packed in zip(flat[::2], flat[1::2], strict=True)]


def decode_user(name: bytes, packed: bytes) -> User:
    fields = unpack(packed)
    return User(name.decode(), fields[b"password_hash"].decode(), fields[b"created_at_ms"])


def decode_member(member_id: bytes, packed: bytes, now_ms: int) -> Member:
    fields = unpack(packed)
    is_alive = fields[b"expires_at_ms"] > now_ms
    return Member(member_id.decode(), fields[b"kind"].decode(), fields[b"address"].decode(), fields[b"pid"], is_alive)
