"""The masters as a chunkserver knows them: those of its settings and those it has heard of, with a channel to each.

Used by `peers`: the gRPC border towards the masters. All of them are beaten to at once, so that one that hangs does not
make this server silent for the others. Thread-safe.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import grpc

from helenite.core.errors import HeleniteError, UnavailableError
from helenite.core.model import ChunkHandle, ServerId
from helenite.core.pb import common_pb2, master_pb2
from helenite.core.pb.master_pb2_grpc import AdminStub, ClusterStub
from helenite.core.serving import GRPC_OPTIONS
from helenite.core.wire import error_from_rpc

log = logging.getLogger(__name__)
T = TypeVar("T")

ATTEMPT_S = 3.0
"""Patience with one master; well below the silence after which a chunkserver is suspect."""
REPORT_S = 600.0
"""Patience with a whole chunk report: a million chunks are looked up one page after the other."""
MASTERS_MAX = 64
"""Addresses kept; a cluster has a few masters."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A master's reply to a heartbeat: to the one just sent, or to an earlier one."""

    master: str
    asked: master_pb2.HeartbeatRequest
    message: master_pb2.HeartbeatReply


class Masters:
    """Channels to all known masters. One lock guards them and what was last wrong with each."""

    def __init__(self, seeds: tuple[str, ...]) -> None:
        self._seeds = seeds
        self._lock = threading.Lock()
        self._channels: dict[str, grpc.Channel] = {}
        self._stubs: dict[str, ClusterStub] = {}
        self._owed: dict[str, tuple[master_pb2.HeartbeatRequest, grpc.Future[master_pb2.HeartbeatReply]]] = {}
        """Heartbeats without a reply yet."""
        self._is_closed = False
        self._troubles: dict[str, str] = {}
        self.learn(())

    def addresses(self) -> list[str]:
        with self._lock:
            return list(self._stubs)

    def learn(self, addresses: Iterable[str]) -> None:
        """These are the masters now, besides those of the settings."""
        wanted = list(dict.fromkeys((*self._seeds, *addresses)))[:MASTERS_MAX]
        with self._lock:
            if self._is_closed:
                return
            for address in wanted:
                if address not in self._channels:
                    self._channels[address] = grpc.insecure_channel(address, options=GRPC_OPTIONS)
                    self._stubs[address] = ClusterStub(self._channels[address])
            gone = [self._channels.pop(address) for address in list(self._channels) if address not in wanted]
            self._stubs = {address: stub for address, stub in self._stubs.items() if address in wanted}
        for channel in gone:
            channel.close()

    def close(self) -> None:
        """End all calls, at once."""
        with self._lock:
            self._is_closed = True
            channels = list(self._channels.values())
            self._stubs.clear()
        for channel in channels:
            channel.close()

    def register(self, address: str, request: master_pb2.RegisterRequest) -> master_pb2.RegisterReply:
        return self._call(address, lambda stub: stub.Register.future(request, timeout=ATTEMPT_S))

    def beat_all(self, request: master_pb2.HeartbeatRequest, wait_s: float) -> Iterator[Reply]:
        """Send one heartbeat to every master at once; the replies that come within `wait_s`.

        A master that still owes a reply gets no second heartbeat: its reply comes out of a later call. So one that
        hangs makes this server silent for no other; and once it is known to be in trouble it is not waited for, so that
        the others' orders (repair is a chain of them) are not held up beat after beat.
        """
        with self._lock:
            troubled = {address for address, trouble in self._troubles.items() if trouble}
            for address, stub in self._stubs.items():
                if address not in self._owed:
                    self._owed[address] = request, stub.Heartbeat.future(request, timeout=ATTEMPT_S)
            waiting = dict(self._owed)
        deadline = time.monotonic() + wait_s
        for address, (asked, future) in waiting.items():
            patience_s = 0.0 if address in troubled else max(0.0, deadline - time.monotonic())
            try:
                reply = _result(address, future, patience_s)
            except grpc.FutureTimeoutError:
                continue
            except HeleniteError as error:
                self.note(address, error)
            else:
                self.note(address, None)
                yield Reply(address, asked, reply)
            with self._lock:
                del self._owed[address]

    def report(self, address: str, server: ServerId, pages: Iterable[list[ChunkHandle]]) -> None:
        """Tell a master everything that is held here."""

        def messages() -> Iterator[master_pb2.ChunkReport]:
            for page in pages:
                yield master_pb2.ChunkReport(server=server, handles=page)
            yield master_pb2.ChunkReport(server=server, is_last=True)

        self._call(address, lambda stub: stub.ReportChunks.future(messages(), timeout=REPORT_S))

    def dump(self, address: str) -> Iterator[bytes]:
        """A dump of all metadata from this master, piece by piece."""
        with self._lock:
            channel = self._channels.get(address)
        if channel is None:
            raise UnavailableError(f"{address} is no master any more")
        try:
            for piece in AdminStub(channel).Dump(common_pb2.Empty(), timeout=REPORT_S):
                yield piece.data
        except grpc.RpcError as error:
            raise error_from_rpc(error, f"master {address}") from error

    def note(self, address: str, error: HeleniteError | None) -> None:
        """Log when a master begins to fail, fails otherwise, or is well again; not each time."""
        trouble = "" if error is None else str(error)
        with self._lock:
            if self._is_closed:
                return
            before = self._troubles.get(address, "")
            self._troubles[address] = trouble
        if trouble and trouble != before:
            log.warning("a master does not hear this chunkserver: %s", trouble)
        elif before and not trouble:
            log.info("master %s hears this chunkserver again", address)

    def _call(self, address: str, begin: Callable[[ClusterStub], grpc.Future[T]]) -> T:
        with self._lock:
            stub = self._stubs.get(address)
            if stub is None:
                raise UnavailableError(f"{address} is no master any more")
            reply = begin(stub)
        return _result(address, reply)


def _result(address: str, reply: grpc.Future[T], timeout_s: float | None = None) -> T:
    """What came; FutureTimeoutError when nothing has yet."""
    try:
        return reply.result(timeout_s)
    except grpc.RpcError as error:
        raise error_from_rpc(error, f"master {address}") from error
    except grpc.FutureCancelledError:
        raise UnavailableError(f"the call to master {address} was ended from here") from None
