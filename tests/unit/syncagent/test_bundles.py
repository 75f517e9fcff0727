"""The agent's bundles against our gateway, and against answers that break off."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from helenite.client.smallfiles import SmallFile
from helenite.core.clock import Clock
from helenite.core.errors import (
    DigestMismatchError,
    EntryExistsError,
    EntryNotFoundError,
    HeleniteError,
    InvalidRequestError,
    LockedError,
    ParentNotFoundError,
    PreconditionFailedError,
    UnavailableError,
)
from helenite.core.model import LockScope
from syncagent.bundles import MEMBERS_MAX
from syncagent.model import Kind, RemoteStamp
from syncagent.ports import Attributes, Fetching, Sending, Upload
from syncagent.remote import WebDavRemote
from syncagent.session import Account, Session, Throttles
from syncagent.throttle import Throttle
from tests.support.gateways import our_gateway
from tests.support.memory_filesystem import MemoryFileSystem
from tests.support.raw_http import Client

MTIME_MS = 1_700_000_000_123
CONTENTS = {
    ("a",): b"",
    ("d e", "grüße %#?&.txt"): b"text" * 1000,
    ("d e", "x" * 251 + ".bin"): os.urandom(70_000),
    ("n\nl",): b"1",
}


@pytest.fixture
def fs(fs: MemoryFileSystem) -> MemoryFileSystem:
    fs.make_directory(("home", "d e"))
    return fs


@pytest.fixture
def client(fs: MemoryFileSystem) -> Iterator[Client]:
    with our_gateway(fs) as found:
        yield found


@pytest.fixture
def remote(client: Client) -> Iterator[WebDavRemote]:
    throttles = Throttles(Throttle(Clock()), Throttle(Clock()))
    found = WebDavRemote(Session(Account(f"http://{client.host}:{client.port}/home"), Clock(), throttles))
    yield found
    found.close()


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path


def sending(
    scratch: Path, path: tuple[str, ...], content: bytes, replaces: RemoteStamp | None = None, mtime_ms: int = MTIME_MS
) -> Sending:
    file = scratch / hashlib.sha256(repr(path).encode()).hexdigest()
    file.write_bytes(content)
    digest, attributes = hashlib.sha256(content).digest(), Attributes(mtime_ms, content == b"1")
    return Sending(path, Upload(Kind.FILE, file, len(content), digest, attributes), replaces)


def stored(remote: WebDavRemote, scratch: Path, contents: dict[tuple[str, ...], bytes]) -> list[RemoteStamp]:
    stamps = remote.store_many([sending(scratch, path, content) for path, content in contents.items()])
    assert all(isinstance(stamp, RemoteStamp) for stamp in stamps), stamps
    return list(stamps)  # type: ignore[arg-type]


def kinds(outcomes: object) -> list[type[object]]:
    return [type(outcome) for outcome in outcomes]  # type: ignore[attr-defined]


def test_our_gateway_takes_bundles(remote: WebDavRemote) -> None:
    assert remote.group_max() == MEMBERS_MAX


def test_what_is_stored_is_listed_as_it_was_told(fs: MemoryFileSystem, remote: WebDavRemote, scratch: Path) -> None:
    stamps = stored(remote, scratch, CONTENTS)
    listed = {entry.path: entry for directory in ((), ("d e",)) for entry in remote.list(directory)}
    for (path, content), stamp in zip(CONTENTS.items(), stamps, strict=True):
        assert listed[path].stamp == stamp
        assert stamp.mtime_ms == MTIME_MS
        assert listed[path].digest == hashlib.sha256(content).digest()


@pytest.mark.parametrize("mtime_ms", [-1, 0, 1, 999, 1_600_000_000_001, 1_700_000_000_999, 4_300_000_000_129])
def test_times_are_exact_to_the_millisecond(remote: WebDavRemote, scratch: Path, mtime_ms: int) -> None:
    [stamp] = remote.store_many([sending(scratch, ("f",), b"x", mtime_ms=mtime_ms)])
    assert isinstance(stamp, RemoteStamp)
    assert stamp.mtime_ms == max(1, mtime_ms)
    assert [entry.stamp for entry in remote.list(()) if entry.path == ("f",)] == [stamp]


def test_content_comes_back(remote: WebDavRemote, scratch: Path) -> None:
    stamps = stored(remote, scratch, CONTENTS)
    parts = [scratch / f"part{number}" for number in range(len(CONTENTS))]
    wanted = [Fetching(*each) for each in zip(CONTENTS, stamps, parts, strict=True)]
    digests = remote.fetch_many(wanted)
    assert [part.read_bytes() for part in parts] == list(CONTENTS.values())
    assert digests == [hashlib.sha256(content).digest() for content in CONTENTS.values()]


def test_each_file_has_a_condition_and_an_outcome_of_its_own(
    fs: MemoryFileSystem, remote: WebDavRemote, scratch: Path
) -> None:
    contents = {("kept",): b"1", ("replaced",): b"2", ("changed",): b"3", ("locked",): b"4"}
    kept, replaced, changed, locked = stored(remote, scratch, contents)
    stored(remote, scratch, {("other",): b"5"})
    [newer] = remote.store_many([sending(scratch, ("changed",), b"3b", changed)])
    assert isinstance(newer, RemoteStamp)
    assert newer.resource == changed.resource
    fs.lock(("home", "locked"), token="urn:t", scope=LockScope.EXCLUSIVE, is_infinite=False, owner=b"", timeout_s=60)
    gone = sending(scratch, ("gone",), b"x")
    gone.upload.file.unlink()
    short = sending(scratch, ("short",), b"xyz")
    short.upload.file.write_bytes(b"x")
    damaged = sending(scratch, ("damaged",), b"xyz")
    damaged.upload.file.write_bytes(b"xyy")
    outcomes = remote.store_many(
        [
            sending(scratch, ("kept",), b"1b"),
            sending(scratch, ("replaced",), b"2b", replaced),
            sending(scratch, ("changed",), b"3c", changed),
            sending(scratch, ("locked",), b"4b", locked),
            sending(scratch, ("kept", "in a file"), b"x"),
            gone,
            short,
            damaged,
            sending(scratch, ("fresh",), b"6"),
        ]
    )
    assert kinds(outcomes) == [
        PreconditionFailedError,
        RemoteStamp,
        PreconditionFailedError,
        LockedError,
        ParentNotFoundError,
        EntryNotFoundError,
        PreconditionFailedError,
        InvalidRequestError,
        RemoteStamp,
    ]
    listed = {entry.path[0]: entry.stamp for entry in remote.list(())}
    assert listed["kept"] == kept
    assert listed["changed"] == newer
    assert "damaged" not in listed
    assert listed["fresh"] == outcomes[-1]


def test_only_the_expected_revisions_are_fetched(remote: WebDavRemote, scratch: Path) -> None:
    contents = {(name,): name.encode() for name in "abcd"}
    stamps = dict(zip(contents, stored(remote, scratch, contents), strict=True))
    remote.store_many([sending(scratch, ("b",), b"new", stamps["b",])])
    remote.delete(("c",), stamps["c",], {})
    unwritable = scratch / "no" / "such" / "place"
    wanted = [
        Fetching(path, stamp, unwritable if path == ("d",) else scratch / path[0]) for path, stamp in stamps.items()
    ]
    outcomes = remote.fetch_many(wanted)
    assert outcomes[0] == hashlib.sha256(b"a").digest()
    assert kinds(outcomes[1:]) == [PreconditionFailedError, EntryNotFoundError, EntryNotFoundError]
    assert not (scratch / "b").exists()


def test_a_file_that_has_grown_meanwhile_holds_up_no_other(client: Client, remote: WebDavRemote, scratch: Path) -> None:
    contents = {("a",): b"small", ("b",): b"other"}
    stamps = stored(remote, scratch, contents)
    client.put("/home/a", bytes(5 << 20))
    wanted = [Fetching(path, stamp, scratch / path[0]) for path, stamp in zip(contents, stamps, strict=True)]
    outcomes = remote.fetch_many(wanted)
    assert kinds(outcomes) == [PreconditionFailedError, bytes]
    assert (scratch / "b").read_bytes() == b"other"


def test_directories(remote: WebDavRemote) -> None:
    outcomes = remote.make_directories([("d e",), ("new",), ("d e", "in"), ("ü",)])
    assert kinds(outcomes) == [EntryExistsError, RemoteStamp, RemoteStamp, RemoteStamp]
    listed = {entry.path: entry.stamp for directory in ((), ("d e",)) for entry in remote.list(directory)}
    assert [listed[path] for path in (("new",), ("d e", "in"), ("ü",))] == outcomes[1:]
    with pytest.raises(EntryExistsError):
        remote.make_directory(("new",))


def test_a_directory_that_was_moved_meanwhile_is_not_made_anew(
    fs: MemoryFileSystem, remote: WebDavRemote, scratch: Path
) -> None:
    """A master that died holds up a bundle; the directory's move is quicker when it is back."""
    [known] = stored(remote, scratch, {("d e", "old"): b"old"})
    create = fs.create_small

    def late(files: Sequence[SmallFile]) -> object:
        fs.create_small = create  # type: ignore[method-assign]
        fs.move(("home", "d e"), ("home", "moved"), overwrite=False)
        return create(files)

    fs.create_small = late  # type: ignore[assignment, method-assign]
    orders = [sending(scratch, ("d e", "new"), b"new"), sending(scratch, ("d e", "old"), b"newer", known)]
    new, old = remote.store_many(orders)
    assert isinstance(new, ParentNotFoundError)
    assert isinstance(old, ParentNotFoundError | PreconditionFailedError)
    assert kinds(remote.make_directories([("d e", "in")])) == [ParentNotFoundError]
    assert [entry.path for entry in remote.list(())] == [("moved",)]


def test_a_file_in_the_place_of_a_directory(remote: WebDavRemote, scratch: Path) -> None:
    stored(remote, scratch, {("f",): b"x"})
    [outcome] = remote.make_directories([("f",)])
    assert isinstance(outcome, HeleniteError)


def test_a_cluster_that_goes_away_leaves_the_rest_unknown(
    fs: MemoryFileSystem, remote: WebDavRemote, scratch: Path
) -> None:
    fs.faults["commit"] = UnavailableError("nobody there")
    outcomes = remote.store_many([sending(scratch, (name,), b"x") for name in "abc"])
    assert UnavailableError in kinds(outcomes)


def test_what_broke_off_is_told_of_those_that_did_not_come(
    fs: MemoryFileSystem, remote: WebDavRemote, scratch: Path
) -> None:
    contents = {(name,): os.urandom(100_000) for name in "abcdef"}
    stamps = stored(remote, scratch, contents)
    wanted = [Fetching(path, stamp, scratch / path[0]) for path, stamp in zip(contents, stamps, strict=True)]
    lost = fs.stat(("home", "e"))
    fs.contents.lose(lost)
    outcomes = remote.fetch_many(wanted)
    whole = [outcome for outcome in outcomes if isinstance(outcome, bytes)]
    assert whole == [hashlib.sha256(content).digest() for content in list(contents.values())[: len(whole)]]
    assert 0 < len(whole) <= 4
    assert set(kinds(outcomes[len(whole) :])) == {UnavailableError}


def test_content_that_was_damaged_on_its_way_is_not_taken(
    fs: MemoryFileSystem, remote: WebDavRemote, scratch: Path
) -> None:
    contents = {("a",): b"one", ("b",): b"two"}
    stamps = stored(remote, scratch, contents)
    entry = fs.stat(("home", "b"))
    fs.contents.keep(entry, b"tow")
    wanted = [Fetching(path, stamp, scratch / path[0]) for path, stamp in zip(contents, stamps, strict=True)]
    assert kinds(remote.fetch_many(wanted)) == [bytes, DigestMismatchError]
    assert not (scratch / "b").exists()


def test_digests_are_asked_for_and_content_stays_there(client: Client, remote: WebDavRemote) -> None:
    client.put("/home/f", b"content")
    [entry] = [entry for entry in remote.list(()) if entry.path == ("f",)]
    assert entry.digest is None
    client.put("/home/g", b"other")
    [other] = [entry for entry in remote.list(()) if entry.path == ("g",)]
    wanted = [(("f",), entry.stamp), (("g",), other.stamp), (("none",), other.stamp)]
    *found, error = remote.digests(wanted)
    assert found == [hashlib.sha256(content).digest() for content in (b"content", b"other")]
    assert isinstance(error, HeleniteError)
    [entry] = [entry for entry in remote.list(()) if entry.path == ("f",)]
    assert entry.digest == hashlib.sha256(b"content").digest()
    client.put("/home/f", b"newer")
    assert kinds(remote.digests([(("f",), entry.stamp)])) == [PreconditionFailedError]
