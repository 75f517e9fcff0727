"""Chunks in and out: writes one chunk to its chain, reads a range of one chunk from the best replica.

Used by `reader` and `writer`. A dead, slow or full chunkserver costs a new allocation and a resend, or the next
replica, which is asked as well when the first is slower than usual (hedged reads). The request fails only when its
deadline passes or no good replica is left. Thread-safe.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Many
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import ParamSpec, TypeVar

from helenite.client.allocations import Allocations
from helenite.client.connections import TRANSPORT_ERRORS, Connections
from helenite.client.descriptors import Descriptors
from helenite.client.fanout import write_chain, write_fan_out, write_many
from helenite.client.hedging import Hedge
from helenite.client.retry import SLOW_S, is_enough, order_replicas, read_attempt_s, write_attempt_s
from helenite.client.rpc import MasterRpc
from helenite.core.checksum import block_checksums, digest, verify_blocks
from helenite.core.errors import (
    ChunkCorruptError,
    ChunkNotFoundError,
    ContentLostError,
    HeleniteError,
    InsufficientStorageError,
    ReplicaUnreadableError,
    UnavailableError,
)
from helenite.core.frames import ReadRequest
from helenite.core.model import BLOCK_BYTES, SEGMENT_CHUNK_BYTES_MAX, Allocation, ChunkHandle, Location, ServerId
from helenite.core.pb import master_pb2
from helenite.core.wire import location_from_message

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

BACKGROUND_THREADS = 16
"""Chunks written or read ahead at once in one process; their payloads bound its memory."""
RACING_THREADS = 64
"""Replicas read at once in one process; a hung server holds one for each read until its patience ends."""
ROUND_PAUSE_S = 0.2
"""Pause after every replica, or every allocation, has failed once."""
READ_ROUNDS_MAX = 4
"""Rounds over all replicas, with fresh locations before each, until content counts as lost."""


class ChunkPool:
    """One process's way to the chunks of the cluster."""

    def __init__(self, rpc: MasterRpc, deadline_s: float) -> None:
        self._rpc = rpc
        self._deadline_s = deadline_s
        self._connections = Connections(rpc)
        self._allocations = Allocations(rpc)
        self._descriptors = Descriptors(self._connections)
        self._background = ThreadPoolExecutor(BACKGROUND_THREADS, thread_name_prefix="chunks")
        self._racing = ThreadPoolExecutor(RACING_THREADS, thread_name_prefix="replicas")
        self._hedge = Hedge()
        self._slow_until: dict[ServerId, float] = {}
        """Servers that have just lost a race against another replica, and until when they are read from last."""
        self._turn = itertools.count()
        self._closed = threading.Event()

    def close(self) -> None:
        self._closed.set()
        self._background.shutdown(wait=True, cancel_futures=True)
        self._racing.shutdown(wait=True, cancel_futures=True)
        self._descriptors.close()
        self._connections.close()

    def chunk_bytes(self) -> int:
        """This cluster's chunk size."""
        return self._allocations.chunk_bytes()

    def forget_allocations(self) -> None:
        """A commit was refused since its chunks were allocated too long ago: so were those that are still in hand."""
        self._allocations.drop()

    def submit(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a transfer in the background."""
        return self._background.submit(call, *args, **kwargs)

    # Writing

    def write_chunk(self, data: memoryview) -> Location:
        """Store `data` as a fresh chunk on the promised number of replicas and return where it is.

        Fewer replicas, down to the cluster's minimum, are accepted when no better chain is to be had.
        InsufficientStorageError or UnavailableError when even that cannot be reached before the deadline.
        """
        expected = digest(block_checksums(data))
        deadline = time.monotonic() + self._deadline_s
        failed: set[ServerId] = set()
        best: Location | None = None
        for attempt in itertools.count():
            allocation = self._next_allocation(failed, best, deadline)
            if allocation is None:
                assert best is not None
                return best
            durable, trouble = self._write_once(allocation, data, expected, attempt, deadline)
            if len(durable) == len(allocation.servers):
                return Location(allocation.handle, durable, allocation.capability)
            failed.update(trouble)
            if self._is_better(durable, allocation, best):
                best = Location(allocation.handle, durable, allocation.capability)
        raise AssertionError("unreachable")

    def write_small(self, contents: Many[bytes]) -> list[Location | HeleniteError]:
        """Store small chunks together, in one request to each server; where each is, or why it could not be stored.

        A chunk that not all of its servers acknowledged is written again by itself.
        """
        deadline = time.monotonic() + self._deadline_s
        try:  # a master that takes over is waited for longer than a chunkserver
            chunks = [(self._take(set(), deadline - time.monotonic()), content) for content in contents]
        except (InsufficientStorageError, UnavailableError) as error:
            return [error] * len(contents)
        patience = write_attempt_s(sum(map(len, contents)), 0, self._deadline_s)
        acks, problems = write_many(self._connections, chunks, patience)
        self._note_problems(f"{len(chunks)} small chunks", problems)
        found: list[Location | HeleniteError] = []
        for (allocation, content), durable in zip(chunks, acks, strict=True):
            expected = digest(block_checksums(content))
            if all(durable.get(server) == expected for server in allocation.servers):
                found.append(Location(allocation.handle, allocation.servers, allocation.capability))
            elif found and isinstance(found[-1], UnavailableError):
                found.append(found[-1])  # the others would wait as long, one by one
            else:
                found.append(self._write_again(content))
        return found

    def _write_again(self, content: bytes) -> Location | HeleniteError:
        try:
            return self.write_chunk(memoryview(content))
        except HeleniteError as error:
            return error

    def _next_allocation(self, failed: set[ServerId], best: Location | None, deadline: float) -> Allocation | None:
        """An allocation worth trying, or None when `best` will not be beaten. Raises when there is neither."""
        while True:
            left = deadline - time.monotonic()
            try:
                if left <= 0 or self._closed.is_set():
                    raise UnavailableError("the chunkservers did not acknowledge a chunk in time; try again later")
                allocation = self._take(failed, left)
            except (InsufficientStorageError, UnavailableError) as error:
                if best is not None:
                    return None
                if not failed or left <= 0:
                    raise
                log.warning("every chain has failed once, starting over: %s", error)
                failed.clear()
                self._closed.wait(min(ROUND_PAUSE_S, left))
                continue
            if best is not None and len(allocation.servers) <= len(best.servers):
                return None
            return allocation

    def _take(self, failed: set[ServerId], left: float) -> Allocation:
        """An allocation without servers that failed this chunk, nor, if that is to be had, those that failed lately."""
        now = time.monotonic()
        suspects = {server for server, until in self._connections.suspects().items() if until > now}
        if suspects - failed:
            try:
                return self._allocations.take(frozenset(failed | suspects), left)
            except InsufficientStorageError as error:
                log.info("only servers that failed lately are left: %s", error)
        return self._allocations.take(frozenset(failed), left)

    def _is_better(self, durable: tuple[ServerId, ...], allocation: Allocation, best: Location | None) -> bool:
        enough = is_enough(len(durable), len(allocation.servers), self._allocations.min_replicas)
        return enough and len(durable) > (len(best.servers) if best else 0)

    def _write_once(
        self, allocation: Allocation, data: memoryview, expected: bytes, attempt: int, deadline: float
    ) -> tuple[tuple[ServerId, ...], frozenset[ServerId]]:
        """One attempt: the servers that hold the chunk for certain, and those to leave out of the next."""
        patience = write_attempt_s(len(data), attempt, deadline - time.monotonic())
        write = write_fan_out if len(data) <= SEGMENT_CHUNK_BYTES_MAX else write_chain
        acks, problems = write(self._connections, allocation, data, patience)
        durable = tuple(server for server in allocation.servers if acks.get(server) == expected)
        self._note_problems(f"chunk {allocation.handle:x}", problems)
        return durable, frozenset(problems)

    def _note_problems(self, what: str, problems: dict[ServerId, HeleniteError]) -> None:
        for server, problem in problems.items():
            log.warning("%s: chunkserver %d failed a write: %s", what, server, problem)
            if isinstance(problem, TRANSPORT_ERRORS):
                self._connections.suspect(server)
            if isinstance(problem, (*TRANSPORT_ERRORS, InsufficientStorageError)):
                self._allocations.drop()  # the master will soon know better than when it made these

    # Reading

    def read_kept(
        self, handle: ChunkHandle, offset: int, length: int, into: memoryview | None = None
    ) -> memoryview | None:
        """The same as `read_chunk` if it takes no waiting at all, else None; `into` as in `Descriptors.read_kept`."""
        return self._descriptors.read_kept(handle, offset, length, into)

    def read_chunk(self, location: Location, offset: int, length: int) -> memoryview:
        """`length` verified bytes of a chunk from `offset`.

        ContentLostError when no replica can give them, after asking the master again where replicas are.
        """
        if (kept := self.read_kept(location.handle, offset, length)) is not None:
            return kept
        deadline = time.monotonic() + self._deadline_s
        problems: dict[ServerId, HeleniteError] = {}
        for round_number in range(READ_ROUNDS_MAX):
            found = self._race(location, offset, length, round_number, deadline, problems)
            if found is not None:
                return found
            if time.monotonic() >= deadline or self._closed.wait(ROUND_PAUSE_S * round_number):
                break
            location = self._relocate(location)
        return _raise_unreadable(location, problems)

    def _race(
        self,
        location: Location,
        offset: int,
        length: int,
        round_number: int,
        deadline: float,
        problems: dict[ServerId, HeleniteError],
    ) -> memoryview | None:
        """The first good answer of a replica; the next one is asked when one fails or is slower than usual."""
        order = deque(self._ordered(location))
        waiting: dict[Future[memoryview], ServerId] = {}
        is_due = True
        while (left := deadline - time.monotonic()) > 0 and (order or waiting):
            if order and (is_due or not waiting):
                server = order.popleft()
                patience = read_attempt_s(length, round_number, left)
                waiting[self._racing.submit(self._attempt, server, location, offset, length, patience)] = server
            done, _ = wait(waiting, self._hedge.delay_s() if order else left, FIRST_COMPLETED)
            is_due = not done and bool(order) and self._hedge.take()
            for attempt in done:
                server = waiting.pop(attempt)
                problem = attempt.exception()
                if problem is None:
                    for slower in waiting.values():
                        self._slow_until[slower] = time.monotonic() + SLOW_S
                    return attempt.result()
                if not isinstance(problem, HeleniteError):
                    raise problem
                problems[server] = problem
        return None

    def _attempt(self, server: ServerId, location: Location, offset: int, length: int, patience: float) -> memoryview:
        """Read from one replica; also one that has lost its race notes that it failed, or how long it took."""
        started = time.monotonic()
        try:
            found = self._read_once(server, location, offset, length, patience)
        except HeleniteError as problem:
            self._note_read_failure(server, location, problem)
            raise
        self._hedge.note(time.monotonic() - started)
        return found

    def _ordered(self, location: Location) -> list[ServerId]:
        connections = self._connections
        turn = next(self._turn)
        shunned = self._slow_until | connections.suspects()
        return order_replicas(location.servers, connections.near(), shunned, time.monotonic(), turn)

    def _read_once(self, server: ServerId, location: Location, offset: int, length: int, patience: float) -> memoryview:
        local = self._descriptors.read(server, location, offset, length, patience)
        if local is not None:
            return local
        request = ReadRequest(location.handle, offset, length, location.capability)
        with self._connections.borrow(server, patience) as connection:
            reply, payload = connection.read(request, patience)
        skip = offset - reply.offset
        if not 0 <= skip < BLOCK_BYTES or len(payload) < skip + length:
            raise ChunkCorruptError(f"chunkserver {server} sent another range of chunk {location.handle:x}")
        verify_blocks(payload, reply.checksums, f"chunk {location.handle:x} on chunkserver {server}")
        return payload[skip : skip + length]

    def _note_read_failure(self, server: ServerId, location: Location, problem: HeleniteError) -> None:
        log.warning("chunk %x: chunkserver %d failed a read: %s", location.handle, server, problem)
        if isinstance(problem, TRANSPORT_ERRORS):
            self._connections.suspect(server)
        if isinstance(problem, ChunkCorruptError | ChunkNotFoundError | ReplicaUnreadableError):
            self._descriptors.forget(location.handle)
            self.submit(self._connections.ask_to_verify, server, location.handle)

    def locate(self, handles: list[ChunkHandle]) -> list[Location]:
        """Where these chunks are now; a chunk that the master does not know has no servers."""
        reply = self._rpc.namespace("Locate", master_pb2.LocateRequest(handles=handles))
        return [location_from_message(message) for message in reply.locations]

    def _relocate(self, location: Location) -> Location:
        try:
            found = self.locate([location.handle])
        except UnavailableError as error:
            log.warning("chunk %x: no master to ask where its replicas are: %s", location.handle, error)
            return location
        return found[0] if found and found[0].servers else location


def _raise_unreadable(location: Location, problems: dict[ServerId, HeleniteError]) -> memoryview:
    said = "; ".join(f"chunkserver {server}: {problem}" for server, problem in sorted(problems.items()))
    if problems and all(isinstance(p, ChunkCorruptError | ChunkNotFoundError) for p in problems.values()):
        raise ContentLostError(f"no good replica of chunk {location.handle:x} is left ({said})")
    raise UnavailableError(f"no replica of chunk {location.handle:x} can be reached now ({said or 'none is known'})")
