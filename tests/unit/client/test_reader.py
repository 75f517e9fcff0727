"""Reading: what memory has is read at once, what has to be waited for is read ahead, and all of it in order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from helenite.client.reader import PIECE_BYTES, Reader
from helenite.core.model import (
    MIB,
    ChunkHandle,
    Entry,
    EntryId,
    EntryView,
    Extent,
    Kind,
    Location,
    Sequence,
    ServerId,
)

CHUNK_BYTES = 3 * MIB + 1000


class Pool:
    """Chunks in a dictionary; those in `kept` are in this machine's memory."""

    def __init__(self, chunks: dict[ChunkHandle, bytes]) -> None:
        self.chunks = chunks
        self.kept: set[ChunkHandle] = set()
        self.waited_for = 0
        self._threads = ThreadPoolExecutor(2)

    def close(self) -> None:
        self._threads.shutdown()

    def submit(self, call: object, *args: object) -> Future[memoryview]:
        return self._threads.submit(call, *args)  # type: ignore[arg-type]

    def read_kept(
        self, handle: ChunkHandle, offset: int, length: int, into: memoryview | None = None
    ) -> memoryview | None:
        if handle not in self.kept:
            return None
        assert into is not None
        into[:length] = self.chunks[handle][offset : offset + length]
        return into[:length]

    def read_chunk(self, location: Location, offset: int, length: int) -> memoryview:
        self.waited_for += 1
        return memoryview(self.chunks[location.handle])[offset : offset + length]


@pytest.fixture
def content() -> bytes:
    return random.Random(7).randbytes(3 * CHUNK_BYTES)


@pytest.fixture
def pool(content: bytes) -> Iterator[Pool]:
    found = Pool({ChunkHandle(i + 1): content[i * CHUNK_BYTES : (i + 1) * CHUNK_BYTES] for i in range(3)})
    yield found
    found.close()


@pytest.fixture
def reader(pool: Pool) -> Reader:
    extents = tuple(Extent(handle, 0, len(data)) for handle, data in pool.chunks.items())
    entry = Entry("f", Kind.FILE, EntryId(2), Sequence(3), 3 * CHUNK_BYTES, 0, 0, extents)
    locations = tuple(Location(handle, (ServerId(1),), b"") for handle in pool.chunks)
    return Reader(pool, EntryView(entry, locations))  # type: ignore[arg-type]


@pytest.mark.parametrize("kept", [(), (1, 2, 3), (1,), (2,), (1, 3)])
def test_all_bytes_in_order_whatever_memory_has(reader: Reader, pool: Pool, content: bytes, kept: tuple[int]) -> None:
    pool.kept = set(map(ChunkHandle, kept))
    assert reader.read(0, len(content)) == content
    assert b"".join(map(bytes, reader.iterate(1234, 2 * CHUNK_BYTES))) == content[1234 : 1234 + 2 * CHUNK_BYTES]
    assert reader.read(len(content) - 10, 100) == content[-10:]


def test_what_memory_has_is_read_without_another_thread(reader: Reader, pool: Pool) -> None:
    pool.kept = set(pool.chunks)
    pieces = [len(piece) for piece in reader.iterate()]
    assert max(pieces) <= PIECE_BYTES
    assert sum(pieces) == reader.size_bytes
    assert pool.waited_for == 0


def test_a_piece_out_of_memory_goes_into_the_same_buffer_as_the_one_before(reader: Reader, pool: Pool) -> None:
    pool.kept = set(pool.chunks)
    pieces = reader.iterate()
    first, second = next(pieces), next(pieces)
    assert first.obj is second.obj
