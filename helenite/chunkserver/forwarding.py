"""The next hop of a replication chain: a WRITE passed on while it arrives, over a connection that is kept.

Used by `session`. A hop that fails or hangs is left out of the acknowledgements and never fails the local replica. The
thread that forwards waits only for its own connection to the next hop, never for a pool, so chains that run in circles
cannot block each other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from helenite.core.dataport import DataConnection, IdleConnections
from helenite.core.errors import HeleniteError
from helenite.core.frames import Ack, Target, WriteRequest
from helenite.core.model import ServerId

log = logging.getLogger(__name__)

CONNECT_S = 2.0
PATIENCE_MAX_S = 120.0
"""Whatever a sender says it will wait; even 64 MiB over a poor network do not take longer."""
MARGIN_S = 0.5
"""Kept from the sender's patience to answer it in time without a hop that hangs."""
STALL_SHARE = 1 / 3
"""A hop that does not take one piece within this share of the patience hangs; the rest is for what waited meanwhile."""


class Forward:
    """The rest of a chain, as seen from one hop: pieces out, acknowledgements back. Trouble is noted, not raised."""

    def __init__(self, hops: IdleConnections, request: WriteRequest) -> None:
        patience_s = min(request.patience_ms / 1000, PATIENCE_MAX_S)
        self._deadline = time.monotonic() + patience_s - min(MARGIN_S, patience_s / 4)
        self._stall_s = patience_s * STALL_SHARE
        self._hops = hops
        self._server = ServerId(0)
        self._connection: DataConnection | None = None
        if request.targets:
            first, *rest = request.targets
            self._server = first.server
            self._attempt(lambda: self._start(first, replace(request, targets=tuple(rest))))

    def _start(self, target: Target, request: WriteRequest) -> None:
        self._connection = self._hops.take(target.server) or DataConnection.connect(
            target.server, target.address, target.socket, None, min(CONNECT_S, self._stall_s)
        )
        onward = replace(request, patience_ms=max(0, int(self._left_s() * 1000)))
        self._connection.start_write(onward, self._stall_s)

    def send(self, piece: memoryview) -> None:
        """Pass a piece on."""
        connection = self._connection
        if connection is not None:
            self._attempt(lambda: connection.send_piece(piece, min(self._left_s(), self._stall_s)))

    def acks(self) -> tuple[Ack, ...]:
        """What the hops behind have made durable."""
        connection = self._connection
        if connection is None:
            return ()
        found: list[Ack] = []
        self._attempt(lambda: found.extend(connection.receive_acks(self._left_s())))
        if self._connection is not None:
            self._hops.give_back(self._server, connection)
        return tuple(found)

    def give_up(self) -> None:
        """The hop behind will notice the end of the stream."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _left_s(self) -> float:
        return self._deadline - time.monotonic()

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except HeleniteError as error:
            log.warning("the next server of a chain, %d, failed: %s", self._server, error)
            self.give_up()
