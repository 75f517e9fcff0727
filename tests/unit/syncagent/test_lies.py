"""What answers in the place of the server, or damages what it says, never makes the agent delete anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from syncagent import runner
from syncagent.control import ask
from syncagent.status import Mood
from tests.support.gateways import make_certificate, our_server, serving
from tests.support.memory_filesystem import MemoryFileSystem
from tests.support.sync_daemon import Running, names
from tests.support.waiting import wait_until
from webdav.app import Application
from webdav.server import LazyTls

LOOKS = {"PROPFIND", "REPORT"}
FILES = ("a", "b", "d/c")
EMPTY = b'<?xml version="1.0"?><D:multistatus xmlns:D="DAV:"><D:sync-token>urn:x:9</D:sync-token></D:multistatus>'


@dataclass(frozen=True)
class Said:
    """An answer to one request."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes


Lie = Callable[[Said | None], Said]
"""What is said instead of the true answer; that is given only for questions, nothing else gets through."""


def always(status: str, body: bytes = b"", *headers: tuple[str, str]) -> Lie:
    return lambda _: Said(status, [("Content-Type", "text/html"), *headers], body)


def damaged(harm: Callable[[bytes], bytes], status: str = "") -> Lie:
    def damage(true: Said | None) -> Said:
        if true is None:
            return Said("503 Service Unavailable", [], b"")
        headers = [(name, value) for name, value in true.headers if name.lower() != "content-length"]
        return Said(status or true.status, headers, harm(true.body))

    return damage


LIES = {
    "the portal of a hotel": always("200 OK", b"<html>Welcome! Please log in.</html>"),
    "a portal that redirects": always("302 Found", b"", ("Location", "/login")),
    "moved for ever": always("301 Moved Permanently", b"", ("Location", "http://127.0.0.1:9/")),
    "200 instead of 207": damaged(lambda body: body, "200 OK"),
    "cut": damaged(lambda body: body[: len(body) // 2]),
    "nothing at all": damaged(lambda _: b""),
    "an empty multistatus": damaged(lambda _: EMPTY, "207 Multi-Status"),
    "another user's rights": always("403 Forbidden"),
    "nobody logged in": always("401 Unauthorized", b"", ("WWW-Authenticate", 'Basic realm="x"')),
    "nothing here": always("404 Not Found"),
    "gone": always("410 Gone"),
    "a bad request": always("400 Bad Request"),
    "a bug": always("500 Internal Server Error", b"<html>"),
    "overload": always("503 Service Unavailable", b"", ("Retry-After", "1")),
}


class Liar:
    """A gateway that can lie."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.lie: Lie | None = None
        self.count = 0
        """Requests of cycles."""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.count += "wait=" not in environ.get("HTTP_PREFER", "")  # who waits for a change may ask at any time
        if self.lie is None:
            found: Iterable[bytes] = self._app(environ, start_response)
            return found
        true = self._ask(environ) if environ["REQUEST_METHOD"] in LOOKS else None
        said = self.lie(true)
        start_response(said.status, [*said.headers, ("Content-Length", str(len(said.body)))])
        return [said.body]

    def _ask(self, environ: dict[str, Any]) -> Said:
        begun: list[tuple[str, list[tuple[str, str]]]] = []
        pieces = self._app(environ, lambda status, headers, *_: begun.append((status, headers)))
        return Said(*begun[0], b"".join(pieces))


@pytest.fixture
def liar(fs: MemoryFileSystem) -> Liar:
    return Liar(Application(fs))  # type: ignore[arg-type]


@pytest.fixture
def running(liar: Liar, tmp_path: Path) -> Iterator[Running]:
    with serving(our_server(liar)) as server:
        found = Running(tmp_path, f"http://{server.bind_addr[0]}:{server.bind_addr[1]}")
        found.start()
        yield found
        found.stop()


def bring_some(running: Running, fs: MemoryFileSystem) -> None:
    """Both sides have some files."""
    (running.folder / "d").mkdir()
    for name in FILES:
        (running.folder / name).write_bytes(name.encode())
    wait_until(lambda: names(fs) == {"a", "b", "d"} and names(fs, "d") == {"c"}, 60)
    running.settles()


def check_nothing_is_lost(running: Running, fs: MemoryFileSystem) -> None:
    assert {name: (running.folder / name).read_bytes() for name in FILES} == {name: name.encode() for name in FILES}
    assert names(fs) >= {"a", "b", "d"}
    assert names(fs, "d") == {"c"}


def look_twice(running: Running) -> None:
    """Two cycles over everything."""
    for _ in range(2):
        cycles = running.pair_status.cycles
        ask(running.home, "sync")
        wait_until(lambda cycles=cycles: running.pair_status.cycles > cycles, 20)


@pytest.mark.parametrize("name", LIES)
def test_a_lie_deletes_nothing(name: str, liar: Liar, running: Running, fs: MemoryFileSystem) -> None:
    bring_some(running, fs)
    liar.lie = LIES[name]
    (running.folder / "fresh").write_bytes(b"saved meanwhile")
    look_twice(running)
    wait_until(lambda: running.pair_status.mood in {Mood.OFFLINE, Mood.ATTENTION}, 20)
    assert not running.pair_status.is_settled
    check_nothing_is_lost(running, fs)
    assert names(fs) == {"a", "b", "d"}
    liar.lie = None
    ask(running.home, "sync")
    wait_until(lambda: "fresh" in names(fs), 20)
    running.settles()
    check_nothing_is_lost(running, fs)
    assert running.pair_status.mood is Mood.IDLE


def test_another_certificate(
    liar: Liar,
    fs: MemoryFileSystem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    need: Callable[..., None],
) -> None:
    """Whoever cannot show that it is the server is not spoken to, and the password is not sent there."""
    need("openssl")
    (tmp_path / "other").mkdir()
    known, other = make_certificate(tmp_path), make_certificate(tmp_path / "other")
    monkeypatch.setenv("SSL_CERT_FILE", known[0])
    server = our_server(liar)
    server.ssl_adapter = LazyTls(*known)
    with serving(server):
        running = Running(tmp_path, f"https://localhost:{server.bind_addr[1]}")
        running.start()
        bring_some(running, fs)
        server.ssl_adapter = LazyTls(*other)
        liar.lie = always("503 Service Unavailable", b"", ("Connection", "close"))  # of connections from before
        (running.folder / "fresh").write_bytes(b"saved meanwhile")
        look_twice(running)
        wait_until(lambda: "certificate" in running.pair_status.sentence, 60)
        asked = liar.count
        look_twice(running)
        assert liar.count == asked
        wait_until(lambda: running.pair_status.mood is Mood.OFFLINE)  # not while it looks
        check_nothing_is_lost(running, fs)
        server.ssl_adapter, liar.lie = LazyTls(*known), None
        ask(running.home, "sync")
        wait_until(lambda: "fresh" in names(fs), 60)
        running.settles()
        check_nothing_is_lost(running, fs)
        running.stop()


def test_after_a_failure_the_servers_word_is_heard_again(
    liar: Liar, running: Running, fs: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, and not when it is time to look without having been told."""
    monkeypatch.setattr(runner, "POLL_S", 1_000.0)
    monkeypatch.setattr(runner, "WAIT_S", 1)
    bring_some(running, fs)
    liar.lie = LIES["overload"]
    wait_until(lambda: running.pair_status.mood is Mood.OFFLINE, 90)
    liar.lie = None
    running.settles()
    for number in range(3):
        fs.make_directory(("home", f"later {number}"))
        wait_until((running.folder / f"later {number}").exists, 20)
