"""Metadata out of Redis and into Redis: a consistent snapshot while everything runs, and the way back.

`snapshot` takes the part of a replica that has just been told SYNC: Redis forks and sends its data as of one moment, so
that nothing is held up and no mutation is half in it. `load` copies one space from a Redis that was started on such a
snapshot. Used by the Admin service and by `helenite load`.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgpack

from helenite.core.clock import Clock
from helenite.core.dumpfile import PIECE_BYTES
from helenite.core.errors import PreconditionFailedError, UnavailableError
from helenite.master.connecting import ResponseError, connect, redis_errors

SNAPSHOT_S = 600.0
"""Patience with Redis between two pieces: it forks, and may wait for a snapshot that is under way."""
BATCH = 200
"""Keys copied in one round trip."""
EPOCHS_AHEAD = 1000
"""A leader of before the load must be refused, however many were elected after the dump."""
FLEETING = (b"leader", b"members", b"progress", b"gc_waits", b"op:", b"del:", b"surplus:", b"loading")
"""What tells about processes or expires, and deletions ordered before the dump: a server may have got that replica back
since, and it may be the last one. It is not loaded; chunk reports tell what is surplus."""
LEASE_S = 4.0
"""A leader's lease that nobody renews is over by then."""

SIGNS_OF_USE = (b"d:1", b"trash", b"users", b"freed")
"""What an empty namespace, as a cluster that was started on an empty Redis leaves it, does not have."""


def snapshot(connection: socket.socket) -> Iterator[bytes]:
    """Redis' snapshot over a fresh connection that has been authenticated; the caller closes it."""
    connection.settimeout(SNAPSHOT_S)
    # From Redis 7 on, no stream of commands is wanted behind the snapshot, so that Redis collects none while a slow
    # receiver takes it (and would end the connection over it). An older one refuses, and the end of the snapshot tells.
    connection.sendall(b"REPLCONF rdb-only 1\r\n")
    with connection.makefile("rb", PIECE_BYTES) as stream:
        stream.readline(256)
        connection.sendall(b"SYNC\r\n")  # not earlier: Redis refuses it while an answer is pending
        head = b"\n"
        while head == b"\n":  # a sign of life while Redis prepares
            head = stream.readline(256)
        if head.startswith(b"$EOF:"):
            yield from _until_mark(stream, head[5:].strip())
        elif head.startswith(b"$"):
            yield from _exactly(stream, int(head[1:]))
        else:
            raise UnavailableError(f"Redis gives no snapshot: {head.decode(errors='replace').strip() or 'it hung up'}")


def _exactly(stream: Any, length: int) -> Iterator[bytes]:
    while length:
        piece = stream.read1(min(PIECE_BYTES, length))
        if not piece:
            raise UnavailableError("Redis ended the connection within its snapshot")
        length -= len(piece)
        yield piece


def _until_mark(stream: Any, mark: bytes) -> Iterator[bytes]:
    """The snapshot before the mark, which may arrive in two pieces."""
    held = b""
    while True:
        piece = stream.read1(PIECE_BYTES)
        if not piece:
            raise UnavailableError("Redis ended the connection within its snapshot")
        held += piece
        if held.endswith(mark):
            yield held[: -len(mark)]
            return
        yield held[: -len(mark)]
        held = held[-len(mark) :]


def find_space(url: str, space: str) -> int:
    """The database of a Redis, started on a snapshot, in which a space lies; PreconditionFailedError without one."""
    client = connect(url, 60.0, 1, begin_plainly)
    try:
        for name in client.info("keyspace"):
            database = int(name.removeprefix("db"))
            client.execute_command("SELECT", database)
            if client.exists(f"{{{space}}}:cluster"):
                return database
    finally:
        client.close()
    raise PreconditionFailedError(f"the dump holds no namespace {space!r}")


def in_database(url: str, database: int) -> str:
    """The URL of an embedded Redis with another database."""
    return f"{url.partition('?')[0]}?db={database}"


class Loader:
    """Copies one space from one Redis to another. UnavailableError when one of them does not answer."""

    @redis_errors()
    def __init__(self, source_url: str, target_url: str, space: str) -> None:
        self._prefix = f"{{{space}}}:".encode()
        self._source = connect(in_database(source_url, find_space(source_url, space)), 60.0, 4, begin_plainly)
        self._target = connect(target_url, 60.0, 4, begin_plainly)
        self._epoch = 0

    def close(self) -> None:
        self._source.close()
        self._target.close()

    @redis_errors()
    def count(self) -> int:
        """Keys of the space in the source."""
        return sum(1 for _ in self._keys(self._source))

    @redis_errors()
    def prepare(self, *, replace: bool) -> None:
        """Make sure that nobody is using the target and empty it; PreconditionFailedError says what to do.

        From then on no master starts on it until the load is complete.
        """
        self._refuse_masters()
        loading = self._target.get(self._prefix + b"loading")  # an earlier load was interrupted: nothing to lose
        is_used = any(self._target.exists(self._prefix + key) for key in SIGNS_OF_USE)
        if is_used and not replace and loading is None:
            raise PreconditionFailedError("there is metadata in this Redis already; --replace throws it away")
        self._try_format()
        self._epoch = max(int(loading or 0), int(self._target.get(self._prefix + b"epoch") or 0))
        self._target.set(self._prefix + b"loading", self._epoch)
        for batch in _batches(self._keys(self._target)):
            old = [key for key in batch if key != self._prefix + b"loading"]
            if old:
                self._target.unlink(*old)

    def _refuse_masters(self) -> None:
        deadline = time.monotonic() + LEASE_S
        while self._target.exists(self._prefix + b"leader"):
            if time.monotonic() > deadline:
                raise PreconditionFailedError("a master is using this Redis: stop all masters first")
            threading.Event().wait(0.1)

    def _try_format(self) -> None:
        """Nothing is thrown away for a dump that the target cannot take."""
        trial = self._prefix + b"op:load"
        try:
            self._target.restore(trial, 60_000, self._source.dump(self._prefix + b"cluster"), replace=True)
        except ResponseError as error:
            raise PreconditionFailedError(
                f"this Redis does not take the dump; it needs the version that wrote it or a newer one ({error})"
            ) from error
        self._target.delete(trial)

    @redis_errors()
    def load(self, reason: str, on_batch: Callable[[int], None]) -> int:
        """Copy everything that outlives processes; nothing is deleted afterwards until a person agrees. Keys copied."""
        copied = 0
        for batch in _batches(self._keys(self._source)):
            lasting = [key for key in batch if not key[len(self._prefix) :].startswith(FLEETING)]
            reading = self._source.pipeline(transaction=False)
            for key in lasting:
                reading.dump(key)
            writing = self._target.pipeline(transaction=False)
            for key, packed in zip(lasting, reading.execute(), strict=True):
                writing.restore(key, 0, packed, replace=True)
            writing.execute()
            copied += len(lasting)
            on_batch(len(batch))
        last = self._target.pipeline(transaction=True)
        epoch = max(self._epoch, int(self._target.get(self._prefix + b"epoch") or 0)) + EPOCHS_AHEAD
        last.set(self._prefix + b"epoch", epoch)
        last.set(self._prefix + b"life", "loaded")  # no Redis process is called so: all counters leap at the next start
        stopped = {"since_ms": Clock().now_ms(), "reason": reason}
        last.set(self._prefix + b"gc_stopped", msgpack.packb(stopped))
        last.unlink(self._prefix + b"loading")
        last.execute()
        return copied

    def _keys(self, client: Any) -> Iterator[bytes]:
        pattern = self._prefix.replace(b"[", b"\\[") + b"*"
        yield from client.scan_iter(match=pattern, count=1000)


def begin_plainly(connection: Any) -> None:
    """No leap of counters for a connection that only reads or copies."""
    connection.on_connect()


def _batches(keys: Iterator[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for key in keys:
        batch.append(key)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
