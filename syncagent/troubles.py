"""Trouble with a local file, in the words of the ports.

Used by `downloads`, `uploads`, `partwise` and `bundles`: OSError never leaves a port.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as FilePath

from helenite.core.errors import (
    EntryNotFoundError,
    HeleniteError,
    InsufficientStorageError,
    PermissionDeniedError,
    PreconditionFailedError,
    UnavailableError,
)
from syncagent.model import LocalStamp


def expect_state(file: FilePath, stamp: LocalStamp) -> None:
    """PreconditionFailedError when a file is not in the state that the stamp tells."""
    with translated(file):
        status = file.lstat()
    found = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if found != (stamp.inode, stamp.size, stamp.mtime_ns, stamp.ctime_ns):
        raise PreconditionFailedError(f"{file.name} was changed while it was sent")


@contextmanager
def translated(file: FilePath) -> Iterator[None]:
    """Raise what the operating system says of a file as an error of ours."""
    try:
        yield
    except FileNotFoundError as error:
        raise EntryNotFoundError(f"{file.name} is gone") from error
    except PermissionError as error:
        raise PermissionDeniedError(f"{file.name} cannot be read") from error
    except OSError as error:
        is_full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        found: type[HeleniteError] = InsufficientStorageError if is_full else UnavailableError
        raise found(f"{file.name}: {error.strerror or error}") from error
