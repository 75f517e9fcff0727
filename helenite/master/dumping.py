"""Metadata out of Redis and into Redis: a consistent snapshot while everything runs, and the way back.

`snapshot` takes the part of a replica that has just been told SYNC: Redis forks and sends its data as of one moment, so
that nothing is held up and no mutation is half in it. `load` copies one space from a Redis that was started on such a
snapshot. Used by the Admin service and by `helenite load`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import msgpack

from helenite.core.clock import Clock
from helenite.core.dumpfile import PIECE_BYTES
from helenite.core.errors import PreconditionFailedError, UnavailableError
from helenite.master.connecting import connect

SNAPSHOT_S = 600.0
"""Patience with Redis between two pieces: it forks, and may wait for a snapshot that is under way."""
BATCH = 200
"""Keys copied in one round trip."""
EPOCHS_AHEAD = 1000
"""A leader of before the load must be refused, however many were elected after the dump."""
FLEETING = (b"leader", b"members", b"progress", b"op:")
"""What tells about processes or expires; it is not loaded."""


SIGNS_OF_USE = (b"d:1", b"trash", b"users", b"freed")
"""What an empty namespace, as a cluster that was started on an empty Redis leaves it, does not have."""


def snapshot(connection: socket.socket) -> Iterator[bytes]:
    """Redis' snapshot over a fresh connection that has been authenticated; the caller closes it."""
    connection.settimeout(SNAPSHOT_S)
    connection.sendall(b"SYNC\r\n")
    with connection.makefile("rb", PIECE_BYTES) as stream:
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


class Loader:
    """Copies one space from one Redis to another."""

    def __init__(self, source_url: str, target_url: str, space: str) -> None:
        self._prefix = f"{{{space}}}:".encode()
        self._source = connect(source_url, 60.0, 4, _plain)
        self._target = connect(target_url, 60.0, 4, _plain)

    def close(self) -> None:
        self._source.close()
        self._target.close()

    def count(self) -> int:
        """Keys of the space in the source."""
        return sum(1 for _ in self._keys(self._source))

    def prepare(self, *, replace: bool) -> None:
        """Make sure that nobody is using the target and that it is empty; PreconditionFailedError says what to do."""
        if self._target.exists(self._prefix + b"leader"):
            raise PreconditionFailedError("a master is using this Redis: stop all masters first")
        is_used = any(self._target.exists(self._prefix + key) for key in SIGNS_OF_USE)
        if is_used and not replace:
            raise PreconditionFailedError("there is metadata in this Redis already; --replace throws it away")
        for batch in _batches(self._keys(self._target)):
            self._target.unlink(*batch)

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
        last.incrby(self._prefix + b"epoch", EPOCHS_AHEAD)
        last.set(self._prefix + b"life", "loaded")  # no Redis process is called so: all counters leap at the next start
        stopped = {"since_ms": Clock().now_ms(), "reason": reason}
        last.set(self._prefix + b"gc_stopped", msgpack.packb(stopped))
        last.execute()
        return copied

    def _keys(self, client: Any) -> Iterator[bytes]:
        pattern = self._prefix.replace(b"[", b"\\[") + b"*"
        yield from client.scan_iter(match=pattern, count=1000)


def _plain(connection: Any) -> None:
    """No leap of counters for a connection that only copies."""
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
