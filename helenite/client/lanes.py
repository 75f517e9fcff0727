"""The short way to a master: its call port, as long as that can be reached, else gRPC.

Used by `rpc`, which fails over between masters. Connections are kept; one call at a time on each. Thread-safe: one lock
guards the idle connections and where the port is.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import Any

import grpc
from google.protobuf.message import Message

from helenite.core.calls import GREETING_BYTES, HEADER, encode_call, parse_header, parse_reply
from helenite.core.errors import DeadlineExceededError, ProtocolError, UnavailableError
from helenite.core.pb import common_pb2
from helenite.core.pb.master_pb2_grpc import NamespaceStub
from helenite.core.stream import Stream

log = logging.getLogger(__name__)

IDLE_MAX = 16
"""Idle connections kept to a master; each costs it a sleeping thread."""
CONNECT_S = 1.0
AGAIN_S = 5.0
"""After the port could not be reached, until it is looked for again; gRPC does meanwhile."""


class Lane:
    """One master's call port."""

    def __init__(self, master: str, stub: NamespaceStub) -> None:
        self._master = master
        self._stub = stub
        self._lock = threading.Lock()  # guards everything below
        self._idle: list[Stream] = []
        self._look_at = 0.0
        self._is_hidden = False
        self._is_closed = False

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def call(self, name: str, request: Message, timeout: float) -> Any:
        """The reply to a verb of `calls.VERBS`. Raises what the master raised; grpc.RpcError when gRPC was the way."""
        deadline = time.monotonic() + timeout
        connection = self._take(timeout)
        if connection is None:
            return getattr(self._stub, name)(request, timeout=max(0.01, deadline - time.monotonic()))
        try:
            reply = _exchange(connection, encode_call(name, request), deadline)
        except TimeoutError:
            connection.close()
            raise DeadlineExceededError(f"master {self._master} did not answer in time") from None
        except (OSError, ProtocolError) as error:
            connection.close()
            raise UnavailableError(f"master {self._master} ended the connection: {error}") from error
        self._give_back(connection)
        return parse_reply(name, *reply)

    def _take(self, timeout_s: float) -> Stream | None:
        """A connection that stands, kept or new; None when the port cannot be reached."""
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
                is_due = time.monotonic() >= self._look_at and not self._is_closed
            if connection is None:
                break
            if connection.is_silent():
                return connection
            connection.close()
        return self._connect(min(timeout_s, CONNECT_S)) if is_due else None

    def _connect(self, timeout_s: float) -> Stream | None:
        """Ask where the port is, as the master may be another by now, and connect."""
        deadline = time.monotonic() + timeout_s
        try:
            found = self._stub.FindCallPort(common_pb2.Empty(), timeout=timeout_s)
            if found.port == 0:
                raise UnavailableError("it has none")
            host = self._master.rpartition(":")[0].strip("[]")
            connection = Stream(socket.create_connection((host, found.port), timeout=timeout_s), timeout_s)
            try:
                if connection.take(GREETING_BYTES, deadline) != found.greeting:
                    raise ProtocolError("somebody else answers there")
            except BaseException:
                connection.close()
                raise
        except (grpc.RpcError, OSError, ProtocolError, UnavailableError) as error:
            # The call itself tells what is wrong with the master, if it is more than this port.
            reason = error.details() if isinstance(error, grpc.Call) else error
            with self._lock:
                self._look_at = time.monotonic() + AGAIN_S
                is_news, self._is_hidden = not self._is_hidden, True
            if is_news:
                log.info("the call port of master %s cannot be reached: %s", self._master, reason)
            return None
        with self._lock:
            self._is_hidden = False
        return connection

    def _give_back(self, connection: Stream) -> None:
        with self._lock:
            if not self._is_closed and len(self._idle) < IDLE_MAX:
                self._idle.append(connection)
                return
        connection.close()


def _exchange(connection: Stream, call: bytes, deadline: float) -> tuple[int, bytes]:
    """Send a call and read its reply: status and message. TimeoutError, OSError or ProtocolError end the connection."""
    connection.send([call], deadline)
    status, length = parse_header(connection.take(HEADER.size, deadline))
    message = bytes(connection.take(length, deadline))
    if not connection.is_empty:
        raise ProtocolError("it has sent more than a reply")
    return status, message
