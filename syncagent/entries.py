"""What the operating system says of one entry of the local disk, and what it does to it.

Used by `folder`, by absolute names; OSError is raised as it comes. Any thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import stat
import sys

from syncagent.holes import ContentReader
from syncagent.model import Kind, LocalStamp
from syncagent.ports import Attributes

SMALL_BYTES = 64 << 10
"""Content of less is read in one piece, as long as nobody appends to it."""


def kind_of(status: os.stat_result) -> Kind | None:
    """None: nothing that is synced (a pipe, a socket, a device)."""
    if stat.S_ISREG(status.st_mode):
        return Kind.FILE
    if stat.S_ISDIR(status.st_mode):
        return Kind.DIRECTORY
    return Kind.LINK if stat.S_ISLNK(status.st_mode) else None


def stamp_from(status: os.stat_result, kind: Kind) -> LocalStamp:
    """The stamp of an entry of this kind."""
    if kind is Kind.DIRECTORY:
        return LocalStamp(status.st_ino)
    executable = kind is Kind.FILE and bool(status.st_mode & stat.S_IXUSR)
    return LocalStamp(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, executable)


def stamp_of(name: str) -> LocalStamp:
    """The stamp as it is now."""
    status = os.lstat(name)
    return stamp_from(status, kind_of(status) or Kind.FILE)


def digest_file(name: str) -> bytes:
    """SHA-256 of a file's content or a link's target."""
    if os.path.islink(name):
        return hashlib.sha256(os.fsencode(os.readlink(name))).digest()
    with open(name, "rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size < SMALL_BYTES:  # then a large buffer costs more than reading and hashing do
            digest = hashlib.sha256()
            while piece := file.read(SMALL_BYTES):
                digest.update(piece)
            return digest.digest()
        return hashlib.file_digest(ContentReader(file), "sha256").digest()


def set_attributes(name: str, attributes: Attributes, before: LocalStamp) -> LocalStamp:
    """Set what is not None; the stamp as it is then, but for the ctime."""
    status = os.lstat(name)
    mtime_ns, executable = before.mtime_ns, before.executable
    if (
        attributes.executable is not None
        and not stat.S_ISLNK(status.st_mode)
        and attributes.executable is not executable
    ):
        executable = attributes.executable
        readable = (status.st_mode & 0o444) >> 2  # as chmod +x does: whoever may read may execute
        os.chmod(name, (stat.S_IMODE(status.st_mode) & ~0o111) | (readable if executable else 0))
    if attributes.mtime_ms is not None and attributes.mtime_ms != mtime_ns // 1_000_000:
        os.utime(name, ns=(status.st_atime_ns, attributes.mtime_ms * 1_000_000), follow_symlinks=False)
        mtime_ns = attributes.mtime_ms * 1_000_000
    return before._replace(mtime_ns=mtime_ns, executable=executable)


def inherit(old: str, fresh: str) -> None:
    """A new revision keeps the permissions and extended attributes that the old one had here."""
    if os.path.islink(old) or os.path.islink(fresh):
        return
    os.chmod(fresh, stat.S_IMODE(os.lstat(old).st_mode))
    if sys.platform == "linux":
        for name in os.listxattr(old):
            with contextlib.suppress(OSError):  # some cannot be set by everybody
                os.setxattr(fresh, name, os.getxattr(old, name))


def flush_entry(name: str) -> None:
    """Make sure that it survives a power cut, if it is still there; of a directory, its names."""
    with contextlib.suppress(FileNotFoundError):
        if os.path.islink(name) or (sys.platform == "win32" and os.path.isdir(name)):
            return  # is flushed with its directory; and Windows flushes no directories
        descriptor = os.open(name, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def flush_file_system(name: str) -> bool:
    """Flush everything on the file system; False when this system cannot."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None) if sys.platform != "win32" else None
    if syncfs is None:
        return False
    descriptor = os.open(name, os.O_RDONLY)
    try:
        return int(syncfs(descriptor)) == 0
    finally:
        os.close(descriptor)
