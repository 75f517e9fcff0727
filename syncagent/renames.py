"""Renames that never replace anything by accident, and the exchange of two names in one step.

Used by `folder`. Linux has both (renameat2), macOS too (renamex_np); elsewhere the best that the system offers is done,
with a window that the function's docstring names. Any thread.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable

_AT_FDCWD = -100
_LINUX_NO_REPLACE, _LINUX_EXCHANGE = 1, 2
_MAC_SWAP, _MAC_EXCL = 2, 4
_UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}


def _system_rename() -> tuple[Callable[[bytes, bytes, int], int], int, int] | None:
    """The system's rename with flags, and its flags for "do not replace" and "exchange"."""
    if sys.platform not in {"linux", "darwin"}:
        return None
    library = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        return getattr(library, "renamex_np", None) and (library.renamex_np, _MAC_EXCL, _MAC_SWAP)
    function = getattr(library, "renameat2", None)
    if function is None:
        return None

    def rename(source: bytes, target: bytes, flags: int) -> int:
        return int(function(_AT_FDCWD, source, _AT_FDCWD, target, flags))

    return rename, _LINUX_NO_REPLACE, _LINUX_EXCHANGE


_SYSTEM = _system_rename()


def _rename_with(source: str, target: str, *, exchange: bool) -> bool:
    """Whether the system and the file system can do it; OSError when they can and it failed."""
    if _SYSTEM is None:
        return False
    function, no_replace, swap = _SYSTEM
    if function(os.fsencode(source), os.fsencode(target), swap if exchange else no_replace) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), source, None, target)


def exchange(one: str, other: str) -> bool:
    """Let two entries exchange their names in one step; False when this file system cannot, and nothing happened."""
    return _rename_with(one, other, exchange=True)


def move_to_free_name(source: str, target: str) -> None:
    """Rename; FileExistsError when the target exists.

    Without help of the system: of a file, a second link is made, which cannot replace anything, and the first removed;
    of a directory, an empty one that appears at the target in the same microsecond is replaced.
    """
    if _rename_with(source, target, exchange=False):
        return
    if sys.platform == "win32":
        os.rename(source, target)
    elif os.path.isdir(source) and not os.path.islink(source):
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        os.rename(source, target)
    else:
        os.link(source, target, follow_symlinks=False)
        os.unlink(source)
