"""Whether what a splice makes is what its client meant: read back and hashed before it becomes visible.

Used by `patching`, when all that is new has been stored, so that the client does not wait to send while what it keeps
is read, and what is verified is what is on the disks. One request, one thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from helenite.client.chunking import Kept, Part
from helenite.client.reader import Reader
from helenite.core.errors import DigestMismatchError
from helenite.core.model import MIB, Entry

STEP_BYTES = 128 * MIB
"""Read between two signs of life: some seconds of a slow disk, a tenth of one as a rule."""


def known_digest(parts: Sequence[Part], files: Sequence[Entry]) -> bytes:
    """The SHA-256 of a result that is the whole of one file whose digest is known; else empty."""
    match parts:
        case [Kept(0, length, number)] if length == files[number].size_bytes:
            return files[number].sha256
        case _:
            return b""


def verify(reader: Reader, told: bytes) -> Iterator[None]:
    """Read everything, and compare at the end; something is yielded whenever STEP_BYTES were read.

    DigestMismatchError when it is not what the client says.
    """
    state, passed = hashlib.sha256(), 0
    for piece in reader.iterate():
        state.update(piece)
        passed += len(piece)
        if passed >= STEP_BYTES:
            passed = 0
            yield
    expect_same(state.digest(), told)


def expect_same(digest: bytes, told: bytes) -> None:
    """DigestMismatchError when what was made is not what the client says."""
    if digest != told:
        raise DigestMismatchError("the parts do not make what X-Helenite-Result-Digest says; send the whole file")
