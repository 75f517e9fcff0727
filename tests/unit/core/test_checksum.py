"""Checksums: pieces or whole, the same; a changed bit is found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helenite.core.checksum import (
    CHECKSUM_BYTES,
    BlockChecksums,
    block_checksums,
    block_count,
    digest,
    verify_blocks,
)
from helenite.core.errors import ChunkCorruptError
from helenite.core.model import BLOCK_BYTES


@pytest.mark.parametrize(
    ("length", "blocks"), [(0, 0), (1, 1), (BLOCK_BYTES, 1), (BLOCK_BYTES + 1, 2), (64 * 1024 * 1024, 1024)]
)
def test_every_started_block_counts(length: int, blocks: int) -> None:
    assert block_count(length) == blocks


def test_known_values() -> None:
    """What lies on disks: these may never change."""
    assert block_checksums(b"helenite").hex() == "78204d37411fbea9"
    assert digest(block_checksums(b"helenite")).hex() == "cecea59b5d830b61"


@given(st.data(), st.integers(0, 5 * BLOCK_BYTES))
def test_pieces_of_any_size_give_the_same(data: st.DataObject, length: int) -> None:
    content = memoryview(bytes(index * 31 % 251 for index in range(256)) * (length // 256 + 1))[:length]
    places = st.integers(0, length) | st.just(min(BLOCK_BYTES, length))
    cuts = sorted(data.draw(st.lists(places, max_size=12)))
    streaming, at = BlockChecksums(), 0
    for cut in [*cuts, length]:
        streaming.add(content[at:cut])
        at = cut
    found = streaming.finish()
    assert found == block_checksums(content)
    assert len(found) == block_count(length) * CHECKSUM_BYTES


@given(st.integers(0, 3 * BLOCK_BYTES - 1), st.integers(0, 7))
def test_one_bit_is_enough(at: int, bit: int) -> None:
    content = bytearray(3 * BLOCK_BYTES)
    checksums = block_checksums(content)
    verify_blocks(content, checksums, "x")
    content[at] ^= 1 << bit
    with pytest.raises(ChunkCorruptError, match="replica 7"):
        verify_blocks(content, checksums, "replica 7")
