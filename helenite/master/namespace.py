"""The namespace as verbs: what the services and loops of a master ask of Redis.

Each verb is one script or one pipeline of scripts, hence one round trip; only the copy of a directory takes several.
What must hold is checked inside the scripts; nothing is remembered here but the cluster's identity. Thread-safe.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from collections.abc import Sequence as Many
from dataclasses import asdict
from typing import Any

import msgpack

from helenite.core.dumpfile import DumpHeader, encode_dump
from helenite.core.errors import HeleniteError
from helenite.core.model import Change, ChunkHandle, Chunkserver, Sequence, ServerId, Trashed, Usage
from helenite.core.paths import Path
from helenite.core.record import decode_record
from helenite.core.wire import unpack_servers
from helenite.master.mutations import Copy, Mutation, Outcome, encode_path, script_call
from helenite.master.store import Store
from helenite.master.stored import (
    Member,
    MendBatch,
    NamedDeletions,
    Needed,
    Page,
    Progress,
    ReportPage,
    StoredEntry,
    User,
    decode_change,
    decode_lock,
    decode_member,
    decode_page,
    decode_replicas,
    decode_server,
    decode_stored,
    decode_totals,
    decode_trashed,
    decode_user,
    encode_server,
    unpack,
)

LIST_PAGE = 1000
LIST_PAGE_MAX = 5000
"""Entries of one page of a large directory: a few milliseconds of Redis, well below the largest message."""
FEED_PAGE_MAX = 10_000
TRASH_PAGE_MAX = 10_000
COPY_STEP = 500
"""Entries copied by one script: about 5 ms during which nobody else is served."""
COPY_JOBS_MAX = 100
"""Directories handed to one step."""


class Namespace:
    """One space of one cluster."""

    def __init__(self, store: Store, *, trash_s: int) -> None:
        self._store = store
        self._has_trash = trash_s > 0
        identity = {"cluster_id": secrets.token_hex(16), "capability_key": secrets.token_bytes(32)}
        cluster_id, capability_key = store.run("create_cluster", identity)
        self.cluster_id: str = cluster_id.decode()
        self.capability_key: bytes = capability_key
        self._lock_cursor = "0"  # where the sweep of expired locks goes on; only the leader's one loop uses it

    def close(self) -> None:
        self._store.close()

    # Reading

    def lookup(
        self, path: Path, *, with_locations: bool = False, with_properties: bool = False, with_locks: bool = False
    ) -> StoredEntry:
        """One entry with all its extents, the replicas of the first 256, dead properties, own and inherited locks."""
        request = {
            "names": encode_path(path),
            "with_locations": with_locations,
            "with_properties": with_properties,
            "with_locks": with_locks,
        }
        return decode_stored(*self._store.run("lookup", request))

    def list_directory(
        self,
        path: Path,
        *,
        cursor: int = 0,
        limit: int = 0,
        with_locations: bool = False,
        with_properties: bool = False,
        with_locks: bool = False,
    ) -> Page:
        """A directory and a page of its members; up to 4,096 come whole, at one moment.

        Pages of a larger one may repeat a name. Extents that overflowed are left out: such a record has the flag.
        """
        request = {
            "names": encode_path(path),
            "cursor": str(cursor),
            "limit": min(limit or LIST_PAGE, LIST_PAGE_MAX),
            "with_locations": with_locations,
            "with_properties": with_properties,
            "with_locks": with_locks,
        }
        return decode_page(self._store.run("list", request))

    def last_sequence(self) -> Sequence:
        return Sequence(int(self._store.command("GET", "seq") or 0))

    def read_feed(self, after: Sequence, limit: int, wait_s: float = 0.0) -> tuple[list[Change], Sequence]:
        """Changes after a sequence and the last one, waiting for the first; SequenceExpiredError when trimmed."""
        request = {"after": after, "limit": max(1, min(limit, FEED_PAGE_MAX))}
        last, elements = self._store.run("read_feed", request)
        if not elements and wait_s > 0:
            self._store.wait_for_change(after, wait_s)
            last, elements = self._store.run("read_feed", request)
        return list(map(decode_change, elements)), Sequence(last)

    def usage(self) -> Usage:
        """Live totals; capacity is not known here."""
        files, directories, size = decode_totals(self._store.command("HGET", "q", 1))
        return Usage(files, directories, size, 0, 0)

    def list_trash(self, principal: str = "", limit: int = 1000) -> list[Trashed]:
        """What can be restored, youngest first; an empty principal means everyone's."""
        request = {"principal": principal, "limit": min(limit, TRASH_PAGE_MAX)}
        (flat,) = self._store.run("list_trash", request)
        return list(map(decode_trashed, flat[::2], flat[1::2]))

    # Mutations

    def mutate(self, mutations: Many[tuple[bytes, Mutation]]) -> list[Outcome | HeleniteError]:
        """Carry out mutations, each with its operation id, in order and each on its own; one failing stops none.

        All travel in one round trip; the copy of a directory interrupts it.
        """
        results: list[Outcome | HeleniteError] = []
        pending: list[tuple[str, dict[str, Any]]] = []
        for operation_id, mutation in mutations:
            call = script_call(mutation, operation_id, has_trash=self._has_trash)
            if isinstance(mutation, Copy):
                results += self._run_mutations(pending)
                pending = []
                results.append(self._copy(call))
            else:
                pending.append(call)
        return results + self._run_mutations(pending)

    def apply(self, mutation: Mutation) -> Outcome:
        """One mutation under an operation id of its own."""
        result = self.mutate([(secrets.token_bytes(16), mutation)])[0]
        if isinstance(result, HeleniteError):
            raise result
        return result

    def _run_mutations(self, calls: list[tuple[str, dict[str, Any]]]) -> list[Outcome | HeleniteError]:
        if not calls:
            return []
        replies = self._store.run_all(calls, is_mutation=True)
        return [reply if isinstance(reply, HeleniteError) else _decode_outcome(reply) for reply in replies]

    def _copy(self, call: tuple[str, dict[str, Any]]) -> Outcome | HeleniteError:
        """Copy at once what is one entry; else stage the members step by step, then attach them."""
        try:
            reply = self._store.run(*call, is_mutation=True)
            if reply[0] == b"staging":
                _, source, staged = reply
                self._stage(source, staged)
                script, request = call
                request = {**request, "staged": staged, "staged_from": source}
                reply = self._store.run(script, request, is_mutation=True)
            return _decode_outcome(reply)
        except HeleniteError as error:
            return error

    def _stage(self, source: int, staged: int) -> None:
        jobs: list[Any] = [(source, [staged], "0")]
        while jobs:
            step, jobs = jobs[-COPY_JOBS_MAX:], jobs[:-COPY_JOBS_MAX]
            request = {"operation": secrets.token_bytes(16), "staged": staged, "jobs": step, "budget": COPY_STEP}
            (left,) = self._store.run("copy_step", request)
            jobs += unpack(left)

    # Chunks

    def next_handles(self, count: int) -> int:
        """The first of `count` fresh handles."""
        return int(self._store.command("INCRBY", "next_handle", count)) - count + 1

    def locate(self, handles: Many[ChunkHandle]) -> list[tuple[ChunkHandle, tuple[ServerId, ...]]]:
        """The replicas of chunks, none for those that are not in the table."""
        (found,) = self._store.run("locate", {"handles": handles})
        return [(handle, unpack_servers(packed)) for handle, packed in zip(handles, found, strict=True)]

    def add_replicas(self, handles: Many[ChunkHandle], server: ServerId, epoch: int) -> list[bool]:
        """Note that a server holds chunks; False for those that the table does not know, or no longer wants there."""
        request = {"server": server, "epoch": epoch, "is_held": True}
        replies = self._store.run_all([("change_replicas", {**request, "handle": handle}) for handle in handles])
        for reply in replies:
            if isinstance(reply, HeleniteError):
                raise reply
        return [bool(reply[0]) for reply in replies if not isinstance(reply, HeleniteError)]

    def remove_replica(self, handle: ChunkHandle, server: ServerId, epoch: int) -> bool:
        """Note that a server no longer holds a chunk; False when the chunk is not in the table."""
        request = {"handle": handle, "server": server, "epoch": epoch, "is_held": False}
        return bool(self._store.run("change_replicas", request)[0])

    def drop_replica(self, handle: ChunkHandle, server: ServerId, needed: Needed, epoch: int) -> bool:
        """Take a surplus replica out of the table and order its deletion; False when too few others would stay."""
        return bool(
            self._store.run("drop_replica", {"handle": handle, "server": server, "epoch": epoch, **needed.packed()})[0]
        )

    def scan_chunks(self, cursor: int = 0) -> tuple[list[tuple[ChunkHandle, tuple[ServerId, ...]]], int]:
        """A page of the chunk table in rising order, without chunks that are being freed; cursor 0 begins and ends."""
        following, flat = self._store.run("scan_chunks", {"cursor": cursor})
        return decode_replicas(flat), following

    def chunks(self) -> Iterator[tuple[ChunkHandle, tuple[ServerId, ...]]]:
        """The whole chunk table, page by page."""
        cursor = 0
        while True:
            page, cursor = self.scan_chunks(cursor)
            yield from page
            if cursor == 0:
                return

    # Garbage collection

    def collect_garbage(self, epoch: int, *, trash_s: int, grace_s: int) -> int:
        """One bounded step; how many things it did, 0 when there is nothing to do now."""
        request = {"epoch": epoch, "trash_s": trash_s, "grace_s": grace_s, "lock_cursor": self._lock_cursor}
        done, cursor = self._store.run("collect", request)
        self._lock_cursor = cursor.decode()
        return int(done)

    def take_deletions(
        self, server: ServerId, limit: int, needed: Needed, epoch: int
    ) -> tuple[list[ChunkHandle], list[ChunkHandle]]:
        """Chunks that a server should delete, and those that it should look at, as their deletion was called off.

        The first are named again until it confirms, the second once. No deletions while the guard forbids them.
        """
        request = {"server": server, "limit": limit, "epoch": epoch, **needed.packed()}
        doomed, called_off, *_ = self._store.run("take_deletions", request)
        return _decode_handles(doomed), _decode_handles(called_off)

    def take_named_deletions(
        self, server: ServerId, limit: int, needed: Needed, epoch: int, redis: str
    ) -> NamedDeletions:
        """The same by the word of one Redis alone, whose run id this is, with what the fence asks of it."""
        request = {"server": server, "limit": limit, "epoch": epoch, "redis": redis, **needed.packed()}
        results, is_witnessed = self._store.run_witnessed("take_deletions", request)
        doomed, called_off, is_named, is_marked = results
        lists = _decode_handles(doomed), _decode_handles(called_off)
        return NamedDeletions(*lists, is_named=bool(is_named), is_witnessed=is_witnessed and bool(is_marked))

    def confirm_deletions(self, server: ServerId, handles: Many[ChunkHandle]) -> None:
        self._store.command("SREM", f"del:{server}", *handles)
        self._store.command("SREM", f"surplus:{server}", *handles)

    # Reports, orphans and the guard (scripts/prelude_guard.lua)

    def hear_report(self, server: ServerId, handles: Many[ChunkHandle], epoch: int) -> ReportPage:
        """Compare a page of what a server held when it listed it with the chunk table."""
        request = {"server": server, "handles": handles, "epoch": epoch}
        orphans, surprising, life, last, unnamed = self._store.run("hear_report", request)
        found = list(map(ChunkHandle, orphans)), list(map(ChunkHandle, unnamed))
        return ReportPage(*found, surprising, life, ChunkHandle(last))

    def delete_orphans(self, server: ServerId, handles: Many[ChunkHandle], epoch: int) -> int:
        """Order a server to delete those of these chunks that are orphans and old enough; how many."""
        return int(self._store.run("delete_orphans", {"server": server, "handles": handles, "epoch": epoch})[0])

    def watch_orphans(self, orphan_age_s: int, epoch: int) -> int:
        """Raise the floor below which unknown chunks are orphans; the life of Redis that needs a check, else 0."""
        return int(self._store.run("watch_orphans", {"orphan_age_s": orphan_age_s, "epoch": epoch})[0])

    def check_life(self, life: int, epoch: int) -> None:
        """All chunkservers have reported in this life of Redis: deletions may go on, unless they were stopped."""
        self._store.run("check_life", {"life": life, "epoch": epoch})

    def stop_deleting(self, reason: str, epoch: int) -> None:
        """Delete nothing from now on."""
        self._store.run("stop_deleting", {"reason": reason, "epoch": epoch})

    def resume_deleting(self) -> bool:
        """A person says that the metadata is right; whether anything had been stopped."""
        return bool(self._store.run("resume_deleting", {})[0])

    def deleting_stopped(self) -> tuple[int, str]:
        """Since when and why nothing is deleted; an empty reason when all is well, 0 when it goes on by itself."""
        packed = self._store.command("GET", "gc_stopped")
        if not packed:
            return 0, (self._store.command("GET", "gc_waits") or b"").decode()
        fields = unpack(packed)
        return int(fields[b"since_ms"]), fields[b"reason"].decode()

    def publish_waiting(self, why: str, ttl_s: int) -> None:
        """Tell all masters why the leader's deletions wait."""
        self._store.command("SET", "gc_waits", why, "EX", ttl_s)

    def publish_progress(self, progress: tuple[Progress, Progress], ttl_s: int) -> None:
        """Tell all masters how the leader's repair and rebalancing get on."""
        packed = msgpack.packb([[p.waiting, p.under_way, p.chunks_per_s] for p in progress])
        self._store.command("SET", "progress", packed, "EX", ttl_s)

    def progress(self) -> tuple[Progress, Progress]:
        """How the leader's repair and rebalancing got on a moment ago."""
        packed = self._store.command("GET", "progress")
        repair, rebalance = (Progress(*fields) for fields in unpack(packed)) if packed else (Progress(), Progress())
        return repair, rebalance

    # Backup

    def dump(self) -> Iterator[bytes]:
        """A consistent copy of all metadata as a dump file, piece by piece (core/dumpfile.py)."""
        header = DumpHeader(
            self.cluster_id, self._store.space, self.last_sequence(), self._now_ms(), self._store.version()
        )
        return encode_dump(header, self._store.snapshot())

    def mend(self, batch: MendBatch, epoch: int) -> int:
        """Carry out a part of what an audit proposed, once however often it is asked; how many actions did something.

        PreconditionFailedError when the books were mended by somebody else since the audit.
        """
        request = {"operation": f"mend:{batch.id}:{batch.batch}", "epoch": epoch, **asdict(batch)}
        return int(self._store.run("mend", request, is_mutation=True)[0])

    # Leadership, members, users

    def acquire_leadership(self, master_id: str, ttl_ms: int) -> tuple[bool, int]:
        """Take or renew the lease; whether this master leads, and the epoch."""
        leads, epoch = self._store.run("lead", {"master": master_id, "ttl_ms": ttl_ms})
        return bool(leads), epoch

    def release_leadership(self, master_id: str) -> None:
        self._store.run("lead", {"master": master_id, "ttl_ms": 0})

    def leader_id(self) -> str:
        """The leading master, empty when none leads."""
        return (self._store.command("GET", "leader") or b"").decode()

    def assign_server(self, server: Chunkserver) -> ServerId:
        """The id of a chunkserver, the same as last time. ForeignClusterError when it shows another one's id."""
        return ServerId(self._store.run("assign_server", {"id": server.id, "server": encode_server(server)})[0])

    def list_servers(self) -> list[Chunkserver]:
        """All chunkservers that ever registered; their state and load are not known here."""
        return [decode_server(*item) for item in self._store.command("HGETALL", "servers").items()]

    def set_draining(self, server: ServerId, *, is_on: bool) -> None:
        """Mark a chunkserver as one that is to be emptied."""
        self._store.command("SADD" if is_on else "SREM", "draining", server)

    def draining(self) -> frozenset[ServerId]:
        """The chunkservers that are to be emptied."""
        return frozenset(ServerId(int(server)) for server in self._store.command("SMEMBERS", "draining"))

    def forget_server(self, server: ServerId) -> None:
        """Strike a chunkserver off the list; its id is never given again."""
        self._store.command("HDEL", "servers", server)
        for waiting in ("del", "surplus"):
            self._store.command("UNLINK", f"{waiting}:{server}")
        self.set_draining(server, is_on=False)

    def announce_member(self, kind: str, member_id: str, address: str, pid: int, ttl_s: int) -> None:
        """Note that a master or gateway is there, for `ttl_s`."""
        member = {"kind": kind, "address": address, "pid": pid}
        self._store.run("members", {"id": member_id, "member": member, "ttl_ms": ttl_s * 1000})

    def list_members(self) -> list[Member]:
        """Masters and gateways; a silent one is listed as not alive for a minute."""
        now, flat = self._store.run("members", {})
        return [decode_member(*item, now) for item in zip(flat[::2], flat[1::2], strict=True)]

    def master_addresses(self) -> list[str]:
        """Where the living masters serve."""
        return sorted(member.address for member in self.list_members() if member.kind == "master" and member.is_alive)

    def list_users(self) -> list[User]:
        return [decode_user(*item) for item in sorted(self._store.command("HGETALL", "users").items())]

    def get_user(self, name: str) -> User | None:
        packed = self._store.command("HGET", "users", name)
        return None if packed is None else decode_user(name.encode(), packed)

    def put_user(self, name: str, password_hash: str) -> None:
        """Create a user or change the password."""
        known = self.get_user(name)
        created_at_ms = known.created_at_ms if known else self._now_ms()
        fields = {"password_hash": password_hash, "created_at_ms": created_at_ms}
        self._store.command("HSET", "users", name, msgpack.packb(fields))

    def remove_user(self, name: str) -> bool:
        """Whether there was one."""
        return bool(self._store.command("HDEL", "users", name))

    def _now_ms(self) -> int:
        """By Redis' clock, the one that all masters share."""
        return int(self._store.run("members", {})[0])


def _decode_handles(handles: list[Any]) -> list[ChunkHandle]:
    return [ChunkHandle(int(handle)) for handle in handles]


def _decode_outcome(reply: list[Any]) -> Outcome:
    name, record, is_created, sequence, locks = reply
    entry = decode_record(name.decode(), record) if record else None
    lock = decode_lock(unpack(locks)[0]) if locks else None
    return Outcome(entry, bool(is_created), Sequence(sequence), lock)
