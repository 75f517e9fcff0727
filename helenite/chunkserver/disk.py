"""Steps on the file system that say in our errors what went wrong.

Used by `segments`, `chunk_files` and `store`. ENOSPC and EDQUOT mean that the disk is full; everything else that the
operating system refuses means trouble with the disk.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helenite.core.errors import ChunkCorruptError, InsufficientStorageError, UnavailableError

Buffer = bytes | bytearray | memoryview


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Translate OSError; `what` says what was tried."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise InsufficientStorageError(f"{what}: the disk is full") from error
        raise UnavailableError(f"{what}: the disk reports {error.strerror}") from error


def write_all(descriptor: int, pieces: list[Buffer], offset: int) -> None:
    """Write the pieces one after the other from `offset`."""
    views = [memoryview(piece) for piece in pieces if len(piece)]
    while views:
        count = os.pwritev(descriptor, views[:64], offset)
        offset += count
        while views and count >= len(views[0]):
            count -= len(views.pop(0))
        if count:
            views[0] = views[0][count:]


def read_exactly(descriptor: int, length: int, offset: int) -> memoryview:
    """`length` bytes from `offset`; ChunkCorruptError when the file ends before."""
    whole = memoryview(bytearray(length))
    at = 0
    while at < length:
        count = os.preadv(descriptor, [whole[at:]], offset + at)
        if count == 0:
            raise ChunkCorruptError("the replica's file is cut short")
        at += count
    return whole


def sync_directory(path: Path) -> None:
    """Make renames and new names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
