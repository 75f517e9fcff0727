"""Recount a space from its raw keys: what the reference counts, totals and the chunk table must be.

An auditor that shares no code with the scripts: it reads whole keys with plain commands.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator

from helenite.core.record import EXTENT, HEADER
from helenite.master.store import Store
from helenite.master.stored import unpack

DIRECTORY = 2
OVERFLOW = 1
DIGEST = 4
CONSTANTS = {
    "cluster",
    "d:0",
    "q",
    "seq",
    "next_id",
    "next_handle",
    "life",
    "lives",
    "feed_gaps",
    "last_server",
    "feed",
    "epoch",
    "leader",
    "trash_floor",
}
"""Keys that an empty space may have."""


def keys(store: Store) -> set[str]:
    """All keys of the space without its prefix, except outcomes that expire by themselves."""
    found = store._client.keys(store.prefix.replace("[", "\\[") + "*")
    names = {key.decode(errors="replace").removeprefix(store.prefix) for key in found}
    return {name for name in names if not name.startswith("op:")}


def records(store: Store) -> Iterator[bytes]:
    """Every record that there is: in directories of all kinds, in the trash, queued for release."""
    for key in keys(store):
        if key.startswith("d:"):
            yield from store.command("HVALS", key)
    for packed in store.command("HVALS", "trash"):
        yield unpack(packed)[b"record"]
    yield from store.command("LRANGE", "gc", 0, -1)


def count_references(store: Store) -> Counter[int]:
    """How many extents name each chunk."""
    counts: Counter[int] = Counter()
    for record in records(store):
        if record[0] == DIRECTORY:
            continue
        extents = record[HEADER.size + (32 if record[1] & DIGEST else 0) :]
        if record[1] & OVERFLOW:
            _, _, entry_id, revision, *_ = HEADER.unpack_from(record)
            extents = store.command("GET", f"e:{entry_id}:{revision}")
        counts.update(handle for handle, _, _ in EXTENT.iter_unpack(extents))
    return counts


def audit(store: Store) -> None:
    """Raise AssertionError where the books are wrong."""
    counted = count_references(store)
    kept = {int(handle): int(count) for handle, count in store.command("HGETALL", "r").items()}
    assert kept == {handle: count for handle, count in counted.items() if count > 1}
    table = set(chunk_table(store))
    freed = {int(handle) for handle in store.command("ZRANGE", "freed", 0, -1)}
    assert set(counted) | freed == table, "each chunk is referenced or being freed"
    assert not set(counted) & freed, "no referenced chunk is being freed"
    for key in keys(store):
        if key.startswith("del:"):
            assert not {int(handle) for handle in store.command("SMEMBERS", key)} & table
    _audit_totals(store, 1)
    _audit_locks(store)


def chunk_table(store: Store) -> Iterator[int]:
    for key in keys(store):
        if key.startswith("c:"):
            for field in store.command("HKEYS", key):
                yield int(key[2:]) * 128 + int(field)


def _audit_totals(store: Store, directory: int) -> tuple[int, int, int, int]:
    """Recount a directory's subtree; returns its sequence and totals."""
    files = directories = size = highest = 0
    for record in store.command("HVALS", f"d:{directory}"):
        _, _, entry_id, revision, size_bytes, *_ = HEADER.unpack_from(record)
        if record[0] == DIRECTORY:
            sequence, f, d, b = _audit_totals(store, entry_id)
            files, directories, size = files + f, directories + d + 1, size + b
            highest = max(highest, sequence)
        else:
            files, size, highest = files + 1, size + size_bytes, max(highest, revision)
    kept = struct.unpack(">4Q", store.command("HGET", "q", directory))
    assert kept[1:] == (files, directories, size), f"totals of directory {directory}"
    assert kept[0] >= highest, f"sequence of directory {directory}"
    return kept


def _audit_locks(store: Store) -> None:
    by_entry: dict[str, set[bytes]] = {}
    for token, packed in store.command("HGETALL", "locks").items():
        lock = unpack(packed)
        by_entry.setdefault(f"l:{lock[b'entry_id']}", set()).add(token)
        for directory in lock[b"ids"]:
            by_entry.setdefault(f"b:{directory}", set()).add(token)
    for key in keys(store):
        if key.startswith("l:"):
            assert set(store.command("SMEMBERS", key)) == by_entry.pop(key)
    for key, tokens in by_entry.items():
        assert key.startswith("b:"), key
        assert tokens <= set(store.command("SMEMBERS", key))
