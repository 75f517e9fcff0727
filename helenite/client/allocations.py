"""Chunk handles with their replication chains, leased from the master in batches.

Used by `pool`: most writes find an allocation here and spare a round trip. A batch is thrown away when its lease ends
or when one of its servers failed. Thread-safe: one lock guards the batch; the RPC happens outside it.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from helenite.client.rpc import MasterRpc
from helenite.core.errors import InsufficientStorageError
from helenite.core.model import DEFAULT_CHUNK_BYTES, Allocation, ServerId
from helenite.core.pb import master_pb2
from helenite.core.wire import allocation_from_message

BATCH_MAX = 64
"""Handles asked for at once at most; the batch doubles from 1, so that a client of one file asks for one."""


class Allocations:
    """Takes fresh allocations, one at a time."""

    def __init__(self, rpc: MasterRpc) -> None:
        self._rpc = rpc
        self._lock = threading.Lock()  # guards the batch and what came with it
        self._batch: deque[Allocation] = deque()
        self._expires_at = 0.0
        self._next_count = 1
        self._chunk_bytes = 0
        self.min_replicas = 1
        """Durable replicas that are enough to commit; learnt with each batch."""

    def chunk_bytes(self) -> int:
        """This cluster's chunk size."""
        if self._chunk_bytes == 0:
            self._fetch(frozenset(), 0.0)
        return self._chunk_bytes or DEFAULT_CHUNK_BYTES

    def take(self, exclude: frozenset[ServerId], deadline_s: float) -> Allocation:
        """A fresh handle with a chain that has none of `exclude`; InsufficientStorageError when there is none."""
        with self._lock:
            if time.monotonic() > self._expires_at:
                self._batch.clear()
            while self._batch:
                allocation = self._batch.popleft()
                if not exclude.intersection(allocation.servers):
                    return allocation
        self._fetch(exclude, deadline_s)
        with self._lock:
            for at, allocation in enumerate(self._batch):
                if not exclude.intersection(allocation.servers):
                    del self._batch[at]
                    return allocation
        raise InsufficientStorageError("the master offers no chunkserver but those that just failed; try again later")

    def drop(self) -> None:
        """Forget the batch: the cluster has changed."""
        with self._lock:
            self._batch.clear()
            self._next_count = 1

    def _fetch(self, exclude: frozenset[ServerId], deadline_s: float) -> None:
        with self._lock:
            count = self._next_count
            self._next_count = min(2 * count, BATCH_MAX)
        request = master_pb2.AllocateRequest(count=count, exclude=exclude)
        asked_at = time.monotonic()
        reply = self._rpc.namespace("Allocate", request, deadline_s or None)
        with self._lock:
            self._batch.extend(map(allocation_from_message, reply.allocations))
            self._expires_at = asked_at + reply.lease_s
            self._chunk_bytes = reply.chunk_bytes
            self.min_replicas = reply.min_replicas
