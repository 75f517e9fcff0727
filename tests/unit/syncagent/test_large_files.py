"""Large files over our gateway: only what is different travels, and whatever is doubtful travels whole."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from helenite.core.errors import DigestMismatchError, HeleniteError, PreconditionFailedError
from syncagent.bases import Bases
from syncagent.learning import AHEAD_MAX
from syncagent.model import Kind
from syncagent.ports import LARGE_BYTES, Attributes, Present, Twin, Upload
from syncagent.remote import WebDavRemote
from syncagent.signature import choose_average, sign
from tests.support.gateways import our_gateway
from tests.support.memory_filesystem import MemoryFileSystem
from tests.support.sync_device import Device
from tests.support.waiting import wait_until
from webdav import reading

CONTENT = random.Random(1).randbytes(6 << 20)
EDITED = CONTENT[:3_000_000] + b"x" * 4096 + CONTENT[3_004_096:]
LONGER = b"x" * 4096 + CONTENT
MOST = 1 << 20


@pytest.fixture
def devices(fs: MemoryFileSystem, tmp_path: Path) -> Iterator[tuple[Device, Device]]:
    with our_gateway(fs) as client:
        found = (
            Device(tmp_path / "anna", f"{client.host}:{client.port}"),
            Device(tmp_path / "bert", f"{client.host}:{client.port}"),
        )
        yield found
        for device in found:
            device.close()


@pytest.fixture
def anna(devices: tuple[Device, Device]) -> Device:
    return devices[0]


@pytest.fixture
def bert(devices: tuple[Device, Device]) -> Device:
    return devices[1]


@pytest.mark.parametrize("edited", [EDITED, LONGER, CONTENT[4096:], CONTENT + EDITED[3_000_000:3_100_000]])
def test_only_the_difference_travels_both_ways(anna: Device, bert: Device, edited: bytes) -> None:
    anna.save(CONTENT)
    first = anna.send(None)
    assert bert.fetch(first) == CONTENT
    before = [device.proxy.passed_bytes for device in (anna, bert)]
    anna.save(edited)
    second = anna.send(first)
    assert (second.resource, second.size) == (first.resource, len(edited))
    assert bert.fetch(second) == edited
    assert bert.confirmations == 1
    bert.save(CONTENT)
    third = bert.send(second)
    assert anna.fetch(third) == CONTENT
    after = [device.proxy.passed_bytes for device in (anna, bert)]
    assert max(after[0] - before[0], after[1] - before[1]) < MOST


def test_what_is_remembered_outlives_the_agent(anna: Device, tmp_path: Path) -> None:
    anna.save(CONTENT)
    first = anna.send(None)
    again = Device(tmp_path / "again", anna.proxy.address)
    again.remote = WebDavRemote(again.remote._session, tmp_path / "anna")
    again.bases = Bases(tmp_path / "anna" / "large")
    again.save(EDITED)
    again.send(first)
    assert again.proxy.passed_bytes < MOST
    again.close()


def test_a_splice_is_conditional(anna: Device, bert: Device, fs: MemoryFileSystem) -> None:
    anna.save(CONTENT)
    first = anna.send(None)
    with fs.create(("home", "f")) as writer:
        writer.write(b"other")
        writer.commit()
    anna.save(EDITED)
    with pytest.raises(PreconditionFailedError):
        anna.send(first)
    with fs.open(("home", "f")) as reader:
        assert reader.read(0, 10) == b"other"


def test_a_splice_that_would_not_make_the_file_is_refused_and_the_file_goes_whole(anna: Device, bert: Device) -> None:
    anna.save(CONTENT)
    first = anna.send(None)
    anna.save(EDITED)
    with anna.file.open("rb", buffering=0) as file:
        wrong = sign(file, choose_average(len(EDITED)))
    anna.bases.add_signature(first.resource, first.etag, wrong)
    second = anna.send(first)
    assert anna.proxy.passed_bytes > 2 * len(CONTENT)
    assert bert.fetch(second) == EDITED


def test_other_content_goes_whole(anna: Device, bert: Device) -> None:
    anna.save(CONTENT)
    first = anna.send(None)
    assert bert.fetch(first) == CONTENT
    other = random.Random(2).randbytes(5 << 20)
    anna.save(other)
    second = anna.send(first)
    assert bert.fetch(second) == other
    assert bert.proxy.passed_bytes > len(CONTENT) + len(other)


def test_a_file_that_changes_while_it_is_copied_from_is_not_used(anna: Device, bert: Device) -> None:
    anna.save(CONTENT)
    first = anna.send(None)
    bert.fetch(first)
    anna.save(EDITED)
    second = anna.send(first)
    bert.is_changed = True
    with pytest.raises(PreconditionFailedError):
        bert.fetch(second)
    assert not bert.staging.exists()
    bert.digest = b""  # as the engine then knows
    assert bert.fetch(second) == EDITED


def test_files_that_both_sides_have_are_studied(anna: Device, bert: Device) -> None:
    anna.save(CONTENT)
    first = anna.send(None)
    bert.save(CONTENT)
    bert.remote.study(("f",), first, bert.digest, bert.file)
    bert.wait_for_signature(first)
    before = bert.proxy.passed_bytes
    bert.remote.study(("f",), first, bert.digest, bert.file)  # again costs nothing
    bert.save(EDITED)
    second = bert.send(first)
    assert bert.proxy.passed_bytes - before < MOST
    other = bert.file.with_name("other")
    other.write_bytes(LONGER)
    bert.remote.study(("f",), second, hashlib.sha256(CONTENT).digest(), other)  # it has changed by now
    bert.save(CONTENT)
    bert.send(second)
    assert bert.proxy.passed_bytes - before < 2 * MOST


def test_what_is_sent_whole_is_signed_meanwhile(anna: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    anna.save(CONTENT)
    send, learner = anna.remote._session.ask, anna.remote._learner

    def ask(method: str, *arguments: object, **options: object) -> object:
        if method == "PUT":
            wait_until(lambda: all(signing.done() for signing in learner._ahead.values()))
            assert len(learner._ahead) == 1
        reply = send(method, *arguments, **options)  # type: ignore[arg-type]
        if method == "PUT":
            anna.file.write_bytes(EDITED)  # at once, in place: what was sent is nowhere on the disk any more
        return reply

    monkeypatch.setattr(anna.remote._session, "ask", ask)
    first = anna.send(None)
    monkeypatch.undo()
    anna.save(EDITED)
    before = anna.proxy.passed_bytes
    anna.send(first)
    assert anna.proxy.passed_bytes - before < MOST


def test_uploads_that_fail_leave_few_signatures_behind(anna: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise HeleniteError("no")

    anna.remote.identity()
    monkeypatch.setattr(anna.remote._session, "ask", fail)
    for number in range(AHEAD_MAX + 3):
        anna.save(CONTENT + bytes([number]))
        with pytest.raises(HeleniteError, match="no"):
            anna.send(None)
    assert len(anna.remote._learner._ahead) == AHEAD_MAX


def test_sparse_files_stay_sparse(anna: Device, bert: Device) -> None:
    sparse = CONTENT[:100_000] + bytes(20 << 20) + CONTENT[100_000:200_001] + bytes(9 << 20)
    for content in (sparse, b"x" + sparse, sparse[:-1]):
        anna.save(content)
        stamp = anna.send(anna.stamp)
        assert bert.fetch(stamp) == content
        assert bert.file.stat().st_blocks * 512 < 4 << 20
        anna.stamp = stamp


def test_a_local_file_that_rotted_is_found_out(anna: Device, bert: Device) -> None:
    anna.save(CONTENT)
    first = anna.send(None)
    bert.fetch(first)
    anna.save(EDITED)
    second = anna.send(first)
    with bert.file.open("r+b") as file:  # and its stamp does not tell
        file.seek(100_000)
        file.write(b"rotten")
    assert bert.fetch(second) == EDITED
    assert bert.proxy.passed_bytes > 2 * len(CONTENT)


def test_what_came_without_a_digest_is_verified_all_the_same(
    bert: Device, fs: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file that somebody else has put there the server computes it."""
    with fs.create(("home", "f")) as writer:
        writer.write(CONTENT)
        writer.commit()
    [entry] = bert.remote.list(())
    assert entry.digest is None
    compute = reading._compute_digest
    monkeypatch.setattr(reading, "_compute_digest", lambda *_: hashlib.sha256(EDITED).digest())
    with pytest.raises(DigestMismatchError):
        bert.fetch(entry.stamp)
    assert bert.staging.stat().st_size == 0
    monkeypatch.setattr(reading, "_compute_digest", compute)
    assert bert.fetch(entry.stamp) == CONTENT
    assert fs.stat(("home", "f")).sha256 == hashlib.sha256(CONTENT).digest()


def test_a_download_that_copies_goes_on_where_it_broke_off(anna: Device, bert: Device) -> None:
    anna.save(CONTENT)
    first = anna.send(None)
    bert.fetch(first)
    anna.save(LONGER)
    second = anna.send(first)
    staged = bert.staging.with_name("part-1-state")
    staged.write_bytes(LONGER[:5_000_000])
    before = bert.proxy.passed_bytes
    assert bert.fetch(second) == LONGER
    assert bert.proxy.passed_bytes - before < 10_000
    assert not staged.exists()


def test_a_whole_download_that_has_begun_goes_on(anna: Device, bert: Device) -> None:
    anna.save(CONTENT)
    first = anna.send(None)
    bert.fetch(first)
    anna.save(EDITED)
    second = anna.send(first)
    bert.staging.write_bytes(EDITED[:5_000_000])
    before = bert.proxy.passed_bytes
    assert bert.fetch(second) == EDITED
    assert bert.proxy.passed_bytes - before < MOST + len(EDITED) - 5_000_000


def test_a_file_that_is_changed_while_it_is_sent_is_not_sent(anna: Device) -> None:
    anna.save(CONTENT)
    first = anna.send(None)
    anna.save(EDITED)
    anna.file.write_bytes(LONGER)
    with pytest.raises(PreconditionFailedError):
        anna.send(first)


def test_servers_that_offer_no_splices_get_whole_files(
    anna: Device, monkeypatch: pytest.MonkeyPatch, fs: MemoryFileSystem
) -> None:
    monkeypatch.setattr(anna.remote._learner, "_is_offered", False)
    anna.save(CONTENT)
    upload = Upload(Kind.FILE, anna.file, len(CONTENT), anna.digest, Attributes(1_700_000_000_123, None))
    first = anna.remote.store(("f",), upload, None)
    assert anna.bases.load(first.resource) is None
    anna.save(EDITED)
    anna.remote.store(("f",), replace(upload, digest=anna.digest), first)
    with fs.open(("home", "f")) as reader:
        assert b"".join(map(bytes, reader.iterate())) == EDITED


def test_content_that_the_server_has_is_copied_there(anna: Device, bert: Device, fs: MemoryFileSystem) -> None:
    anna.save(CONTENT)
    first = anna.send(None)
    fs.set_properties(("home", "f"), set_values={"{http://apache.org/dav/props/}executable": b"<x/>"})
    twin = Twin(("f",), first._replace(executable=True))
    attributes = Attributes(1_600_000_000_456, executable=False)
    copy = Upload(Kind.FILE, anna.file, len(CONTENT), anna.digest, attributes, twin)
    before = anna.proxy.passed_bytes
    stamp = anna.remote.store(("g",), copy, None)
    assert anna.proxy.passed_bytes - before < 10_000
    [entry] = [entry for entry in anna.remote.list(()) if entry.path == ("g",)]
    assert entry.stamp == stamp
    assert (stamp.mtime_ms, stamp.executable) == (1_600_000_000_456, False)
    with pytest.raises(PreconditionFailedError):  # the name is taken
        anna.remote.store(("g",), copy, None)
    fs.remove(("home", "f"))
    assert anna.remote.store(("h",), copy, None).size == len(CONTENT)
    stale = replace(copy, identical=Twin(("h",), twin.stamp))
    assert anna.remote.store(("i",), stale, None).size == len(CONTENT)
    assert anna.proxy.passed_bytes - before > 2 * len(CONTENT)
    assert [fs.open(("home", name)).read(0, 10) for name in "ghi"] == [CONTENT[:10]] * 3


def test_content_that_the_server_has_becomes_a_revision_there(anna: Device, fs: MemoryFileSystem) -> None:
    anna.save(CONTENT)
    first = anna.send(None)
    with fs.create(("home", "g")) as writer:
        writer.write(b"old")
        writer.commit()
    [old] = [entry for entry in anna.remote.list(()) if entry.path == ("g",)]
    twin = Twin(("f",), first)
    sent = Upload(Kind.FILE, anna.file, len(CONTENT), anna.digest, Attributes(1_600_000_000_456, None), twin)
    before = anna.proxy.passed_bytes
    stamp = anna.remote.store(("g",), sent, old.stamp)
    assert anna.proxy.passed_bytes - before < 10_000
    assert stamp.resource == old.stamp.resource
    [entry] = [entry for entry in anna.remote.list(()) if entry.path == ("g",)]
    assert (entry.stamp, entry.digest) == (stamp, anna.digest)
    with pytest.raises(PreconditionFailedError):
        anna.remote.store(("g",), sent, old.stamp)


def test_content_that_a_local_file_has_is_copied_here(anna: Device, bert: Device) -> None:
    anna.save(CONTENT)
    stamp = anna.send(None)
    bert.save(CONTENT)
    present = Present(bert.file, bert.digest, "twin", bert.confirm)
    assert bert.remote.fetch(("f",), stamp, bert.staging, present, bert.digest) == bert.digest
    assert bert.staging.read_bytes() == CONTENT
    assert bert.proxy.passed_bytes < 10_000


def test_small_files_are_not_remembered(anna: Device) -> None:
    anna.save(CONTENT[:LARGE_BYTES])
    upload = Upload(Kind.FILE, anna.file, LARGE_BYTES, anna.digest, Attributes(1_700_000_000_123, None))
    assert anna.bases.load(anna.remote.store(("f",), upload, None).resource) is None


def test_nothing_that_is_learnt_fails_a_transfer(anna: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise HeleniteError("no")

    monkeypatch.setattr(anna.remote._learner, "recipe", fail)
    anna.save(CONTENT)
    upload = Upload(Kind.FILE, anna.file, len(CONTENT), anna.digest, Attributes(1_700_000_000_123, None))
    assert anna.remote.store(("f",), upload, None).size == len(CONTENT)
