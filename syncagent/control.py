"""How the commands and the tray talk to the daemon: one JSON line there, one back, over a socket of the agent's home.

A unix socket that only its owner may open; where there is none (Windows, or a home whose path is too long for one), a
port on the loopback interface and a token in a file that only its owner may read. Threading: one thread accepts, and
each connection is served by one of a few threads.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import os
import secrets
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from helenite.core.errors import HeleniteError, ProtocolError, UnavailableError, error_from_code
from helenite.core.process import Worker
from syncagent.settings import Home, write_private

log = logging.getLogger(__name__)

SOCKET = "control.sock"
ADDRESS = "control.json"
LINE_BYTES_MAX = 16 << 20
"""A history of all lines fits."""
THREADS = 8
"""One or two of them wait for news to tell a tray."""
ACCEPT_S = 0.5
"""Between two looks at whether to stop."""
ASK_S = 60.0
"""A command that waits for a cycle to end gives up before that."""
SOCKET_PATH_MAX = 100
"""Some systems allow 104 bytes, some 108."""

Answer = dict[str, Any]
Handler = Callable[[str, dict[str, Any]], Answer]


class ControlServer:
    """Answers commands until it is stopped."""

    def __init__(self, home: Home, handle: Handler) -> None:
        self._home = home
        self._handle = handle
        self._token = secrets.token_hex(16)
        self._socket = self._listen()
        self._pool = ThreadPoolExecutor(THREADS, "control")
        self._worker = Worker("control", self._accept)

    def start(self) -> None:
        self._worker.start()

    def stop(self) -> None:
        self._worker.stop()
        self._socket.close()
        self._pool.shutdown(wait=False)  # who has been let in gets an answer
        for name in (SOCKET, ADDRESS):
            (self._home.path / name).unlink(missing_ok=True)

    def _listen(self) -> socket.socket:
        """The daemon's lock is held, so an old socket belongs to nobody."""
        path = self._home.path / SOCKET
        path.unlink(missing_ok=True)
        if sys.platform != "win32" and len(os.fsencode(path)) <= SOCKET_PATH_MAX:
            listening = socket.socket(socket.AF_UNIX)
            old = os.umask(0o177)
            try:
                listening.bind(str(path))
            finally:
                os.umask(old)
        else:
            listening = socket.socket(socket.AF_INET)
            listening.bind(("127.0.0.1", 0))
            address = {"port": listening.getsockname()[1], "token": self._token}
            write_private(self._home.path / ADDRESS, json.dumps(address))
        listening.listen()
        listening.settimeout(ACCEPT_S)
        return listening

    def _accept(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                continue
            except OSError as error:  # too many open files, or the socket is closed because we stop
                stopping.wait(ACCEPT_S)
                log.info("control: %s", error)
                continue
            self._pool.submit(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(ASK_S)
        with connection, contextlib.suppress(OSError):  # who asked has gone away
            try:
                request = json.loads(_read_line(connection))
                if connection.family == socket.AF_INET:
                    self._check_token(request)
                answer = self._handle(request["command"], request["values"])
            except HeleniteError as error:
                answer = {"error": str(error), "code": error.code}
            except (ValueError, KeyError, TypeError) as error:
                answer = {"error": f"the agent does not understand this: {error}", "code": ProtocolError.code}
            connection.sendall(json.dumps(answer).encode() + b"\n")

    def _check_token(self, request: dict[str, Any]) -> None:
        if not hmac.compare_digest(str(request.get("token", "")), self._token):
            raise ProtocolError("the token is wrong")


def ask(home: Home, command: str, **values: Any) -> Answer:
    """Tell the daemon something; its answer. UnavailableError when none is running."""
    try:
        with _connect(home) as connection:
            token = _load_token(home) if connection.family == socket.AF_INET else ""
            connection.sendall(json.dumps({"command": command, "values": values, "token": token}).encode() + b"\n")
            answer: Answer = json.loads(_read_line(connection))
    except (OSError, ValueError) as error:
        raise UnavailableError(f"the agent is not running; start it with: helenite sync run{home.option}") from error
    if "error" in answer:
        raise error_from_code(answer["code"], answer["error"])
    return answer


def _connect(home: Home) -> socket.socket:
    path = home.path / SOCKET
    address: str | tuple[str, int]
    if sys.platform != "win32" and path.exists():
        connection, address = socket.socket(socket.AF_UNIX), str(path)
    else:
        address = "127.0.0.1", int(_load(home)["port"])
        connection = socket.socket(socket.AF_INET)
    connection.settimeout(ASK_S)
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


def _load(home: Home) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((home.path / ADDRESS).read_text(encoding="utf-8"))
    return values


def _load_token(home: Home) -> str:
    return str(_load(home)["token"])


def _read_line(connection: socket.socket) -> bytes:
    pieces, size = [], 0
    while True:
        piece = connection.recv(1 << 16)
        pieces.append(piece)
        size += len(piece)
        if piece.endswith(b"\n") or not piece:
            return b"".join(pieces)
        if size > LINE_BYTES_MAX:
            raise ProtocolError(f"a message has at most {LINE_BYTES_MAX} bytes")
