"""The call port: answers the most frequent metadata verbs on plain TCP connections, each in a thread of its own.

Used by `__main__`; the protocol is in `core.calls`, the work is done by `namespace_verbs`. gRPC stays the way to
everything, and the way for whoever cannot reach this port.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from helenite.core.calls import GREETING_BYTES, HEADER, encode_failure, encode_reply, parse_call, parse_header
from helenite.core.errors import HeleniteError, ProtocolError, UnavailableError
from helenite.core.pb import master_pb2
from helenite.core.sessions import Sessions
from helenite.core.stream import Stream
from helenite.master.namespace_verbs import NamespaceVerbs

CONNECTIONS_MAX = 256
"""Each costs a thread; whoever comes beyond them uses gRPC."""
BACKLOG = 128
TRANSFER_S = 30.0
"""Longest silence of a client in the middle of a call or a reply."""


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
            "ReadFeed": verbs.read_feed,
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
        stream = Stream(connection, TRANSFER_S)
        stream.send([self._greeting])
        while stream.wait():
            self._answer(stream)

    def _answer(self, stream: Stream) -> None:
        """Read a call and answer it."""
        code, length = parse_header(stream.take(HEADER.size))
        verb, request = parse_call(code, bytes(stream.take(length)))
        if not stream.is_empty:
            raise ProtocolError("a client sent a second call before the reply to the first")
        try:
            if verb.name == "Mutate" and not stream.is_silent():
                # Its end has arrived. A master that was paused finds calls whose clients have long been told no.
                raise UnavailableError("the client no longer waits for this change")
            reply = encode_reply(self._answers[verb.name](request))
        except HeleniteError as error:
            reply = encode_failure(error)
        stream.send([reply])
