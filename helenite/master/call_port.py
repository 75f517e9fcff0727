"""The call port: answers the most frequent metadata verbs on plain TCP connections, each in a thread of its own.

Used by `__main__`; the protocol is in `core.calls`, the work is done by `namespace_verbs`. gRPC stays the way to
everything, and the way for whoever cannot reach this port.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from typing import Any

from helenite.core.calls import GREETING_BYTES, HEADER, encode_failure, encode_reply, parse_call, parse_header
from helenite.core.dataport import configure
from helenite.core.errors import HeleniteError, ProtocolError, UnavailableError
from helenite.core.pb import master_pb2
from helenite.core.sessions import Sessions
from helenite.master.namespace_verbs import NamespaceVerbs

CONNECTIONS_MAX = 256
"""Each costs a thread; whoever comes beyond them uses gRPC."""
BACKLOG = 128
TRANSFER_S = 30.0
"""Longest silence of a client in the middle of a call or a reply."""
FIRST_BYTES = 64 * 1024
"""Read at once; nearly every call fits."""


class CallPort:
    """One listener; `core.sessions` keeps its connections. Thread-safe."""

    def __init__(self, verbs: NamespaceVerbs, host: str, on_crash: Callable[[], None] | None = None) -> None:
        """Bind to any free port; OSError when there is none."""
        self._answers: dict[str, Callable[[Any], Any]] = {
            "Lookup": verbs.lookup,
            "List": verbs.list,
            "Locate": verbs.locate,
            "Mutate": verbs.mutate,
            "Allocate": verbs.allocate,
        }
        self._greeting = os.urandom(GREETING_BYTES)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), backlog=BACKLOG, family=family)
        self._sessions = Sessions("calls", self._serve, CONNECTIONS_MAX, on_crash)
        self._sessions.add(self._listener)

    @property
    def address(self) -> master_pb2.CallPort:
        """What FindCallPort tells."""
        return master_pb2.CallPort(port=self._listener.getsockname()[1], greeting=self._greeting)

    def start(self) -> None:
        self._sessions.start()

    def stop(self) -> None:
        """Stop listening, end all connections and wait for the calls under way."""
        self._sessions.end()
        self._sessions.wait()

    def _serve(self, connection: socket.socket) -> None:
        configure(connection)
        connection.settimeout(TRANSFER_S)
        connection.sendall(self._greeting)
        waiting = select.poll()
        waiting.register(connection, select.POLLIN)
        while waiting.poll() and self._answer(connection, waiting):  # an idle connection may stay
            pass

    def _answer(self, connection: socket.socket, waiting: select.poll) -> bool:
        """Read a call and answer it; False when the client has gone. `waiting` tells what arrives after the call."""
        received = bytearray(connection.recv(FIRST_BYTES))
        if not received:
            return False
        _receive(connection, received, HEADER.size)
        code, length = parse_header(received)
        _receive(connection, received, HEADER.size + length)
        if len(received) > HEADER.size + length:
            raise ProtocolError("a client sent a second call before the reply to the first")
        verb, request = parse_call(code, bytes(memoryview(received)[HEADER.size :]))
        try:
            if verb.name == "Mutate" and waiting.poll(0):
                # Its end has arrived. A master that was paused finds calls whose clients have long been told no.
                raise UnavailableError("the client no longer waits for this change")
            reply = encode_reply(self._answers[verb.name](request))
        except HeleniteError as error:
            reply = encode_failure(error)
        connection.sendall(reply)
        return True


def _receive(connection: socket.socket, into: bytearray, length: int) -> None:
    """Read until there are `length` bytes."""
    while len(into) < length:
        piece = connection.recv(max(FIRST_BYTES, length - len(into)))
        if not piece:
            raise ConnectionResetError("the client left in the middle of a call")
        into += piece
