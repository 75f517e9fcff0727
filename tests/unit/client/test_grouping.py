"""Small files of several threads travel in one group; each gets its own outcome."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from helenite.client.filesystem import FileSystem
from helenite.client.smallfiles import SmallFile, Stored
from helenite.client.writer import WHOLE_BYTES_MAX
from helenite.config import ClientSettings
from helenite.core.errors import EntryExistsError, HeleniteError
from helenite.core.model import Entry, EntryId, Kind
from helenite.core.model import Sequence as Revision
from tests.support.waiting import wait_until


class Storing(FileSystem):
    """Stores nothing; `gate` holds groups back, what is called `taken` exists already."""

    def __init__(self) -> None:
        super().__init__(ClientSettings(masters=("127.0.0.1:1",), deadline_s=0.2))
        self.groups: list[list[SmallFile]] = []
        self.gate = threading.Event()

    def _store_all(self, files: Sequence[SmallFile]) -> Sequence[Stored]:
        self.groups.append(list(files))
        assert self.gate.wait(10)
        return [self._outcome(file) for file in files]

    def _outcome(self, file: SmallFile) -> Stored:
        if file.path == ("taken",):
            return EntryExistsError("/taken is there already")
        return Entry(file.path[-1], Kind.FILE, EntryId(1), Revision(1), len(file.content), 0, 0), True


@pytest.fixture
def file_system(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storing]:
    found = Storing()
    monkeypatch.setattr(found._pool, "chunk_bytes", lambda: 8 << 20)
    yield found
    found.gate.set()
    found.close()


def store(file_system: FileSystem, name: str, content: bytes) -> Entry | HeleniteError:
    try:
        with file_system.create((name,), size_bytes=len(content)) as writer:
            writer.write(content)
            return writer.commit(b"s" * 32)[0]
    except HeleniteError as error:
        return error


def test_who_comes_while_a_group_is_on_its_way_goes_with_the_next(file_system: Storing) -> None:
    names = ["first", "a", "taken", "empty", "b"]
    with ThreadPoolExecutor(len(names)) as threads:
        first = threads.submit(store, file_system, "first", b"1")
        wait_until(lambda: file_system.groups)
        others = {
            name: threads.submit(store, file_system, name, b"" if name == "empty" else b"22") for name in names[1:]
        }
        wait_until(lambda: len(file_system._small_files._waiting) == len(others))
        file_system.gate.set()
        assert isinstance(first.result(10), Entry)
        found = {name: other.result(10) for name, other in others.items()}
    assert isinstance(found.pop("taken"), EntryExistsError)
    assert {name: entry.name for name, entry in found.items()} == {name: name for name in found}
    assert [len(group) for group in file_system.groups] == [1, len(others)]
    assert {file.sha256 for group in file_system.groups for file in group} == {b"s" * 32}


def test_a_larger_file_goes_its_own_way(file_system: Storing, monkeypatch: pytest.MonkeyPatch) -> None:
    file_system.gate.set()

    def refuse(data: memoryview) -> None:
        raise EntryExistsError(f"{len(data)} bytes for a chunk of their own")

    monkeypatch.setattr(file_system._pool, "write_chunk", refuse)
    assert isinstance(store(file_system, "small", bytes(WHOLE_BYTES_MAX)), Entry)
    assert str(WHOLE_BYTES_MAX + 1) in str(store(file_system, "large", bytes(WHOLE_BYTES_MAX + 1)))
    assert len(file_system.groups) == 1
