"""Uploads in parts over our gateway: what is there is not sent again, and nothing half is ever seen as the file."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helenite.client.chunking import Fresh, Kept
from helenite.core.clock import Clock
from helenite.core.errors import EntryNotFoundError, HeleniteError, InvalidRequestError, PreconditionFailedError
from helenite.core.model import Condition
from syncagent import pace, partwise
from syncagent.drafts import DRAFT_MS_MAX
from syncagent.model import Kind
from syncagent.names import ASIDE_PREFIX
from syncagent.ports import Attributes, Upload
from syncagent.remote import WebDavRemote
from syncagent.session import Account, Session, Throttles
from syncagent.throttle import Throttle
from tests.support.files import stamp_of
from tests.support.gateways import our_gateway
from tests.support.memory_filesystem import MemoryFileSystem
from tests.support.proxy import Proxy
from webdav import patching, results

MIB = 1 << 20
CONTENT = random.Random(1).randbytes(10 * MIB)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "FIRST_PART_BYTES", 2 * MIB)
    monkeypatch.setattr(pace, "PART_BYTES", (MIB, 3 * MIB))
    monkeypatch.setattr(pace, "ROUND_BYTES", MIB)


class Device:
    """An agent's half of the server; `remote` is another object after each break, as in another process."""

    def __init__(self, directory: Path, upstream: str, clock: Clock) -> None:
        self.directory = directory
        self.proxy = Proxy(upstream)
        self.file = directory / "local"
        self.clock = clock
        self.breaks_after: int | None = None
        self.remote = self.begin()

    def begin(self) -> WebDavRemote:
        clock = self.clock
        account = Account(f"http://{self.proxy.address}/home")
        session = Session(account, clock, Throttles(_Tap(clock, self), Throttle(clock)))
        return WebDavRemote(session, self.directory / "memory")

    def upload(self, content: bytes) -> Upload:
        digest = hashlib.sha256(content).digest()
        attributes = Attributes(1_700_000_000_123, None)
        return Upload(Kind.FILE, self.file, len(content), digest, attributes, stamp=stamp_of(self.file))

    def break_off_after(self, sent: int) -> None:
        """An upload, and the end of the process, after so many bytes."""
        self.breaks_after = sent
        with pytest.raises(HeleniteError, match="broke off"):
            self.remote.store(("f",), self.upload(self.file.read_bytes()), None)
        self.remote.close()
        self.remote = self.begin()

    def close(self) -> None:
        self.remote.close()
        self.proxy.close()


class _Tap(Throttle):
    """Counts what goes up and ends it."""

    def __init__(self, clock: Clock, device: Device) -> None:
        super().__init__(clock)
        self._device = device

    def take(self, count: int) -> None:
        left = self._device.breaks_after
        if left is not None:
            self._device.breaks_after = left - count
            if left < count:
                self._device.breaks_after = None
                raise HeleniteError("broke off")


@pytest.fixture
def device(fs: MemoryFileSystem, tmp_path: Path) -> Iterator[Device]:
    with our_gateway(fs) as client:
        found = Device(tmp_path, f"{client.host}:{client.port}", Clock())
        found.file.write_bytes(CONTENT)
        yield found
        found.close()


def names(fs: MemoryFileSystem) -> set[str]:
    return {view.entry.name for view in fs.list(("home",))[1]}


def content(fs: MemoryFileSystem, name: str) -> bytes:
    with fs.open(("home", name)) as reader:
        return b"".join(map(bytes, reader.iterate()))


def test_a_large_file_goes_in_parts_and_is_seen_when_it_is_complete(
    device: Device, fs: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []
    publish = fs.publish

    def watch(*arguments: object) -> object:
        seen.append(names(fs))
        return publish(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(fs, "publish", watch)
    stamp = device.remote.store(("f",), device.upload(CONTENT), None)
    assert len(seen) == 4  # 2, 3, 3 and 2 MiB
    assert all("f" not in those for those in seen)
    assert (names(fs), content(fs, "f")) == ({"f"}, CONTENT)
    [entry] = device.remote.list(())
    assert (entry.stamp, entry.digest) == (stamp, hashlib.sha256(CONTENT).digest())


@pytest.mark.parametrize("sent", [100_000, 2 * MIB + 100_000, 5 * MIB + 100_000, 9 * MIB])
def test_what_is_there_is_not_sent_again(device: Device, fs: MemoryFileSystem, sent: int) -> None:
    device.break_off_after(sent)
    assert "f" not in names(fs)
    assert all(name.startswith(ASIDE_PREFIX) for name in names(fs))
    kept = sum(view.entry.size_bytes for view in fs.list(("home",))[1])
    assert kept > sent - 3 * MIB
    before = device.proxy.passed_bytes
    device.remote.store(("f",), device.upload(CONTENT), None)
    assert device.proxy.passed_bytes - before < len(CONTENT) - kept + 100_000
    assert (names(fs), content(fs, "f")) == ({"f"}, CONTENT)
    assert list((device.directory / "memory" / "drafts").iterdir()) == []


def test_a_large_result_is_verified_while_the_agent_waits(
    device: Device, fs: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patching, "AT_ONCE_BYTES_MAX", MIB)
    monkeypatch.setattr(results, "STEP_BYTES", MIB)
    replaced = device.remote.store(("f",), device.upload(CONTENT), None)
    [entry] = device.remote.list(())
    assert (entry.stamp, entry.digest) == (replaced, hashlib.sha256(CONTENT).digest())
    device.file.write_bytes(CONTENT[::-1])
    device.break_off_after(5 * MIB)
    [draft] = names(fs) - {"f"}
    with fs.create(("home", draft)) as writer:  # somebody has written to it
        writer.write(bytes(5 * MIB))
        writer.commit()
    with pytest.raises(InvalidRequestError, match="send the whole file"):
        device.remote.store(("f",), device.upload(CONTENT[::-1]), replaced)
    assert (names(fs), content(fs, "f")) == ({"f"}, CONTENT)


@pytest.mark.parametrize("starts", [(5, 20, 30), (0, 16), (39,), ()])
def test_of_a_sparse_file_the_holes_are_only_named(
    device: Device, fs: MemoryFileSystem, starts: tuple[int, ...]
) -> None:
    """Islands of 1 MiB in 40; the file is smaller than what goes in parts else."""
    with device.file.open("wb") as file:
        for start in starts:
            file.seek(start * MIB)
            file.write(CONTENT[:MIB])
        file.truncate(40 * MIB)
    wanted = device.file.read_bytes()
    stamp = device.remote.store(("f",), device.upload(wanted), None)
    assert device.proxy.passed_bytes < len(starts) * MIB + 100_000
    assert (names(fs), content(fs, "f") == wanted) == ({"f"}, True)
    [entry] = device.remote.list(())
    assert (entry.stamp, entry.digest) == (stamp, hashlib.sha256(wanted).digest())
    device.file.write_bytes(CONTENT)  # and as a revision of a file that is there
    dense = device.remote.store(("g",), device.upload(CONTENT), None)
    with device.file.open("r+b") as file:
        file.truncate(0)
        file.truncate(40 * MIB)
    before = device.proxy.passed_bytes
    device.remote.store(("g",), device.upload(bytes(40 * MIB)), dense)
    assert device.proxy.passed_bytes - before < 100_000
    assert not content(fs, "g").strip(bytes(1))


def test_a_sparse_upload_goes_on_where_it_broke_off(device: Device, fs: MemoryFileSystem) -> None:
    with device.file.open("wb") as file:
        for start in (8 * MIB, 60 * MIB):
            file.seek(start)
            file.write(CONTENT[: 4 * MIB])
        file.truncate(70 * MIB)
    wanted = device.file.read_bytes()
    device.break_off_after(7 * MIB)
    before = device.proxy.passed_bytes
    device.remote.store(("f",), device.upload(wanted), None)
    assert device.proxy.passed_bytes - before < 7 * MIB
    assert (names(fs), content(fs, "f") == wanted) == ({"f"}, True)


def test_a_part_whose_answer_was_lost_counts(device: Device, fs: MemoryFileSystem) -> None:
    device.break_off_after(5 * MIB + 100_000)
    [draft] = names(fs)
    etag = fs.stat(("home", draft)).etag
    with fs.splice(  # a part more than the agent knows of
        ("home", draft),
        fs.lookup(("home", draft)),
        [Kept(0, 5 * MIB), Fresh(MIB)],
        condition=Condition.exactly(fs.stat(("home", draft))),
    ) as splicer:
        splicer.write(CONTENT[5 * MIB : 6 * MIB])
        assert splicer.commit().etag != etag
    device.remote.store(("f",), device.upload(CONTENT), None)
    assert content(fs, "f") == CONTENT


def edit(device: Device) -> bytes:
    changed = b"x" + CONTENT[1:]
    device.file.write_bytes(changed)
    return changed


def touch(device: Device) -> bytes:
    os.utime(device.file, (1, 1))
    return CONTENT


def replace_file(device: Device) -> bytes:
    fresh = device.directory / "fresh"
    fresh.write_bytes(CONTENT)
    fresh.replace(device.file)
    return CONTENT


def test_a_revision_that_goes_in_parts_keeps_the_id_of_the_file(device: Device, fs: MemoryFileSystem) -> None:
    with fs.create(("home", "f")) as writer:
        writer.write(b"old")
        old = writer.commit()[0]
    [before] = device.remote.list(())
    device.breaks_after = 5 * MIB + 100_000
    with pytest.raises(HeleniteError, match="broke off"):
        device.remote.store(("f",), device.upload(CONTENT), before.stamp)
    assert content(fs, "f") == b"old"
    passed = device.proxy.passed_bytes
    stamp = device.remote.store(("f",), device.upload(CONTENT), before.stamp)
    assert device.proxy.passed_bytes - passed < 6 * MIB
    assert (names(fs), content(fs, "f"), fs.stat(("home", "f")).id) == ({"f"}, CONTENT, old.id)
    [entry] = device.remote.list(())
    assert (entry.stamp, entry.digest) == (stamp, hashlib.sha256(CONTENT).digest())
    assert stamp.resource == before.stamp.resource


def test_a_revision_that_goes_in_parts_replaces_only_what_was_seen(device: Device, fs: MemoryFileSystem) -> None:
    for words in (b"old", b"newer"):
        with fs.create(("home", "f")) as writer:
            writer.write(words)
            writer.commit()
        if words == b"old":
            [before] = device.remote.list(())
    with pytest.raises(PreconditionFailedError):
        device.remote.store(("f",), device.upload(CONTENT), before.stamp)
    assert (names(fs), content(fs, "f")) == ({"f"}, b"newer")


@pytest.mark.parametrize("change", [edit, touch, replace_file])
def test_a_draft_of_another_state_of_the_file_is_given_up(
    device: Device, fs: MemoryFileSystem, change: Callable[[Device], bytes]
) -> None:
    device.break_off_after(5 * MIB)
    wanted = change(device)
    device.remote.store(("f",), device.upload(wanted), None)
    assert (names(fs), content(fs, "f")) == ({"f"}, wanted)


def test_a_draft_that_is_gone_is_begun_again(device: Device, fs: MemoryFileSystem) -> None:
    device.break_off_after(5 * MIB)
    [draft] = names(fs)
    fs.remove(("home", draft))
    device.remote.store(("f",), device.upload(CONTENT), None)
    assert (names(fs), content(fs, "f")) == ({"f"}, CONTENT)


def test_a_draft_that_is_not_what_it_should_be_is_begun_again(device: Device, fs: MemoryFileSystem) -> None:
    device.break_off_after(5 * MIB)
    [draft] = names(fs)
    with fs.create(("home", draft)) as writer:  # somebody has written to it
        writer.write(bytes(5 * MIB))
        writer.commit()
    with pytest.raises(InvalidRequestError):
        device.remote.store(("f",), device.upload(CONTENT), None)
    assert names(fs) == set()
    device.remote.store(("f",), device.upload(CONTENT), None)
    assert (names(fs), content(fs, "f")) == ({"f"}, CONTENT)


def test_a_name_that_is_taken_meanwhile_is_not_replaced(device: Device, fs: MemoryFileSystem) -> None:
    device.break_off_after(5 * MIB)
    with fs.create(("home", "f")) as writer:
        writer.write(b"another's")
        writer.commit()
    with pytest.raises(PreconditionFailedError):
        device.remote.store(("f",), device.upload(CONTENT), None)
    assert (names(fs), content(fs, "f")) == ({"f"}, b"another's")


def test_a_file_that_changes_while_it_is_sent_does_not_arrive(
    device: Device, fs: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def untouched() -> Iterator[None]:
        yield
        assert "f" not in names(fs)

    upload = device.upload(CONTENT)
    edit(device)
    with untouched(), pytest.raises(PreconditionFailedError):  # it was another when its digest was taken
        device.remote.store(("f",), upload, None)
    device.file.write_bytes(CONTENT)
    monkeypatch.setattr(_Tap, "take", lambda self, _: edit(self._device))
    with untouched(), pytest.raises(PreconditionFailedError):
        device.remote.store(("f",), device.upload(CONTENT), None)


def test_of_a_file_that_is_deleted_while_it_is_sent_nothing_is_left(
    device: Device, fs: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, seen = device.upload(CONTENT), 0

    def take(tap: _Tap, count: int) -> None:
        nonlocal seen
        seen += count
        if seen > 5 * MIB:
            tap._device.file.unlink(missing_ok=True)

    monkeypatch.setattr(_Tap, "take", take)
    with pytest.raises(EntryNotFoundError):
        device.remote.store(("f",), upload, None)
    assert names(fs) == set()
    assert list((device.directory / "memory" / "drafts").iterdir()) == []


def test_what_was_begun_long_ago_is_deleted(device: Device, fs: MemoryFileSystem) -> None:
    device.break_off_after(5 * MIB)
    [draft] = names(fs)
    [record] = (device.directory / "memory" / "drafts").iterdir()
    now_s = device.clock.now_ms() / 1000
    device.remote.identity()
    assert names(fs) == {draft}
    os.utime(record, (now_s - DRAFT_MS_MAX / 1000 - 1,) * 2)
    device.remote.identity()
    assert names(fs) == set()
    assert not record.exists()


def test_small_files_and_agents_without_memory_send_in_one(
    device: Device, fs: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partwise.Partwise, "store", None)
    small = CONTENT[: 3 * MIB]
    device.file.write_bytes(small)
    device.remote.store(("small",), device.upload(small), None)
    device.file.write_bytes(CONTENT)
    without = WebDavRemote(device.remote._session)
    without.store(("f",), device.upload(CONTENT), None)
    assert names(fs) == {"small", "f"}


def test_a_file_that_broke_off_as_a_whole_goes_in_parts(device: Device, fs: MemoryFileSystem) -> None:
    device.file.write_bytes(CONTENT[: 3 * MIB])
    upload = device.upload(CONTENT[: 3 * MIB])
    device.breaks_after = 2 * MIB
    with pytest.raises(HeleniteError, match="broke off"):
        device.remote.store(("f",), upload, None)
    assert names(fs) == set()
    device.remote._deliveries._pace.bytes_per_s = 1000
    device.breaks_after = 2 * MIB + 100_000
    with pytest.raises(HeleniteError, match="broke off"):
        device.remote.store(("f",), upload, None)
    device.breaks_after = 100 * MIB  # never, but it counts
    device.remote.store(("f",), upload, None)
    assert 100 * MIB - device.breaks_after == 2 * MIB  # the first part was there
    assert (names(fs), content(fs, "f")) == ({"f"}, CONTENT[: 3 * MIB])
