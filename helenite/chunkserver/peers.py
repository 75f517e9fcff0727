"""This chunkserver's part in the cluster: it registers, beats to every master, and takes their orders.

Used by `__main__`. One worker beats; `orders` carries out what the replies order, `masters` knows whom to call. All
masters down means keep serving and keep trying.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from helenite.chunkserver.dumps import Dumps
from helenite.chunkserver.masters import Masters
from helenite.chunkserver.orders import Orders, Results
from helenite.chunkserver.store import ChunkStore
from helenite.core.errors import DuplicateServerError, HeleniteError, UnavailableError
from helenite.core.model import ChunkHandle, Chunkserver, ServerId, ServerState
from helenite.core.pb import master_pb2
from helenite.core.process import Worker
from helenite.core.wire import chunkserver_from_message, chunkserver_to_message, failure_to_message

log = logging.getLogger(__name__)

BEAT_S = 1.0
"""Until a master says otherwise."""
BEAT_RANGE_S = (0.05, 10.0)
EARLY_BEAT_S = 0.05
"""After the last beat, when a copy is done: the next orders come with the reply, so repair waits for no second."""
CORRUPT_MAX = 1_000
"""Reported on one beat; a master strikes each from its table before it answers."""
REGISTER_PAUSE_S = 0.2
REPORT_PAGE = 10_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where this chunkserver can be reached."""

    address: str
    data_address: str
    data_socket: str
    host: str
    rack: str


class Peers:
    """The heartbeat. Its own thread owns everything but the parts that lock for themselves."""

    def __init__(self, store: ChunkStore, masters: tuple[str, ...], dumps: Dumps, on_crash: Callable[[], None]) -> None:
        self._store = store
        self._on_crash = on_crash
        self.refusal: DuplicateServerError | None = None
        """Why this process must end: another has the same identity, and the masters go by that one."""
        self._dumps = dumps
        self._dumper = ThreadPoolExecutor(1, thread_name_prefix="dumps")
        self._dump: Future[None] | None = None
        self._masters = Masters(masters)
        self._trouble = ""
        """Why the last heartbeat could not be sent."""
        self._wakes = threading.Event()
        self._orders = Orders(store, on_copied=self._wakes.set)
        self._place: Place | None = None
        self._beat_s = BEAT_S
        self._reporter = ThreadPoolExecutor(1, thread_name_prefix="report")
        self._wanted: dict[str, None] = {}
        """Masters that wait for a chunk report, in order. One that did not get all of it asks again."""
        self._report: tuple[str, Future[None]] | None = None
        self._worker = Worker("heartbeat", self._run, on_crash)

    def stop(self) -> None:
        """End the beat, and whatever was ordered."""
        self._masters.close()
        self._worker.stop(0)
        self._wakes.set()
        self._worker.stop()
        self._orders.stop()
        self._reporter.shutdown(wait=True, cancel_futures=True)
        self._dumper.shutdown(wait=True, cancel_futures=True)

    def raise_if_refused(self) -> None:
        """DuplicateServerError when that is why this process ends."""
        if self.refusal is not None:
            raise self.refusal

    def join(self, place: Place, stopping: threading.Event) -> bytes:
        """Register with any master, however long that takes; the cluster's capability key.

        ForeignClusterError when the data belongs elsewhere, UnavailableError when stopped meanwhile.
        """
        self._place = place
        while not stopping.is_set():
            for master in self._masters.addresses():
                try:
                    return self._register(master)
                except UnavailableError as error:
                    self._masters.note(master, error)
            stopping.wait(REGISTER_PAUSE_S)
        raise UnavailableError("stopped before a master answered")

    def start(self) -> None:
        """Begin to beat."""
        self._worker.start()

    def describe(self) -> Chunkserver:
        """Who and where this is, and how full."""
        identity, place = self._store.identity, self._place
        assert place is not None, "join first"
        free = self._store.room.offered_bytes()
        return Chunkserver(
            id=identity.server_id,
            uuid=identity.uuid,
            address=place.address,
            data_address=place.data_address,
            data_socket=place.data_socket,
            host=place.host,
            rack=place.rack,
            pid=os.getpid(),
            state=ServerState.ALIVE,
            capacity_bytes=max(free, self._store.room.capacity_bytes()),  # others free space on the disk at any moment
            free_bytes=free,
            used_bytes=self._store.used_bytes(),
            chunk_count=self._store.chunk_count(),
        )

    def _register(self, master: str) -> bytes:
        request = master_pb2.RegisterRequest(
            server=chunkserver_to_message(self.describe()), cluster_id=self._store.identity.cluster_id
        )
        reply = self._masters.register(master, request)
        self._store.adopt(reply.cluster_id, ServerId(reply.id))
        self._masters.learn(reply.masters)
        if reply.heartbeat_ms:
            shortest, longest = BEAT_RANGE_S
            self._beat_s = min(max(reply.heartbeat_ms / 1000, shortest), longest)
        log.info("registered with master %s as chunkserver %d", master, reply.id)
        return bytes(reply.capability_key)

    # Beating

    def _run(self, stopping: threading.Event) -> None:
        while True:
            started = time.monotonic()
            self._wakes.clear()
            if not self._store.bad.is_sick:  # else the cluster must count on other replicas, and keep these
                self._beat_or_say_why()
            if stopping.wait(min(EARLY_BEAT_S, self._beat_s)):
                return
            self._wakes.wait(max(0.0, self._beat_s - (time.monotonic() - started)))
            if stopping.is_set():
                return

    def _beat_or_say_why(self) -> None:
        """Not even the free space can be told while the disk is away: said once, not each second."""
        trouble = ""
        try:
            self._beat()
        except HeleniteError as error:
            trouble = str(error)
        if trouble and trouble != self._trouble:
            log.warning("no heartbeat from now on: %s", trouble)
        elif self._trouble and not trouble:
            log.info("heartbeats go on")
        self._trouble = trouble

    def _beat(self) -> None:
        results, corrupt = self._orders.results(), self._store.bad.reports(CORRUPT_MAX)
        request = master_pb2.HeartbeatRequest(
            server=chunkserver_to_message(self.describe()),
            deleted=results.deleted,
            held=results.held,
            copied=[
                master_pb2.CopyResult(handle=handle, failure=failure_to_message(error) if error else None)
                for handle, error in results.copied.items()
            ],
            corrupt=corrupt,
            dumped_at_ms=self._dumps.newest_at_ms,
        )
        for reply in self._masters.beat_all(request, self._beat_s):
            if reply.message.must_register:
                self._register_again(reply.master)
            elif reply.message.masters:  # only the leader says who the masters are, and only it heeds results
                self._forget(reply.asked)
                self._obey(reply.master, reply.message)
        self._report_next()

    def _forget(self, heard: master_pb2.HeartbeatRequest) -> None:
        """The leader knows what this heartbeat told."""
        copied = dict.fromkeys(ChunkHandle(result.handle) for result in heard.copied)
        deleted, held = tuple(map(ChunkHandle, heard.deleted)), tuple(map(ChunkHandle, heard.held))
        self._orders.forget(Results(deleted, held, copied))
        self._store.bad.heard(map(ChunkHandle, heard.corrupt))

    def _register_again(self, master: str) -> None:
        try:
            self._register(master)
        except DuplicateServerError as error:
            self.refusal = error
            self._on_crash()
        except HeleniteError as error:
            self._masters.note(master, error)

    def _obey(self, master: str, reply: master_pb2.HeartbeatReply) -> None:
        self._masters.learn(reply.masters)
        self._orders.delete(map(ChunkHandle, reply.delete))
        for order in reply.replicate:
            sources = tuple(map(chunkserver_from_message, order.sources))
            self._orders.replicate(ChunkHandle(order.handle), sources, order.capability)
        self._orders.verify(map(ChunkHandle, reply.verify))
        if reply.take_dump and self._dumps.may_try() and (self._dump is None or self._dump.done()):
            self._dump = self._dumper.submit(self._dumps.fetch, self._masters.dump(master))
        if reply.must_report and (self._report is None or self._report[0] != master):
            self._wanted[master] = None

    # Reporting

    def _report_next(self) -> None:
        """See what came of the report under way, if any, and begin the next that is wanted."""
        if self._report is not None:
            master, done = self._report
            if not done.done():
                return
            self._report = None
            self._note_report(master, done)
        if self._wanted:
            master = next(iter(self._wanted))
            del self._wanted[master]
            self._report = master, self._reporter.submit(self._send_report, master)

    @staticmethod
    def _note_report(master: str, done: Future[None]) -> None:
        if (error := done.exception()) is not None:
            log.warning("the chunk report to master %s failed: %s", master, error)

    def _send_report(self, master: str) -> None:
        handles = self._store.handles()

        def pages() -> Iterator[list[ChunkHandle]]:
            while page := list(islice(handles, REPORT_PAGE)):
                yield page

        self._masters.report(master, self._store.identity.server_id, pages())
