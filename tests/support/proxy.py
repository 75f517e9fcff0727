"""A TCP proxy between two parts of a cluster, which does to their bytes what bad networks do.

Each direction passes bytes on, keeps them until it is healed (a partition: connections stay, nothing arrives, and what
was sent comes late), or loses them. All connections can be cut. For tests; one accepting thread and two for each
connection, one lock.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from helenite.core.process import Worker

log = logging.getLogger(__name__)
PIECE_BYTES = 65_536
CONNECT_S = 5.0
BACKLOG = 128


class Gate(StrEnum):
    """What becomes of the bytes of one direction."""

    PASS = "pass"
    KEEP = "keep"
    LOSE = "lose"


@dataclass(slots=True, eq=False)
class _Link:
    """One connection: the client's socket, the server's, and how many of its two pumps still run."""

    client: socket.socket
    server: socket.socket
    pumps: int = 2
    has_lost: bool = False
    workers: list[Worker] = field(default_factory=list)

    def end(self) -> None:
        """Cut it: wake both pumps; the last one closes."""
        for sock in (self.client, self.server):
            with contextlib.suppress(OSError):  # the other end may have ended it
                sock.shutdown(socket.SHUT_RDWR)


class Proxy:
    """Listens and forwards to `upstream`, `host:port` or the path of a unix socket."""

    def __init__(self, upstream: str | Path, listen: str = "127.0.0.1:0") -> None:
        self._upstream = upstream
        host, _, port = listen.rpartition(":")
        self._listener = socket.create_server((host, int(port)), backlog=BACKLOG)
        self.address = f"{host}:{self._listener.getsockname()[1]}"
        self._changed = threading.Condition()  # guards all below
        self._to_server, self._to_client = Gate.PASS, Gate.PASS
        self._delay_s = 0.0
        self._refuses = False
        self._is_closed = False
        self._links: set[_Link] = set()
        self.passed_bytes = 0
        self.lost_bytes = 0
        self.kept_count = 0
        """Pieces that had to wait for the end of a partition."""
        self._worker = Worker(f"proxy {self.address}", self._accept)
        self._worker.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything and wait for the threads."""
        with self._changed:
            self._is_closed = True
        self.heal()
        with contextlib.suppress(OSError):  # a listener that is not connected says so, and wakes all the same
            self._listener.shutdown(socket.SHUT_RDWR)
        self._worker.stop()
        self._listener.close()
        for worker in self.cut():
            worker.stop()

    # Faults

    def heal(self) -> None:
        """Pass everything on, what was kept first. Connections that lost something end: a stream with a gap is none."""
        self._set(Gate.PASS, Gate.PASS)
        with self._changed:
            torn = [link for link in self._links if link.has_lost]
        for link in torn:
            link.end()

    def partition(self) -> None:
        """Nothing arrives in either direction until it is healed; no connection ends."""
        self._set(Gate.KEEP, Gate.KEEP)

    def keep_requests(self) -> None:
        """What the client sends arrives late, when this is healed."""
        self._set(Gate.KEEP, Gate.PASS)

    def lose_requests(self) -> None:
        """What the client sends from now on is lost."""
        self._set(Gate.LOSE, Gate.PASS)

    def lose_replies(self) -> None:
        """What the server says from now on is lost."""
        self._set(Gate.PASS, Gate.LOSE)

    def delay(self, seconds: float) -> None:
        """Each piece, in each direction, waits so long."""
        self._set(Gate.PASS, Gate.PASS, delay_s=seconds)

    def refuse(self) -> None:
        """Cut all connections, and new ones at once."""
        self._set(Gate.PASS, Gate.PASS, refuses=True)
        self.cut()

    def cut(self) -> list[Worker]:
        """End all connections of this moment; new ones are let through. Returns their threads."""
        with self._changed:
            links, self._links = self._links, set()
            self._changed.notify_all()
        for link in links:
            link.end()
        return [worker for link in links for worker in link.workers]

    def _set(self, to_server: Gate, to_client: Gate, *, delay_s: float = 0.0, refuses: bool = False) -> None:
        with self._changed:
            self._to_server, self._to_client, self._delay_s, self._refuses = to_server, to_client, delay_s, refuses
            self._changed.notify_all()

    # Connections

    def _accept(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            server = None if self._refuses or self._is_closed else self._connect()
            if server is None:
                client.close()
                continue
            link = _Link(client, server)
            link.workers = [
                Worker("proxy to server", lambda _, link=link: self._pump(link, link.client, link.server)),
                Worker("proxy to client", lambda _, link=link: self._pump(link, link.server, link.client)),
            ]
            with self._changed:
                self._links.add(link)
            for worker in link.workers:
                worker.start()

    def _connect(self) -> socket.socket | None:
        try:
            if isinstance(self._upstream, Path):
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                sock.connect(str(self._upstream))
                return sock
            host, _, port = self._upstream.rpartition(":")
            sock = socket.create_connection((host, int(port)), CONNECT_S)
            sock.settimeout(None)
        except OSError as error:
            log.debug("%s does not answer: %s", self._upstream, error)
            return None
        return sock

    def _pump(self, link: _Link, source: socket.socket, sink: socket.socket) -> None:
        try:
            while piece := source.recv(PIECE_BYTES):
                if self._may_pass(link, len(piece), is_request=source is link.client):
                    sink.sendall(piece)
        except OSError as error:
            log.debug("a connection broke: %s", error)
        finally:
            # Its other direction goes on, as with a cable. Ending that as well would leave a client hanging that sends
            # what nobody wants: Linux tells nobody that there is room again in a socket that was shut down for reading.
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)
            with self._changed:
                link.pumps -= 1
                is_last = link.pumps == 0
                if is_last:
                    self._links.discard(link)
            if is_last:
                link.client.close()
                link.server.close()

    def _may_pass(self, link: _Link, length: int, *, is_request: bool) -> bool:
        """Wait as long as the piece is kept; whether it goes on."""

        def gate() -> Gate:
            return self._to_server if is_request else self._to_client

        with self._changed:
            if self._delay_s:
                self._changed.wait_for(lambda: link not in self._links, self._delay_s)
            if gate() is Gate.KEEP:
                self.kept_count += 1
                self._changed.notify_all()
                self._changed.wait_for(lambda: gate() is not Gate.KEEP or link not in self._links)
            passes = gate() is Gate.PASS and link in self._links
            if passes:
                self.passed_bytes += length
            else:
                self.lost_bytes += length
                link.has_lost = True
            return passes
