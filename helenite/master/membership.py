"""Which chunkservers there are and how alive they are: the soft state that heartbeats keep.

Each master has its own; chunkservers beat to all of them. Ids are given by the store, so that all masters agree. One
lock guards the table; the store is asked outside it.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace

from helenite.core.clock import Clock
from helenite.core.errors import DuplicateServerError, ForeignClusterError
from helenite.core.model import Chunkserver, ServerId, ServerState
from helenite.master.namespace import Namespace

log = logging.getLogger(__name__)

Process = tuple[str, int, str, str]
"""What tells two processes apart. In containers pids are alike, on one machine hosts, of restarts addresses."""


@dataclass(frozen=True, slots=True)
class Liveness:
    """Silences, in seconds, after which a chunkserver is suspect and dead."""

    suspect_after_s: float
    dead_after_s: float


def liveness_state(silent_s: float, limits: Liveness) -> ServerState:
    """What a silence of this length means."""
    if silent_s > limits.dead_after_s:
        return ServerState.DEAD
    if silent_s > limits.suspect_after_s:
        return ServerState.SUSPECT
    return ServerState.ALIVE


def process_of(server: Chunkserver) -> Process:
    return server.host, server.pid, server.address, server.data_address


class Membership:
    """The chunkservers that this master knows."""

    def __init__(self, namespace: Namespace, limits: Liveness, clock: Clock) -> None:
        self._namespace = namespace
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()  # guards the three below
        self._seen: dict[ServerId, tuple[Chunkserver, float]] = {}
        self._replaced: dict[str, Process] = {}
        """By uuid: the process whose place the present one took. It should have ended."""
        self._doubles: dict[str, Process] = {}
        """By uuid: the process that took a place whose owner was alive after all."""
        self._started_at = clock.monotonic_s()

    def register(self, server: Chunkserver, cluster_id: str) -> ServerId:
        """Give the server its id, the same as last time, and count it alive.

        ForeignClusterError when its data directory belongs to another cluster, DuplicateServerError when it is a copy
        of one that is in use.
        """
        ours = self._namespace.cluster_id
        if cluster_id and cluster_id != ours:
            raise ForeignClusterError(
                f"the data directory belongs to cluster {cluster_id[:8]}…, this is {ours[:8]}…; "
                "start the chunkserver with an empty directory or point it at its own master; "
                "if Redis has lost its data, stop everything and bring it back: helenite load latest"
            )
        self._refuse_double(server)
        given = self._namespace.assign_server(server)
        with self._lock:
            self._seen[given] = (replace(server, id=given), self._clock.monotonic_s())
        return given

    def beat(self, server: Chunkserver) -> bool:
        """Note a heartbeat; False when the server must register first."""
        with self._lock:
            known = self._seen.get(server.id)
            if known is None or known[0].uuid != server.uuid or process_of(known[0]) != process_of(server):
                return False
            self._seen[server.id] = (server, self._clock.monotonic_s())
            return True

    def servers(self) -> list[Chunkserver]:
        """All known servers with their present state; one not heard of since our start is suspect, then dead."""
        now = self._clock.monotonic_s()
        with self._lock:
            seen = dict(self._seen)
        draining = self._namespace.draining()
        found = [replace(server, state=self._state(server, now - at, draining)) for server, at in seen.values()]
        silent_state = liveness_state(now - self._started_at, self._limits)
        for server in self._namespace.list_servers():
            if server.id not in seen:
                state = ServerState.SUSPECT if silent_state is ServerState.ALIVE else silent_state
                found.append(replace(server, state=state))
        return sorted(found, key=lambda server: server.id)

    def heard(self) -> frozenset[ServerId]:
        """The servers that have called since this master started: of the others it does not know how full they are."""
        with self._lock:
            return frozenset(self._seen)

    def alive(self) -> frozenset[ServerId]:
        """The servers that this master has just heard, draining ones among them."""
        now = self._clock.monotonic_s()
        with self._lock:
            seen = [(server, now - at) for server, (_, at) in self._seen.items()]
        return frozenset(each for each, silent_s in seen if liveness_state(silent_s, self._limits) is ServerState.ALIVE)

    def forget(self, server: ServerId) -> None:
        """It has been removed for good."""
        with self._lock:
            self._seen.pop(server, None)

    def _state(self, server: Chunkserver, silent_s: float, draining: frozenset[ServerId]) -> ServerState:
        state = liveness_state(silent_s, self._limits)
        return ServerState.DRAINING if state is ServerState.ALIVE and server.id in draining else state

    def is_settled(self) -> bool:
        """Whether this master has run long enough that a silent server is not merely one that has not called yet."""
        return self._clock.monotonic_s() - self._started_at > self._limits.suspect_after_s

    def _refuse_double(self, server: Chunkserver) -> None:
        """Two live processes with one identity would mix up their replicas.

        On the same host a new process takes the place of the old one at once, as it does after a restart. If the old
        one registers again, both live: it keeps its place, and the new one is the copy.
        """
        now = self._clock.monotonic_s()
        uuid, process = server.uuid, process_of(server)
        with self._lock:
            known, at = next((seen for seen in self._seen.values() if seen[0].uuid == uuid), (server, now))
            if process_of(known) == process:
                return
            if liveness_state(now - at, self._limits) is not ServerState.ALIVE:
                self._replaced.pop(uuid, None)
                self._doubles.pop(uuid, None)
            elif known.host != server.host or self._doubles.get(uuid) == process:
                raise DuplicateServerError(
                    f"chunkserver {known.id} is already running on {known.host} (process {known.pid}); "
                    "a copy of its data directory cannot run beside it"
                )
            elif self._replaced.get(uuid) == process:
                self._doubles[uuid] = process_of(known)
                log.warning(
                    "chunkserver %d runs twice on %s: the data directory of process %d is a copy of that of process %d",
                    *(known.id, known.host, known.pid, server.pid),
                )
            else:
                self._replaced[uuid] = process_of(known)
