"""Records on disk: headers survive, nothing else passes for one, block ranges are right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helenite.chunkserver.layout import (
    HEADER_BYTES,
    ChunkHeader,
    Header,
    Tombstone,
    covering_blocks,
    encode_header,
    length_in_file,
    parse_header,
    record_bytes,
    size_of,
)
from helenite.core.errors import ChunkCorruptError
from helenite.core.model import BLOCK_BYTES, CHUNK_BYTES_MAX, ChunkHandle

handles = st.integers(0, 2**64 - 1).map(ChunkHandle)
u32 = st.integers(0, 2**32 - 1)
headers = st.builds(ChunkHeader, handles, st.integers(1, CHUNK_BYTES_MAX)) | st.builds(Tombstone, handles, u32, u32)


@given(headers)
def test_headers_survive(header: Header) -> None:
    packed = encode_header(header)
    assert len(packed) == HEADER_BYTES
    assert parse_header(packed) == header


def test_known_bytes() -> None:
    """What lies on disks: these may never change."""
    assert encode_header(ChunkHeader(ChunkHandle(0x1234), 4096)).hex() == (
        "484c4e43484e4b310100000000000000000000000000123400000000000010009c2e368cf941a59f"
    )


@given(headers, st.integers(0, HEADER_BYTES * 8 - 1))
def test_one_changed_bit_is_no_header(header: Header, bit: int) -> None:
    packed = bytearray(encode_header(header))
    packed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ChunkCorruptError):
        parse_header(bytes(packed))


@given(st.binary(max_size=60))
def test_other_bytes_are_no_header(packed: bytes) -> None:
    with pytest.raises(ChunkCorruptError):
        parse_header(packed)


@given(st.integers(1, CHUNK_BYTES_MAX))
def test_a_files_size_tells_the_chunks_length(length: int) -> None:
    assert length_in_file(record_bytes(length)) == length
    assert size_of(ChunkHeader(ChunkHandle(1), length)) == record_bytes(length)


@given(st.integers(0, 39))
def test_a_file_that_is_too_short_has_no_length(size: int) -> None:
    assert length_in_file(size) == 0


@given(st.data(), st.integers(1, 5 * BLOCK_BYTES))
def test_covering_blocks_cover_and_are_whole(data: st.DataObject, chunk: int) -> None:
    offset = data.draw(st.integers(0, chunk - 1))
    length = data.draw(st.integers(1, chunk - offset))
    start, size = covering_blocks(offset, length, chunk)
    assert start % BLOCK_BYTES == 0
    assert start <= offset < start + BLOCK_BYTES
    assert offset + length <= start + size <= chunk
    assert size % BLOCK_BYTES == 0 or start + size == chunk
    assert start + size - (offset + length) < BLOCK_BYTES
