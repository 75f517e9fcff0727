"""Trouble with a local file, in the words of the ports.

Used by `downloads`, `uploads` and `bundles`: OSError never leaves a port.
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
    UnavailableError,
)


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
