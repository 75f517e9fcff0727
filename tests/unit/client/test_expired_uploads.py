"""Redis failed over and the handles in hand are void: small files are stored anew, large ones are refused once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

import pytest

from helenite.client.filesystem import FileSystem
from helenite.client.writer import WHOLE_BYTES_MAX
from helenite.config import ClientSettings
from helenite.core.errors import UploadExpiredError
from helenite.core.model import MIB, Allocation, ChunkHandle, Entry, EntryId, Kind, Location, ServerId
from helenite.core.model import Sequence as Revision
from helenite.core.pb import common_pb2, master_pb2
from helenite.core.record import encode_record
from helenite.core.wire import failure_to_message

LEASED = 10
"""Handles that the client holds when Redis fails over; all up to the last of them are refused from then on."""

STORED = Entry("f", Kind.FILE, EntryId(1), Revision(1), 100, 0, 0)


class FailedOver(FileSystem):
    """Its masters refuse to commit the handles that were leased before; its chunkservers store all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(ClientSettings(masters=("127.0.0.1:1",), deadline_s=0.2))
        self._handles = count(1)
        self.committed: list[int] = []
        self.refused = 0
        pool, allocations = self._pool, self._pool._allocations
        monkeypatch.setattr(pool, "chunk_bytes", lambda: 8 * MIB)
        monkeypatch.setattr(pool, "write_small", lambda contents: [self._place() for _ in contents])
        monkeypatch.setattr(pool, "write_chunk", lambda _: self._place())
        monkeypatch.setattr(allocations, "_fetch", self._fetch)
        allocations._expires_at = float("inf")
        self._fetch(frozenset(), 0.0)

    def _fetch(self, exclude: frozenset[ServerId], deadline_s: float) -> None:
        handles = [ChunkHandle(next(self._handles)) for _ in range(LEASED)]
        self._pool._allocations._batch.extend(Allocation(handle, (ServerId(1),), b"") for handle in handles)

    def _place(self) -> Location:
        taken = self._pool._allocations.take(frozenset(), 1.0)
        return Location(taken.handle, taken.servers, taken.capability)

    def _mutate_all(self, mutations: Sequence[master_pb2.Mutation]) -> Sequence[master_pb2.Outcome]:
        return [self._outcome(mutation.commit) for mutation in mutations]

    def _outcome(self, commit: master_pb2.Commit) -> master_pb2.Outcome:
        handles = [location.handle for location in commit.fresh]
        if min(handles) <= LEASED:
            self.refused += 1
            return master_pb2.Outcome(failure=failure_to_message(UploadExpiredError("send it again")))
        self.committed += handles
        return master_pb2.Outcome(entry=common_pb2.Entry(name="f", record=encode_record(STORED)), created=True)


@pytest.fixture
def file_system(monkeypatch: pytest.MonkeyPatch) -> Iterator[FailedOver]:
    found = FailedOver(monkeypatch)
    yield found
    found.close()


def put(file_system: FileSystem, size: int) -> None:
    with file_system.create(("f",), size_bytes=size) as writer:
        writer.write(bytes(size))
        writer.commit()


def test_a_small_file_is_stored_anew_and_its_client_hears_nothing(file_system: FailedOver) -> None:
    for _ in range(3):
        put(file_system, 100)
    assert file_system.refused == 1, "the other handles of that lease were thrown away"
    assert len(file_system.committed) == 3


def test_a_large_file_is_refused_once_and_not_for_each_handle_in_hand(file_system: FailedOver) -> None:
    with pytest.raises(UploadExpiredError):
        put(file_system, WHOLE_BYTES_MAX + 1)
    put(file_system, WHOLE_BYTES_MAX + 1)
    assert len(file_system.committed) == 1
