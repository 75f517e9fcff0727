"""The call port: answers the most frequent metadata verbs on plain TCP connections, each in a thread of its own.

Used by `__main__`; the protocol is in `core.calls`, the work is done by `namespace_verbs`. gRPC stays the way to
everything, and the way for whoever cannot reach this port.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
from collections.abc import Callable
from typing import Any

from helenite.core.calls import GREETING_BYTES, HEADER, encode_failure, encode_reply, parse_call, parse_header
from helenite.core.dataport import configure
from helenite.core.descriptors import EXHAUSTED, Doorman
from helenite.core.errors import HeleniteError, ProtocolError, UnavailableError
from helenite.core.pb import master_pb2
from helenite.core.process import Worker
from helenite.master.namespace_verbs import NamespaceVerbs

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 256
"""Each costs a thread; whoever comes beyond them uses gRPC."""
BACKLOG = 128
TRANSFER_S = 30.0
"""Longest silence of a client in the middle of a call or a reply."""
FIRST_BYTES = 64 * 1024
"""Read at once; nearly every call fits."""
ACCEPT_PAUSE_S = 0.1
CLOSE_S = 5.0


class CallPort:
    """One listener and its connections. Thread-safe."""

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
        self._worker = Worker("calls", self._accept, on_crash)
        self._changed = threading.Condition()  # guards the two below
        self._connections: set[socket.socket] = set()
        self._is_closed = False

    @property
    def address(self) -> master_pb2.CallPort:
        """What FindCallPort tells."""
        return master_pb2.CallPort(port=self._listener.getsockname()[1], greeting=self._greeting)

    def start(self) -> None:
        self._worker.start()

    def stop(self) -> None:
        """Stop listening, end all connections and wait for the calls under way."""
        with self._changed:
            self._is_closed = True
            connections = list(self._connections)
        for each in [self._listener, *connections]:
            _shut_down(each)
        self._listener.close()
        with self._changed:
            if not self._changed.wait_for(lambda: not self._connections, CLOSE_S):
                log.warning("%d calls do not end", len(self._connections))
        self._worker.stop()

    def _accept(self, stopping: threading.Event) -> None:
        doorman = Doorman("calls")
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if self._is_closed:
                    doorman.close()
                    return
                if error.errno in EXHAUSTED:
                    doorman.turn_away(self._listener.accept)
                    continue
                log.warning("cannot accept a connection for calls: %s", error)
                stopping.wait(ACCEPT_PAUSE_S)
                continue
            if not self._admit(connection):
                connection.close()

    def _admit(self, connection: socket.socket) -> bool:
        with self._changed:
            if self._is_closed or len(self._connections) >= CONNECTIONS_MAX:
                return False
            self._connections.add(connection)
        try:
            Worker("call", lambda _: self._serve(connection)).start()
        except RuntimeError as error:  # the system gives no more threads
            log.warning("cannot serve a connection for calls: %s", error)
            self._forget(connection)
            return False
        return True

    def _serve(self, connection: socket.socket) -> None:
        try:
            configure(connection)
            connection.settimeout(TRANSFER_S)
            connection.sendall(self._greeting)
            waiting = select.poll()
            waiting.register(connection, select.POLLIN)
            while waiting.poll() and self._answer(connection, waiting):  # an idle connection may stay
                pass
        except (OSError, ProtocolError) as error:
            log.debug("a connection for calls ended: %s", error)
        finally:
            connection.close()
            self._forget(connection)

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

    def _forget(self, connection: socket.socket) -> None:
        with self._changed:
            self._connections.discard(connection)
            self._changed.notify_all()


def _receive(connection: socket.socket, into: bytearray, length: int) -> None:
    """Read until there are `length` bytes."""
    while len(into) < length:
        piece = connection.recv(max(FIRST_BYTES, length - len(into)))
        if not piece:
            raise ConnectionResetError("the client left in the middle of a call")
        into += piece


def _shut_down(sock: socket.socket) -> None:
    """Wake whoever waits at this socket."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        log.debug("a connection was gone already: %s", error)
