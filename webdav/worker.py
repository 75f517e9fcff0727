"""One worker process of the gateway: a server on the shared port, with its own client of the cluster.

Started by `__main__`, which restarts it when it dies. The first worker also announces the gateway to the masters. The
main thread waits for SIGTERM; accepting and serving happen in threads.
"""

from __future__ import annotations

import logging
import sys
import threading
from dataclasses import dataclass

from helenite.client.caching import CachingFileSystem
from helenite.client.coherence import Coherence
from helenite.client.filesystem import FileSystem
from helenite.client.follower import Follower
from helenite.config import GatewaySettings
from helenite.core.clock import Clock
from helenite.core.errors import ConfigurationError, HeleniteError, UnavailableError
from helenite.core.pb import master_pb2
from helenite.core.process import (
    CONFIGURATION_EXIT,
    Worker,
    die_with_parent,
    start_logging,
    stop_event_on_signals,
    tell_ready,
)
from helenite.core.serving import reachable_host
from webdav.app import Application
from webdav.auth import Users
from webdav.server import LazyTls, Server

log = logging.getLogger("webdav")

ANNOUNCE_S = 3.0
"""Pause between announcements; masters forget a gateway that missed a few."""
PATIENCE_S = 1.0
"""Pause between attempts to reach a master while the cluster starts."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where this worker stands: the gateway's address and id, the worker's number, its parent's process id.

    `table` is the descriptor of the memory that all workers share (`client.coherence`).
    """

    host: str
    port: int
    gateway_id: str
    number: int
    parent_pid: int
    table: int


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    return host in {"localhost", "::1"} or host.startswith("127.")


def run(settings: GatewaySettings, place: Place) -> int:
    """Serve until SIGTERM; CONFIGURATION_EXIT when the configuration makes that impossible."""
    start_logging(settings.log_level)
    stopping = stop_event_on_signals()
    die_with_parent(place.parent_pid)
    try:
        with CachingFileSystem(settings, Coherence(place.table, vouches=settings.caches)) as file_system:
            serve(settings, place, file_system, stopping)
    except (ConfigurationError, OSError) as error:
        print(f"webdav: {error}", file=sys.stderr)  # noqa: T201 - the sentence that a person must see
        return CONFIGURATION_EXIT
    return 0


def serve(settings: GatewaySettings, place: Place, file_system: CachingFileSystem, stopping: threading.Event) -> None:
    """Run the server and the announcements until `stopping` is set."""
    may_be_open = settings.is_open or is_loopback(place.host)
    if not may_be_open and place.number == 0:
        _demand_users(file_system, place, stopping)
    app = Application(
        file_system, allowed_hosts=settings.allowed_hosts, may_be_open=may_be_open, threads=settings.threads,
        trust_s=settings.trust_s,
    )  # fmt: skip
    server = Server(
        (place.host, place.port), app, threads=settings.threads, timeout_s=settings.idle_timeout_s, reuse_port=True
    )
    if settings.tls_cert:
        server.ssl_adapter = LazyTls(settings.tls_cert, settings.tls_key)
    server.prepare()
    workers = [Worker("accept", lambda _: server.serve(), on_crash=stopping.set)]
    if place.number == 0:
        workers.append(Worker("announce", lambda ending: _announce(file_system, place, ending)))
        workers.append(Follower(file_system, file_system.coherence).worker)
    for worker in workers:
        worker.start()
    try:
        tell_ready(settings.ready_fd)
        stopping.wait()
    finally:  # cheroot's threads would keep the process alive
        server.stop()
        for worker in workers:
            worker.stop()
        app.close()


def _demand_users(file_system: FileSystem, place: Place, stopping: threading.Event) -> None:
    """ConfigurationError when everyone on the network could come in; waits for a cluster that is still starting."""
    users = Users(file_system.rpc, Clock())
    while not stopping.is_set():
        try:
            has_users = users.any()
        except UnavailableError as error:
            log.warning("waiting for a master: %s", error)
            stopping.wait(PATIENCE_S)
            continue
        if not has_users:
            raise ConfigurationError(
                f"{place.host} can be reached from other machines, but there are no users: add one with "
                "`helenite user add NAME`, or listen on 127.0.0.1, or set HELENITE_OPEN=yes to serve everyone"
            )
        return


def _announce(file_system: FileSystem, place: Place, ending: threading.Event) -> None:
    address = f"{reachable_host(place.host)}:{place.port}"
    request = master_pb2.AnnounceRequest(id=place.gateway_id, address=address, pid=place.parent_pid, kind="gateway")
    while True:
        try:
            file_system.rpc.cluster("Announce", request, ANNOUNCE_S)
        except HeleniteError as error:
            log.warning("cannot announce this gateway: %s", error)
        if ending.wait(ANNOUNCE_S):
            return
