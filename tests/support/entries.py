"""Short words for mutations in tests of the namespace."""

from __future__ import annotations

from helenite.core.model import ChunkHandle, Condition, Entry, Extent, Location, LockScope, ServerId
from helenite.core.paths import Path, parse_path
from helenite.master.mutations import AcquireLock, Commit, Copy, MakeDirectory, Move, Outcome, Remove
from helenite.master.namespace import Namespace
from helenite.master.stored import Needed

SERVERS = (ServerId(1), ServerId(2), ServerId(3))
ANY = Condition()
NEEDED = Needed(3, frozenset(map(ServerId, range(1, 10))))
"""Three other replicas, and everybody is alive."""


def at(text: str) -> Path:
    return parse_path(text)


def fresh_commit(namespace: Namespace, text: str, chunks: int = 1, condition: Condition = ANY) -> Commit:
    """A commit of a file of `chunks` new chunks of 100 bytes."""
    first = namespace.next_handles(max(1, chunks))
    extents = tuple(Extent(first + i, 0, 100) for i in range(chunks))
    fresh = tuple(Location(extent.handle, SERVERS, b"") for extent in extents)
    return Commit(at(text), 100 * chunks, extents, fresh, 0, condition)


def put(namespace: Namespace, text: str, chunks: int = 1, condition: Condition = ANY) -> Entry:
    """Create or overwrite a file."""
    return entry_of(namespace.apply(fresh_commit(namespace, text, chunks, condition)))


def mkdir(namespace: Namespace, text: str, condition: Condition = ANY) -> Entry:
    return entry_of(namespace.apply(MakeDirectory(at(text), 0, condition)))


def remove(namespace: Namespace, text: str, condition: Condition = ANY) -> Outcome:
    return namespace.apply(Remove(at(text), condition))


def move(
    namespace: Namespace, source: str, target: str, *, overwrite: bool = False, condition: Condition = ANY
) -> Outcome:
    return namespace.apply(Move(at(source), at(target), overwrite, condition))


def copy(
    namespace: Namespace,
    source: str,
    target: str,
    *,
    overwrite: bool = False,
    is_shallow: bool = False,
    condition: Condition = ANY,
) -> Outcome:
    return namespace.apply(Copy(at(source), at(target), overwrite, is_shallow, condition))


def lock(
    namespace: Namespace,
    text: str,
    token: str,
    *,
    is_infinite: bool = False,
    scope: LockScope = LockScope.EXCLUSIVE,
    timeout_s: int = 3600,
    condition: Condition = ANY,
) -> Outcome:
    return namespace.apply(AcquireLock(at(text), token, scope, is_infinite, b"<owner/>", timeout_s, condition))


def holding(*tokens: str, principal: str = "") -> Condition:
    """The condition of someone who submits these lock tokens."""
    return Condition(tokens=tokens, principal=principal)


def names(namespace: Namespace, text: str) -> list[str]:
    return sorted(stored.name for stored in namespace.list_directory(at(text)).entries)


def entry_of(outcome: Outcome) -> Entry:
    assert outcome.entry is not None
    return outcome.entry


def ordered(namespace: Namespace, server: ServerId, needed: Needed = NEEDED) -> list[ChunkHandle]:
    """What the server is told to delete."""
    epoch = int(namespace._store.command("GET", "epoch"))
    return namespace.take_deletions(server, 100_000, needed, epoch)[0]
