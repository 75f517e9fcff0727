"""The books of a namespace, counted anew from a snapshot: references, totals, the chunk table, the feed, strays.

Used by `helenite fsck` on a Redis that was started on a dump, so that everything is of one moment. It shares no code
with the scripts whose work it checks. What it finds comes with the action that mends it: a difference or a condition,
so that it stays right when the namespace changed after the snapshot (scripts/mend.lua carries it out). Content whose
metadata was lost looks unused: actions that would give it up are marked, and `loss` says when not to carry them out.
Memory: about 200 bytes for each directory, chunk and shared extent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from helenite.core.model import ROOT_ID, ChunkHandle
from helenite.core.record import EXTENT, FLAG_OVERFLOW, HEADER, extents_at
from helenite.master.connecting import connect
from helenite.master.dumping import begin_plainly, find_space, in_database
from helenite.master.stored import decode_totals, unpack

DIRECTORY = 2
BUCKET_CHUNKS = 128
PAGE = 1000
UNUSED_MIN = 1_000
UNUSED_SHARE = 0.05
"""More chunks without a record than both are no remains of a fault: records must be missing."""

Action = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be: a sentence, and what mends it (empty: nothing does)."""

    sentence: str
    action: Action = field(default_factory=dict)
    gives_up: bool = False
    """The action makes content look unused, or is of that kind: wrong where a record was lost that named it."""


@dataclass(slots=True)
class Directory:
    """What stands directly in one directory."""

    files: int = 0
    bytes: int = 0
    children: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Audit:
    """What the snapshot holds, and what is wrong with it."""

    findings: list[Finding] = field(default_factory=list)
    table: set[ChunkHandle] = field(default_factory=set)
    unknown: set[ChunkHandle] = field(default_factory=set)
    """Chunks that records name and the table does not."""
    orphan_floor: int = 0
    mends: int = 0
    life: int = 0
    loss: str = ""
    """What shows that metadata was lost, empty when nothing does: then nothing is to be given up."""


class Auditor:
    """Counts one space in one Redis, which nobody else changes."""

    def __init__(self, url: str, space: str) -> None:
        self._prefix = f"{{{space}}}:".encode()
        self._redis = connect(in_database(url, find_space(url, space)), 60.0, 2, begin_plainly)
        self._directories: dict[int, Directory] = {}
        self._references: Counter[int] = Counter()
        self._files: set[tuple[int, int]] = set()  # id and revision of files with extents in a key of their own
        self._properties: dict[int, bool] = {}  # ids that properties are kept for; whether such an entry exists
        self._losses: list[str] = []
        self._highest_id = 0
        self._highest_sequence = 0
        self._result = Audit()

    def close(self) -> None:
        self._redis.close()

    def run(self) -> Audit:
        """Everything that can be told from the snapshot."""
        self._read_records()
        self._check_references()
        reachable = self._check_tree()
        self._check_totals(reachable)
        self._check_feed()
        self._check_counters()
        self._check_strays()
        self._result.orphan_floor = self._number("orphan_floor")
        mended = self._command("GET", "mended")
        self._result.mends = unpack(mended)[b"mends"] if mended else 0
        self._result.life = int((self._command("ZREVRANGE", "lives", 0, 0, "WITHSCORES") or (0, 0))[1])
        self._result.loss = judge_loss(self._losses, self._result)
        return self._result

    # Reading

    def _command(self, name: str, key: str, *arguments: Any) -> Any:
        return self._redis.execute_command(name, self._prefix + key.encode(), *arguments)

    def _number(self, key: str) -> int:
        return int(self._command("GET", key) or 0)

    def _keys(self, start: str) -> Iterator[str]:
        for key in self._redis.scan_iter(match=self._prefix + start.encode() + b"*", count=PAGE):
            yield key[len(self._prefix) :].decode(errors="replace")

    def _read_records(self) -> None:
        self._properties = {int(key[2:]): False for key in self._keys("x:")}
        for key in self._keys("d:"):
            directory = self._directories.setdefault(int(key[2:]), Directory())
            for _, record in self._redis.hscan_iter(self._prefix + key.encode(), count=PAGE):
                self._read(record, directory)
        for _, packed in self._redis.hscan_iter(self._prefix + b"trash", count=PAGE):
            self._read(_trashed_record(packed), None)
        for record in self._pages("gc"):
            self._read(record, None)

    def _pages(self, key: str) -> Iterator[bytes]:
        for start in range(0, int(self._command("LLEN", key)), PAGE):
            yield from self._command("LRANGE", key, start, start + PAGE - 1)

    def _read(self, record: bytes, directory: Directory | None) -> None:
        kind, flags, entry_id, revision, size, *_ = HEADER.unpack_from(record)
        self._highest_id = max(self._highest_id, entry_id)
        self._highest_sequence = max(self._highest_sequence, revision)
        if entry_id in self._properties:
            self._properties[entry_id] = True
        if kind == DIRECTORY:
            if directory is not None:
                directory.children.append(entry_id)
            return
        if directory is not None:
            directory.files += 1
            directory.bytes += size
        extents = record[extents_at(record) :]
        if flags & FLAG_OVERFLOW:
            self._files.add((entry_id, revision))
            extents = self._command("GET", f"e:{entry_id}:{revision}") or b""
            if not extents and size:
                self._lose(f"the extents of file {entry_id} are missing (key e:{entry_id}:{revision})")
        self._references.update(handle for handle, _, _ in EXTENT.iter_unpack(extents))

    def _find(self, sentence: str, *, gives_up: bool = False, **action: Any) -> None:
        self._result.findings.append(Finding(sentence, action, gives_up))

    def _lose(self, sentence: str) -> None:
        self._losses.append(sentence)
        self._find(sentence)

    # Checking

    def _check_references(self) -> None:
        kept = {int(handle): int(count) for handle, count in self._redis.hscan_iter(self._prefix + b"r", count=PAGE)}
        freed = {int(handle) for handle, _ in self._redis.zscan_iter(self._prefix + b"freed", count=PAGE)}
        for key in self._keys("c:"):
            bucket = int(key[2:]) * BUCKET_CHUNKS
            self._result.table.update(ChunkHandle(bucket + int(f)) for f in self._command("HKEYS", key))
        for handle, count in self._references.items():
            noted = kept.pop(handle, 0 if handle in freed else 1)
            if handle in freed or noted != count:
                sentence = f"is named by {count} extents, {noted} are noted"
                self._find(
                    f"chunk {handle:x} {'is in use and would be deleted' if handle in freed else sentence}",
                    gives_up=count < noted, kind="references", handle=handle, delta=count - noted,
                )  # fmt: skip
            if handle not in self._result.table:
                self._result.unknown.add(ChunkHandle(handle))
        for handle in kept:
            sentence = f"chunk {handle:x} is noted as shared and no record names it"
            self._find(sentence, gives_up=True, kind="uncount", handle=handle)
        for handle in self._result.table - self._references.keys() - freed:
            sentence = f"chunk {handle:x} is kept although no record names it"
            self._find(sentence, gives_up=True, kind="free", handle=handle)

    def _check_tree(self) -> set[int]:
        """The directories of the tree and the trash. Whoever is in neither, nor leaving, hangs in the air."""
        trashed = [_trashed_record(packed) for _, packed in self._redis.hscan_iter(self._prefix + b"trash", count=PAGE)]
        roots = [ROOT_ID, *(HEADER.unpack_from(r)[2] for r in trashed if r[0] == DIRECTORY)]
        reachable = self._beneath(roots)
        leaving = self._beneath([*map(int, self._pages("gc_dirs")), *map(int, self._command("HKEYS", "staging"))])
        hanging = self._directories.keys() - reachable - leaving - {0}
        inner = {child for directory in hanging for child in self._directories[directory].children}
        for directory in sorted(hanging - inner):
            self._find(
                f"directory {directory} with {self._directories[directory].files} files hangs in the air",
                kind="attach", id=directory,
            )  # fmt: skip
        return reachable

    def _beneath(self, roots: list[int]) -> set[int]:
        found: set[int] = set()
        waiting = list(roots)
        while waiting:
            directory = waiting.pop()
            if directory not in found:
                found.add(directory)
                waiting += self._directories.get(directory, Directory()).children
        return found

    def _check_totals(self, reachable: set[int]) -> None:
        totals: dict[int, tuple[int, int, int]] = {}
        for directory in self._children_first(reachable):
            here = self._directories.get(directory, Directory())
            inner = [totals.get(child, (0, 0, 0)) for child in here.children]
            counted = (
                here.files + sum(t[0] for t in inner),
                len(here.children) + sum(t[1] for t in inner),
                here.bytes + sum(t[2] for t in inner),
            )
            totals[directory] = counted
            packed = self._command("HGET", "q", directory)
            noted = decode_totals(packed) if packed else (0, 0, 0)
            if directory not in self._directories and any(noted):
                self._lose(f"directory {directory} is gone (key d:{directory}), its totals name {noted[0]} files")
            if noted != counted or packed is None:
                delta = [a - b for a, b in zip(counted, noted, strict=True)]
                sentence = (
                    f"directory {directory} holds {counted[0]} files of {counted[2]} bytes, its totals say otherwise"
                )
                self._find(sentence, gives_up=min(delta) < 0, kind="totals", id=directory, delta=delta)

    def _children_first(self, reachable: set[int]) -> list[int]:
        order: list[int] = []
        children = {c for d in reachable for c in self._directories.get(d, Directory()).children}
        waiting = sorted(reachable - children) or [ROOT_ID]
        seen: set[int] = set()
        while waiting:
            directory = waiting.pop()
            if directory not in seen:
                seen.add(directory)
                order.append(directory)
                waiting += self._directories.get(directory, Directory()).children
        return order[::-1]

    def _check_feed(self) -> None:
        last = self._command("XREVRANGE", "feed", "+", "-", "COUNT", 1)
        if last:
            self._highest_sequence = max(self._highest_sequence, int(last[0][0].partition(b"-")[0]))
        start = "-"
        while page := self._command("XRANGE", "feed", start, "+", "COUNT", PAGE):
            for identifier, fields in page:
                try:
                    change = unpack(fields[b"c"])
                    is_whole = len(change) in {6, 7}
                except (ValueError, TypeError, KeyError):
                    is_whole = False
                if not is_whole:
                    sentence = f"change {identifier.decode()} of the feed is damaged"
                    self._find(sentence, kind="unfeed", sequence=int(identifier.partition(b"-")[0]))
            start = f"({page[-1][0].decode()}"

    def _check_counters(self) -> None:
        highest_handle = max((*self._references, *self._result.table), default=0)
        for name, least in (
            ("seq", self._highest_sequence),
            ("next_id", self._highest_id),
            ("next_handle", highest_handle),
        ):
            if self._number(name) < least:
                self._find(f"the counter {name} is behind what was given out", kind="counter", name=name, least=least)

    def _check_strays(self) -> None:
        for key in self._keys("e:"):
            _, entry_id, revision = key.split(":")
            if (int(entry_id), int(revision)) not in self._files:
                self._find(f"the extents {key} belong to no file", kind="stray", key=key)
        for owner, is_there in self._properties.items():
            if not is_there:  # an id is given once: nobody can have come for them since the snapshot
                self._find(f"the properties x:{owner} belong to no entry", kind="stray", key=f"x:{owner}")
        locks = {token: unpack(packed) for token, packed in self._redis.hscan_iter(self._prefix + b"locks", count=PAGE)}
        for token, lock in locks.items():
            if not self._command("SISMEMBER", f"l:{lock[b'entry_id']}", token):
                self._find(f"the lock {token.decode(errors='replace')} protects nothing")


def table_action(handle: ChunkHandle, servers: list[int]) -> Action:
    """Enter a chunk that records name into the table, with the chunkservers that were found to hold it."""
    return {"kind": "enter", "handle": handle, "servers": servers}


def judge_loss(losses: list[str], found: Audit) -> str:
    """What speaks for lost records, so that what looks unused may be the content of files; empty if nothing does. Pure.

    Chunks that no record names are remains of nothing where totals also say that files are missing, or where they are
    many: single ones may be left over by a fault of ours.
    """
    if losses:
        return losses[0]
    unused = sum(finding.action.get("kind") == "free" for finding in found.findings)
    is_lowered = any(finding.gives_up and finding.action["kind"] == "totals" for finding in found.findings)
    if unused and is_lowered:
        return f"{unused} chunks are named by no record, and directories hold less than their totals say"
    if unused > max(UNUSED_MIN, UNUSED_SHARE * len(found.table)):
        return f"{unused} of {len(found.table)} chunks are named by no record"
    return ""


def _trashed_record(packed: bytes) -> bytes:
    record: bytes = unpack(packed)[b"record"]
    return record
