"""Steps on the file system that say in our errors what went wrong.

Used by all modules that store. ENOSPC and EDQUOT mean that the disk is full; bytes that the disk refuses to give mean
that a replica is unreadable now, which passes more often than not; a file that ends too early is damaged; everything
else that the operating system refuses means trouble with the disk or with this process.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helenite.core.errors import (
    ChunkCorruptError,
    InsufficientStorageError,
    ReplicaUnreadableError,
    UnavailableError,
)

Buffer = bytes | bytearray | memoryview
PIECES_MAX = 64
"""Buffers handed to one pwritev; the kernel takes 1,024."""
DISK_REFUSES = frozenset({errno.EIO, errno.EUCLEAN, errno.EBADMSG, errno.ENODATA, errno.EILSEQ})
"""What Linux says for a bad sector, a broken device, a damaged file system."""
_OUR_OWN = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})
"""This process lacks something: it says nothing about the disk."""


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Translate OSError; `what` says what was tried."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise InsufficientStorageError(f"{what}: the disk is full") from error
        raise UnavailableError(f"{what}: the disk reports: {error.strerror}") from error


@contextmanager
def read_errors(what: str) -> Iterator[None]:
    """Translate OSError of looking at a replica: it is unreadable, unless this process is what lacks something."""
    try:
        yield
    except OSError as error:
        if error.errno in _OUR_OWN:
            raise UnavailableError(f"{what}: {error.strerror}") from error
        raise ReplicaUnreadableError(f"{what}: the disk reports: {error.strerror}") from error


def write_all(descriptor: int, pieces: list[Buffer], offset: int) -> None:
    """Write the pieces one after the other from `offset`."""
    views = [memoryview(piece) for piece in pieces if len(piece)]
    while views:
        count = os.pwritev(descriptor, views[:PIECES_MAX], offset)
        offset += count
        while views and count >= len(views[0]):
            count -= len(views.pop(0))
        if count:
            views[0] = views[0][count:]


def read_exactly(descriptor: int, length: int, offset: int) -> memoryview:
    """`length` bytes from `offset`.

    ChunkCorruptError when the file ends before, ReplicaUnreadableError when the disk does not give them.
    """
    whole = memoryview(bytearray(length))
    at = 0
    with read_errors("reading a replica"):
        while at < length:
            count = os.preadv(descriptor, [whole[at:]], offset + at)
            if count == 0:
                raise ChunkCorruptError("a replica's file is cut short")
            at += count
    return whole


def sync_directory(path: Path) -> None:
    """Make renames and new names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, content: bytes) -> None:
    """Give a small file this content, whole or not at all, whatever happens meanwhile."""
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)
