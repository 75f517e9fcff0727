"""The client's border to the masters: gRPC and the short way, failover between them, one deadline for each request.

Used by `names` and the command line. Reads and mutations are tried again on another master while the deadline
lasts; mutations carry an operation id, so a repeat after a lost reply is harmless. Thread-safe.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc

from helenite.client.lanes import Lane
from helenite.core.calls import CODES
from helenite.core.errors import DeadlineExceededError, HeleniteError, UnavailableError
from helenite.core.pb.master_pb2_grpc import AdminStub, ClusterStub, NamespaceStub
from helenite.core.serving import GRPC_OPTIONS
from helenite.core.wire import error_from_rpc

ATTEMPT_S = 2.5
"""Longest wait for one master before the next is tried: a hung one costs time, not the request."""
PAUSE_S = 0.1
"""Pause after every master has failed once."""


class MasterRpc:
    """Calls the masters; create it after the fork."""

    def __init__(self, masters: tuple[str, ...], deadline_s: float) -> None:
        self._lock = threading.Lock()  # guards _current
        self._current = 0
        self._deadline_s = deadline_s
        self._masters = masters
        self._closed = threading.Event()
        self._channels = [grpc.insecure_channel(address, options=GRPC_OPTIONS) for address in masters]
        self._namespace = [NamespaceStub(channel) for channel in self._channels]
        self._lanes = [Lane(*each) for each in zip(masters, self._namespace, strict=True)]
        self._short: dict[str, list[Callable[..., Any]]] = {
            verb: [partial(lane.call, verb) for lane in self._lanes] for verb in CODES
        }
        self._cluster = [ClusterStub(channel) for channel in self._channels]
        self._admin = [AdminStub(channel) for channel in self._channels]

    def close(self) -> None:
        self._closed.set()
        for lane in self._lanes:
            lane.close()
        for channel in self._channels:
            channel.close()

    def namespace(self, verb: str, request: Any, deadline_s: float | None = None, attempt_s: float = ATTEMPT_S) -> Any:
        """Call a verb of the Namespace service and return its reply; raises what the master raised.

        `attempt_s` is the patience with one master: longer for verbs that may take long, which must not pile up there.
        """
        methods = self._short.get(verb) or [getattr(stub, verb) for stub in self._namespace]
        return self._call(methods, request, deadline_s, attempt_s)

    def cluster(self, verb: str, request: Any, deadline_s: float | None = None) -> Any:
        """Call a verb of the Cluster service."""
        return self._call([getattr(stub, verb) for stub in self._cluster], request, deadline_s)

    def admin(self, verb: str, request: Any) -> Any:
        """Call a verb of the Admin service."""
        return self._call([getattr(stub, verb) for stub in self._admin], request, None)

    def admin_stream(self, verb: str, request: Any, deadline_s: float) -> Iterator[Any]:
        """Call a streaming verb of the Admin service: its messages. Another master is tried only before the first."""
        error: HeleniteError | None = None
        for master, stub in zip(self._masters, self._admin, strict=True):
            has_begun = False
            try:
                for message in getattr(stub, verb)(request, timeout=deadline_s):
                    has_begun = True
                    yield message
            except grpc.RpcError as problem:
                error = error_from_rpc(problem, f"master {master}")
                if has_begun or not isinstance(error, UnavailableError):
                    raise error from problem
            else:
                return
        raise UnavailableError(f"no master answers ({', '.join(self._masters)}): {error}")

    def _call(
        self, methods: list[Callable[..., Any]], request: Any, deadline_s: float | None, attempt_s: float = ATTEMPT_S
    ) -> Any:
        deadline = time.monotonic() + (self._deadline_s if deadline_s is None else deadline_s)
        failures = 0
        while True:
            at = self._current
            left = deadline - time.monotonic()
            try:
                return methods[at](request, timeout=max(0.01, min(left, attempt_s)))
            except grpc.RpcError as problem:
                error = error_from_rpc(problem, f"master {self._masters[at]}")
            except HeleniteError as problem:
                error = problem
            failures += 1
            if not isinstance(error, UnavailableError) or self._closed.is_set():
                raise error
            self._next(at)
            self._pause_or_raise(error, failures, deadline)

    def _next(self, failed: int) -> None:
        with self._lock:
            if self._current == failed:
                self._current = (failed + 1) % len(self._masters)

    def _pause_or_raise(self, error: HeleniteError, failures: int, deadline: float) -> None:
        pause = PAUSE_S if failures % len(self._masters) == 0 else 0.0
        if time.monotonic() + pause >= deadline:
            if isinstance(error, DeadlineExceededError):
                raise error
            raise UnavailableError(f"no master answers ({', '.join(self._masters)}): {error}") from error
        self._closed.wait(pause)
