"""Short hashes of the pieces of a large file, whose borders its content decides; and what two files have in common.

Used by `uploads`: the signature of the content that the server has, compared with that of what the file holds now, says
which ranges need not be sent. Borders are found by FastCDC (Xia et al., USENIX ATC 2016), so that an insertion moves
them along and only the pieces around it are new. Pieces are compared by 128 bits of SHA-256: whoever could make two
pieces that collide could have a wrong file put together, and SHA-256 costs less than reading the file does. Pure but
for reading the stream it is given.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol, cast

from pyfastcdc import FastCDC

AVERAGE_BYTES = (64 << 10, 4 << 20)
"""Of a piece before its border is looked for: the least, and the most that FastCDC can do."""
PIECES_AIM = 8192
"""Larger files get larger pieces, so that a signature stays under a megabyte up to 32 GiB."""
HASH_BYTES = 16
_PIECE = struct.Struct(f">I{HASH_BYTES}s")


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a file; it begins where the one before it ends."""

    length: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Signature:
    """All pieces of a file, found with this average."""

    average_bytes: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """`length` bytes of the new content that the old one has at `offset`."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Fresh:
    """`length` bytes at `offset` of the new content that the old one does not have."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Zeros:
    """`length` zeros of the new content, which are a hole there."""

    length: int


Part = Kept | Fresh | Zeros


def choose_average(size: int) -> int:
    """The average for a file of so many bytes: a power of two."""
    least, most = AVERAGE_BYTES
    return min(most, max(least, 1 << (size // PIECES_AIM).bit_length()))


class Stream(Protocol):
    """What is read to be signed."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """The next bytes, into part of the buffer; 0 at the end."""
        ...


def sign(stream: Stream, average_bytes: int, state: hashlib._Hash | None = None) -> Signature:
    """The signature of a stream; all of it goes into `state` too."""
    pieces: list[Piece] = []
    for chunk in FastCDC(average_bytes).cut_stream(cast("BinaryIO", stream)):
        if state is not None:
            state.update(chunk.data)
        pieces.append(Piece(chunk.length, hash_piece(chunk.data)))
    return Signature(average_bytes, tuple(pieces))


def hash_piece(data: bytes | memoryview) -> bytes:
    """What pieces are compared by."""
    return hashlib.sha256(data).digest()[:HASH_BYTES]


def compare(old: Signature, new: Signature) -> list[Kept | Fresh]:
    """What the new content is made of, in order; neighbours that are one range are one part."""
    starts = _starts(old.pieces)
    known: dict[Piece, int] = {}
    for index, piece in enumerate(old.pieces):
        known.setdefault(piece, index)
    parts: list[Kept | Fresh] = []
    at, following = 0, -1
    for piece in new.pieces:
        # Of equal pieces (zeros, say) the one that continues the range, so that there are few ranges.
        continues = 0 <= following < len(old.pieces) and old.pieces[following] == piece
        index = following if continues else known.get(piece, -1)
        _append(parts, Fresh(at, piece.length) if index < 0 else Kept(starts[index], piece.length))
        following = index + 1 if index >= 0 else -1
        at += piece.length
    return parts


def _append(parts: list[Kept | Fresh], part: Kept | Fresh) -> None:
    last = parts[-1] if parts else None
    if last is not None and type(last) is type(part) and last.offset + last.length == part.offset:
        parts[-1] = type(part)(last.offset, last.length + part.length)
    else:
        parts.append(part)


def _starts(pieces: Sequence[Piece]) -> list[int]:
    starts, at = [], 0
    for piece in pieces:
        starts.append(at)
        at += piece.length
    return starts


def pieces_within(signature: Signature, parts: Iterable[Fresh]) -> Iterator[tuple[int, Piece]]:
    """The pieces that make up parts of the new content, in its order, each with where it begins."""
    wanted = iter(parts)
    part = next(wanted, None)
    at = 0
    for piece in signature.pieces:
        if part is None:
            return
        if at >= part.offset:
            yield at, piece
        at += piece.length
        if at >= part.offset + part.length:
            part = next(wanted, None)


def encode(signature: Signature) -> bytes:
    """As bytes, for a file."""
    return b"".join(_PIECE.pack(piece.length, piece.hash) for piece in signature.pieces)


def decode(average_bytes: int, packed: bytes) -> Signature:
    """What `encode` wrote; ValueError when it did not."""
    if len(packed) % _PIECE.size:
        raise ValueError(f"{len(packed)} bytes are no signature")
    return Signature(average_bytes, tuple(Piece(*fields) for fields in _PIECE.iter_unpack(packed)))
