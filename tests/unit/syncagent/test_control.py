"""The local socket: who may ask, what goes wrong, and the other way where there are no unix sockets."""

from __future__ import annotations

import json
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helenite.core.errors import EntryNotFoundError, ProtocolError, UnavailableError
from syncagent import control
from syncagent.control import ADDRESS, SOCKET, ControlServer, ask
from syncagent.settings import Home

Serve = Callable[[], ControlServer]


def answer(command: str, values: dict[str, Any]) -> dict[str, Any]:
    match command:
        case "echo":
            return values
        case "missing":
            raise EntryNotFoundError("there is no such thing")
        case "count":
            return {"count": int(values["count"])}
        case _:
            raise ValueError(command)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "h")
    home.make()
    return home


@pytest.fixture
def serve(home: Home) -> Iterator[Serve]:
    servers: list[ControlServer] = []

    def make() -> ControlServer:
        server = ControlServer(home, answer)
        server.start()
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.stop()


@pytest.fixture(params=["unix socket", "loopback port"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "loopback port":
        monkeypatch.setattr(control, "SOCKET_PATH_MAX", 1)
    return str(request.param)


def test_asking_and_answering(home: Home, serve: Serve, way: str) -> None:
    server = serve()
    text = "ä\n" * 100_000
    assert ask(home, "echo", text=text) == {"text": text}
    assert ask(home, "count", count="7") == {"count": 7}
    with pytest.raises(EntryNotFoundError, match="no such thing"):
        ask(home, "missing")
    for command, values in (("count", {}), ("count", {"count": "x"}), ("nonsense", {})):
        with pytest.raises(ProtocolError, match="does not understand"):
            ask(home, command, **values)
    file = home.path / (SOCKET if way == "unix socket" else ADDRESS)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    server.stop()
    assert not file.exists()
    with pytest.raises(UnavailableError, match="not running"):
        ask(home, "echo")


def test_many_ask_at_once(home: Home, serve: Serve) -> None:
    serve()
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda number=number: found.append(ask(home, "count", count=number)["count"]))
        for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(found) == list(range(20))


def test_a_wrong_token_gets_nothing(home: Home, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "SOCKET_PATH_MAX", 1)
    serve()
    address = json.loads((home.path / ADDRESS).read_text())
    for token in ("", "0" * len(address["token"])):
        with socket.create_connection(("127.0.0.1", address["port"])) as connection:
            connection.sendall(json.dumps({"command": "echo", "values": {}, "token": token}).encode() + b"\n")
            assert "token" in json.loads(connection.makefile().readline())["error"]


def test_nonsense_and_silence_hurt_nobody(home: Home, serve: Serve) -> None:
    serve()
    for sent in (b"", b"\n", b"{}\n", b"\xff\xfe\n", b"[1]\n", b'{"command": "echo"'):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(home.path / SOCKET))
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1 << 16)
    assert ask(home, "echo", still="here") == {"still": "here"}


def test_a_message_without_end_is_refused(home: Home, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "LINE_BYTES_MAX", 1_000)
    serve()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(home.path / SOCKET))
        connection.sendall(b"x" * 100_000)
        assert "at most 1000 bytes" in json.loads(connection.makefile().readline())["error"]


def test_what_a_dead_daemon_left_is_in_nobodys_way(home: Home, serve: Serve) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(home.path / SOCKET))
    left.close()
    with pytest.raises(UnavailableError):
        ask(home, "echo")
    serve()
    assert ask(home, "echo", a=1) == {"a": 1}
