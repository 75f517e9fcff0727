"""What a splice makes, hashed in the order of the file: ranges that are kept are read for it, new bytes as they come.

Used by `patching`, so that a digest which a client tells of the whole result is kept only when it is right. One
request, one thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from helenite.client.chunking import Fresh, Part
from helenite.client.reader import Reader
from helenite.core.errors import DigestMismatchError


class ResultDigest:
    """The SHA-256 of the parts of a splice, and what it should be."""

    def __init__(self, told: bytes, parts: Iterable[Part], files: Sequence[Reader]) -> None:
        """`files` are those that Kept parts are of, by their numbers."""
        self._told = told
        self._parts = iter(parts)
        self._files = files
        self._state = hashlib.sha256()
        self._room = 0
        """Bytes that still belong to the present Fresh part."""

    def update(self, data: bytes) -> None:
        """The next of the new bytes; whether they are too many or too few is for the splicer to find."""
        view = memoryview(data)
        while len(view) > 0:
            if self._room == 0:
                self._advance()
            if self._room == 0:
                return
            piece, view = view[: self._room], view[self._room :]
            self._room -= len(piece)
            self._state.update(piece)

    def verified(self) -> bytes:
        """The digest, when all new bytes have come; DigestMismatchError when it is another than was told."""
        self._advance()
        if self._state.digest() != self._told:
            raise DigestMismatchError("the parts do not make what X-Helenite-Result-Digest says; send the whole file")
        return self._told

    def _advance(self) -> None:
        """Read what is kept, up to the next part that comes from outside or to the end."""
        for part in self._parts:
            if isinstance(part, Fresh):
                self._room = part.length
                return
            for piece in self._files[part.file].iterate(part.offset, part.length):
                self._state.update(piece)
