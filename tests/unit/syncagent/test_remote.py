"""The agent's WebDAV against our gateway, and against servers that answer nonsense."""

from __future__ import annotations

import hashlib
import os
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from helenite.core.clock import Clock
from helenite.core.errors import (
    EntryExistsError,
    EntryNotFoundError,
    HistoryLostError,
    InvalidRequestError,
    ParentNotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    ProtocolError,
    SequenceExpiredError,
    UnavailableError,
)
from helenite.core.process import Worker
from syncagent.model import Kind, RemoteStamp
from syncagent.ports import RETRY_MAX_S, Attributes, OverloadedError, Upload
from syncagent.remote import WebDavRemote
from syncagent.session import Account, Session, Throttles
from syncagent.throttle import Throttle
from tests.support.gateways import our_gateway
from tests.support.memory_filesystem import MemoryFileSystem
from tests.support.waiting import wait_until

MTIME_MS = 1_700_000_000_123


@contextmanager
def connected(url: str, user: str = "", password: str = "") -> Iterator[WebDavRemote]:
    throttles = Throttles(Throttle(Clock()), Throttle(Clock()))
    remote = WebDavRemote(Session(Account(url, user, password), Clock(), throttles))
    yield remote
    remote.close()


@pytest.fixture
def remote(fs: MemoryFileSystem) -> Iterator[WebDavRemote]:
    with our_gateway(fs) as client, connected(f"http://{client.host}:{client.port}/home") as found:
        yield found


def upload(directory: Path, content: bytes, *, executable: bool = False) -> Upload:
    file = directory / "content"
    file.write_bytes(content)
    return Upload(Kind.FILE, file, len(content), hashlib.sha256(content).digest(), Attributes(MTIME_MS, executable))


def store(remote: WebDavRemote, directory: Path, name: str, content: bytes = b"x") -> RemoteStamp:
    return remote.store(tuple(name.split("/")), upload(directory, content), None)


def test_what_is_stored_is_listed_as_it_was_told(remote: WebDavRemote, tmp_path: Path) -> None:
    stamp = remote.store(("a b%#?.txt",), upload(tmp_path, b"hello", executable=True), None)
    assert (stamp.size, stamp.mtime_ms, stamp.executable) == (5, MTIME_MS, True)
    [entry] = remote.list(())
    assert (entry.path, entry.kind, entry.stamp) == (("a b%#?.txt",), Kind.FILE, stamp)


@pytest.mark.parametrize("content", [b"", b"x", os.urandom(700_000)])
def test_content_goes_there_and_back(remote: WebDavRemote, tmp_path: Path, content: bytes) -> None:
    stamp = store(remote, tmp_path, "f", content)
    assert remote.fetch(("f",), stamp, tmp_path / "part") == hashlib.sha256(content).digest()
    assert (tmp_path / "part").read_bytes() == content


def test_a_download_goes_on_where_it_broke_off(remote: WebDavRemote, tmp_path: Path) -> None:
    content = os.urandom(300_000)
    stamp = store(remote, tmp_path, "f", content)
    for begun in (1, 299_999, 300_000):
        part = tmp_path / f"part{begun}"
        part.write_bytes(content[:begun])
        assert remote.fetch(("f",), stamp, part) == hashlib.sha256(content).digest()
        assert part.read_bytes() == content
    (tmp_path / "long").write_bytes(content + b"more")
    assert remote.fetch(("f",), stamp, tmp_path / "long") == hashlib.sha256(content).digest()


def test_only_the_expected_revision_is_fetched(remote: WebDavRemote, tmp_path: Path) -> None:
    old = store(remote, tmp_path, "f", b"old")
    remote.store(("f",), upload(tmp_path, b"new"), old)
    with pytest.raises(PreconditionFailedError):
        remote.fetch(("f",), old, tmp_path / "part")
    with pytest.raises(PreconditionFailedError):
        remote.fetch(("g",), old, tmp_path / "part")


def test_stores_are_conditional(remote: WebDavRemote, tmp_path: Path) -> None:
    first = store(remote, tmp_path, "f", b"1")
    with pytest.raises(PreconditionFailedError):
        store(remote, tmp_path, "f", b"1")
    second = remote.store(("f",), upload(tmp_path, b"2"), first)
    assert second.resource == first.resource
    with pytest.raises(PreconditionFailedError):
        remote.store(("f",), upload(tmp_path, b"3"), first)
    with pytest.raises(ParentNotFoundError):
        store(remote, tmp_path, "none/f")


def test_content_that_changed_on_its_way_is_refused(remote: WebDavRemote, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError):
        remote.store(("f",), replace(upload(tmp_path, b"hello"), digest=bytes(32)), None)
    assert remote.list(()) == []
    for size in (4, 6):
        with pytest.raises(PreconditionFailedError):
            remote.store(("f",), replace(upload(tmp_path, b"hello"), size=size), None)
    assert remote.list(()) == []


def test_a_link_is_one_from_the_beginning(remote: WebDavRemote, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("tärget/x")
    target = "tärget/x".encode()
    token = remote.token()
    link = Upload(
        Kind.LINK, tmp_path / "link", len(target), hashlib.sha256(target).digest(), Attributes(MTIME_MS, None)
    )
    stamp = remote.store(("l",), link, None)
    [entry] = remote.list(())
    assert (entry.path, entry.kind, entry.stamp) == (("l",), Kind.LINK, stamp)
    assert [entry.kind for entry in remote.changes(token).changed] == [Kind.LINK]
    remote.fetch(("l",), stamp, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == target


def test_moves_keep_the_stamp_and_replace_nothing(remote: WebDavRemote, tmp_path: Path) -> None:
    stamp = store(remote, tmp_path, "f")
    directory = remote.make_directory(("d",))
    with pytest.raises(EntryExistsError):
        remote.make_directory(("d",))
    remote.move(("f",), ("d", "g"), stamp)
    assert [entry.stamp for entry in remote.list(("d",))] == [stamp]
    remote.move(("d",), ("e",), directory)
    assert [(entry.path, entry.stamp) for entry in remote.list(())] == [(("e",), directory)]
    store(remote, tmp_path, "f")
    with pytest.raises(PreconditionFailedError):
        remote.move(("e",), ("f",), directory)
    with pytest.raises(PreconditionFailedError):
        remote.move(("e",), ("z",), RemoteStamp("another"))
    with pytest.raises(PreconditionFailedError):
        remote.move(("f",), ("z",), stamp)


def test_deletions_take_only_what_was_seen(remote: WebDavRemote, tmp_path: Path) -> None:
    top, sub = remote.make_directory(("d",)), remote.make_directory(("d", "sub"))
    file = store(remote, tmp_path, "d/sub/f")
    seen = {("d", "sub"): sub, ("d", "sub", "f"): file}
    for wrong in ({}, {("d", "sub"): sub}, seen | {("d", "sub", "f"): file._replace(etag='"1-1"')}):
        with pytest.raises(PreconditionFailedError):
            remote.delete(("d",), top, wrong)
    with pytest.raises(PreconditionFailedError):
        remote.delete(("d", "sub", "f"), file._replace(etag='"1-1"'), {})
    remote.delete(("d",), top, seen)
    assert remote.list(()) == []


def test_changes_since_a_token(remote: WebDavRemote, tmp_path: Path) -> None:
    remote.make_directory(("d",))
    stamp = store(remote, tmp_path, "d/f")
    token = remote.token()
    assert remote.changes(token).changed == []
    remote.move(("d", "f"), ("g",), stamp)
    found = remote.changes(token)
    assert [entry.path for entry in found.changed if entry.kind is Kind.FILE] == [("g",)]
    assert (list(found.removed), found.is_complete) == ([("d", "f")], True)
    with pytest.raises(SequenceExpiredError):
        remote.changes("urn:x-helenite:sync:another:1")


def test_changes_that_the_server_has_lost(fs: MemoryFileSystem, remote: WebDavRemote) -> None:
    token = remote.token()
    fs.faults["read_feed"] = HistoryLostError("restored")
    with pytest.raises(HistoryLostError):
        remote.changes(token)


def test_waiting_ends_with_a_change(fs: MemoryFileSystem, remote: WebDavRemote) -> None:
    token = remote.token()
    with fs.create(("home", "f")) as writer:
        writer.write(b"x")
        writer.commit()
    assert remote.wait(token, 20) is True


def test_tags_of_directories_follow_what_is_beneath(remote: WebDavRemote, tmp_path: Path) -> None:
    remote.make_directory(("d",))
    before = remote.walk_tag(())
    [entry] = remote.list(())
    assert entry.walk_tag == remote.walk_tag(("d",))
    store(remote, tmp_path, "d/f")
    assert remote.walk_tag(()) != before
    assert remote.walk_tag(("d",)) != entry.walk_tag


def test_attributes_leave_the_revision(remote: WebDavRemote, tmp_path: Path) -> None:
    stamp = store(remote, tmp_path, "f")
    fresh = remote.set_attributes(("f",), stamp, Attributes(MTIME_MS + 1, True))
    assert fresh == stamp._replace(mtime_ms=MTIME_MS + 1, executable=True)
    assert [entry.stamp for entry in remote.list(())] == [fresh]
    assert remote.set_attributes(("f",), fresh, Attributes(None, False)).executable is False
    assert [entry.stamp.executable for entry in remote.list(())] == [False]


def test_who_answers(fs: MemoryFileSystem, remote: WebDavRemote) -> None:
    identity = remote.identity()
    assert identity == remote.identity()
    fs.remove(("home",))
    with pytest.raises(EntryNotFoundError):
        remote.identity()
    fs.make_directory(("home",))
    assert remote.identity() != identity


def test_passwords() -> None:
    with our_gateway(user="anna") as client:
        url = f"http://{client.host}:{client.port}/"
        with connected(url, "anna", "secret") as remote:
            assert remote.list(()) == []
        with connected(url, "anna", "wrong") as remote, pytest.raises(PermissionDeniedError):
            remote.identity()


def test_nobody_there() -> None:
    with our_gateway() as client:
        url = f"http://{client.host}:{client.port}/"
    with connected(url) as remote, pytest.raises(UnavailableError):
        remote.identity()


ROOT = (
    b"<D:response><D:href>/</D:href><D:propstat><D:prop><D:resourcetype><D:collection/></D:resourcetype>"
    b"<D:getetag>%s</D:getetag><D:resource-id><D:href>urn:r</D:href></D:resource-id></D:prop>"
    b"<D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>" % b'"1"'
)
CHILD = ROOT.replace(b">/<", b">/c/<", 1).replace(b"urn:r", b"urn:c")
GOOD = b'<D:multistatus xmlns:D="DAV:">' + ROOT + CHILD + b"</D:multistatus>"
NONSENSE = {
    "the portal of a hotel": (200, b"<html><body>Welcome!</body></html>"),
    "200 instead of 207": (200, GOOD),
    "cut in the middle": (207, GOOD[:-40]),
    "cut before its end": (207, GOOD[: GOOD.rindex(b"<D:response>")]),
    "nothing": (207, b""),
    "without the directory": (207, GOOD.replace(ROOT, b"")),
    "an empty multistatus": (207, b'<D:multistatus xmlns:D="DAV:"/>'),
    "of another place": (207, GOOD.replace(b">/c/<", b">/c/d/<")),
    "an entry that failed": (207, GOOD.replace(b"200 OK", b"500 Oh")),
    "a redirect": (302, b""),
    "an error": (500, b"<html>"),
    "overload": (503, b"later"),
    "a teapot": (418, b""),
    "no ids": (207, GOOD.replace(b"resource-id>", b"other>")),
    "html": (207, b"<html><body>Welcome!</body></html>"),
    "a bomb": (207, b'<!DOCTYPE a [<!ENTITY b "x">]><a>&b;</a>'),
}


@contextmanager
def serving_by_hand(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with socketserver.TCPServer(("127.0.0.1", 0), handler) as server:
        worker = Worker("by hand", lambda _: server.serve_forever(0.01)).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        worker.stop()


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_an_error(name: str) -> None:
    status, body = NONSENSE[name]

    class Handler(BaseHTTPRequestHandler):
        def do_PROPFIND(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_REPORT = do_PROPFIND  # noqa: N815 - as http.server calls it

        def log_message(self, *_: object) -> None:
            pass

    with serving_by_hand(Handler) as url, connected(url) as remote:
        for ask in (lambda: remote.list(()), lambda: remote.changes("urn:t")):
            with pytest.raises((ProtocolError, UnavailableError)):
                ask()


@pytest.mark.parametrize(
    ("told", "wait_s"), [("7", 7.0), ("86400", RETRY_MAX_S), ("Fri, 31 Dec 1999 23:59:59 GMT", None), ("", None)]
)
def test_overload(told: str, wait_s: float | None) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_PROPFIND(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(503)
            self.send_header("Retry-After", told)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with serving_by_hand(Handler) as url, connected(url) as remote, pytest.raises(UnavailableError) as raised:
        remote.identity()
    assert (raised.value.wait_s if isinstance(raised.value, OverloadedError) else None) == wait_s


def test_throttles_hold_back() -> None:
    clock = Clock()
    throttle = Throttle(clock, 100_000)
    began = clock.monotonic_s()
    for _ in range(5):
        throttle.take(10_000)
    assert clock.monotonic_s() - began >= 0.2
    throttle.limit(1)
    released = threading.Event()
    Worker("taker", lambda _: (throttle.take(10_000), released.set())[0]).start()
    wait_until(lambda: throttle._free_at > began + 1_000)
    throttle.limit(2)  # who waits does not wait by the old rate
    assert released.wait(5)
    errors: list[UnavailableError] = []

    def take(_: threading.Event) -> None:
        try:
            throttle.take(10_000)
        except UnavailableError as error:
            errors.append(error)

    Worker("taker", take).start()
    throttle.stop()
    wait_until(lambda: errors)
    throttle.limit(None)
    with pytest.raises(UnavailableError, match="ends"):  # the agent ends, at whatever rate
        throttle.take(1)
