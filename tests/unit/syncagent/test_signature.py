"""Signatures: what two contents have in common, found by pieces whose borders the content decides."""

from __future__ import annotations

import hashlib
import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncagent.signature import (
    Fresh,
    Kept,
    Part,
    Piece,
    Signature,
    choose_average,
    compare,
    decode,
    encode,
    hash_piece,
    pieces_within,
    sign,
)

AVERAGE = 64 << 10
CONTENT = random.Random(1).randbytes(3 << 20)


def signed(content: bytes) -> Signature:
    return sign(io.BytesIO(content), AVERAGE)


def put_together(parts: list[Part], old: bytes, new: bytes) -> bytes:
    return b"".join(
        old[part.offset : part.offset + part.length]
        if isinstance(part, Kept)
        else new[part.offset : part.offset + part.length]
        for part in parts
    )


def fresh_bytes(parts: list[Part]) -> int:
    return sum(part.length for part in parts if isinstance(part, Fresh))


def test_a_signature_has_all_of_a_file() -> None:
    state = hashlib.sha256()
    signature = sign(io.BytesIO(CONTENT), AVERAGE, state)
    assert state.digest() == hashlib.sha256(CONTENT).digest()
    at = 0
    for piece in signature.pieces:
        assert hash_piece(CONTENT[at : at + piece.length]) == piece.hash
        at += piece.length
    assert at == len(CONTENT)
    assert decode(AVERAGE, encode(signature)) == signature
    assert sign(io.BytesIO(b""), AVERAGE) == Signature(AVERAGE, ())


def test_what_is_no_signature() -> None:
    with pytest.raises(ValueError, match="no signature"):
        decode(AVERAGE, b"x" * 21)


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("changed in the middle", CONTENT[:1_000_000] + bytes(4096) + CONTENT[1_004_096:]),
        ("inserted at the start", bytes(4096) + CONTENT),
        ("appended", CONTENT + bytes(4096)),
        ("cut at the start", CONTENT[5000:]),
        ("a stretch taken out", CONTENT[:500_000] + CONTENT[700_000:]),
        ("halves exchanged", CONTENT[1_500_000:] + CONTENT[:1_500_000]),
    ],
)
def test_only_what_is_around_a_change_is_fresh(name: str, new: bytes) -> None:
    parts = compare(signed(CONTENT), signed(new))
    assert put_together(parts, CONTENT, new) == new
    assert fresh_bytes(parts) <= 8 * AVERAGE, name
    assert len(parts) <= 5


def test_equal_pieces_make_few_ranges() -> None:
    zeros = bytes(20 << 20)
    parts = compare(signed(zeros), signed(zeros + b"x"))
    assert len(parts) <= 3
    assert put_together(parts, zeros, zeros + b"x") == zeros + b"x"


@settings(max_examples=60)
@given(st.lists(st.integers(0, 5), max_size=30), st.lists(st.integers(0, 7), max_size=30))
def test_whatever_two_signatures_are_the_parts_make_the_new_content(old: list[int], new: list[int]) -> None:
    def made(numbers: list[int]) -> tuple[Signature, bytes]:
        pieces = [bytes([number]) * (number + 1) for number in numbers]
        return Signature(1, tuple(Piece(len(data), hash_piece(data)) for data in pieces)), b"".join(pieces)

    (old_signature, old_content), (new_signature, new_content) = made(old), made(new)
    parts = compare(old_signature, new_signature)
    assert put_together(parts, old_content, new_content) == new_content
    assert fresh_bytes(parts) == sum(number + 1 for number in new if number not in old)
    fresh = [part for part in parts if isinstance(part, Fresh)]
    within = list(pieces_within(new_signature, fresh))
    assert sum(piece.length for _, piece in within) == fresh_bytes(parts)
    assert all(hash_piece(new_content[at : at + piece.length]) == piece.hash for at, piece in within)


def test_larger_files_have_larger_pieces() -> None:
    sizes = [1, 256 << 20, 1 << 30, 32 << 30, 1 << 50]
    found = [choose_average(size) for size in sizes]
    assert found == sorted(found)
    assert (found[1], found[-1]) == (64 << 10, 4 << 20)
    assert all(average & (average - 1) == 0 for average in found)
