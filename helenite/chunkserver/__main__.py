"""One chunkserver: `python -m helenite.chunkserver`, configured by HELENITE_* (config.ChunkserverSettings)."""

from __future__ import annotations

import logging
import socket
import sys
import threading
from pathlib import Path

from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from helenite.chunkserver.dataport import DataPort
from helenite.chunkserver.disk import disk_errors
from helenite.chunkserver.dumps import Dumps
from helenite.chunkserver.peers import Peers, Place
from helenite.chunkserver.recheck import keep_looking
from helenite.chunkserver.scrub import Scrub
from helenite.chunkserver.service import ControlService
from helenite.chunkserver.store import ChunkStore
from helenite.config import ChunkserverSettings, environment
from helenite.core.clock import Clock
from helenite.core.descriptors import raise_descriptor_limit
from helenite.core.errors import ConfigurationError, DuplicateServerError, ForeignClusterError, HeleniteError
from helenite.core.pb.chunkserver_pb2_grpc import add_ControlServicer_to_server
from helenite.core.process import (
    CONFIGURATION_EXIT,
    Worker,
    die_with_parent,
    start_logging,
    stop_event_on_signals,
    tell_ready,
)
from helenite.core.serving import bind_grpc, make_grpc_server, reachable_host

log = logging.getLogger("helenite.chunkserver")
STOP_GRACE_S = 1.0
COMPACT_S = 10.0
"""Pause between looks at the segments when none needs compaction."""


def main() -> int:
    """Serve until SIGTERM; the exit status, which is 1 for what may pass, such as a disk that fails."""
    try:
        settings = ChunkserverSettings.from_env(environment())
    except ConfigurationError as error:
        print(f"helenite.chunkserver: {error}", file=sys.stderr)
        return CONFIGURATION_EXIT
    start_logging(settings.log_level)
    stopping = stop_event_on_signals()
    raise_descriptor_limit()
    if settings.supervised:
        die_with_parent()
    try:
        with disk_errors(f"opening {settings.data_dir}"):
            store = ChunkStore(
                Path(settings.data_dir),
                is_durable=settings.is_durable,
                reserve_bytes=settings.reserve_bytes,
                capacity_bytes=settings.capacity_bytes,
            )
        try:
            serve(settings, store, stopping)
        finally:
            store.close()
    except (HeleniteError, OSError) as error:
        if stopping.is_set() and not isinstance(error, DuplicateServerError):
            return 0
        print(f"helenite.chunkserver: {error}", file=sys.stderr)
        return CONFIGURATION_EXIT if isinstance(error, ConfigurationError | ForeignClusterError) else 1
    return 0


def serve(settings: ChunkserverSettings, store: ChunkStore, stopping: threading.Event) -> None:
    """Join the cluster, then run the data port, the control service and the heartbeat until `stopping` is set.

    The ports are bound before the registration that announces them, and serve only after it: the key that
    capabilities are checked with comes with it.
    """
    dumps = Dumps(Path(settings.data_dir), settings.dumps_kept, store.room.free_bytes)
    peers = Peers(store, settings.masters, dumps, on_crash=stopping.set)
    server = make_grpc_server(settings.threads)
    port = bind_grpc(server, settings.listen)
    address = f"{_advertised(settings, settings.listen)}:{port}"
    dataport = DataPort(store, settings.connections_max, stopping.set)
    data_port, data_socket = dataport.bind(
        settings.data_listen, settings.data_socket or str(Path(settings.data_dir).absolute() / "data.sock")
    )
    data_address = f"{_advertised(settings, settings.data_listen)}:{data_port}"
    host = settings.host or socket.gethostname()
    key = peers.join(Place(address, data_address, data_socket, host, settings.rack), stopping)
    dataport.serve(key)
    add_ControlServicer_to_server(ControlService(store), server)
    healthy = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    server.start()
    compacting = Worker("compaction", lambda ending: _compact(store, ending), stopping.set).start()
    rechecking = Worker("recheck", lambda ending: keep_looking(store, ending), stopping.set).start()
    scrub = Scrub(
        store, Path(settings.data_dir), settings.scrub_s, settings.scrub_bytes_per_s, Clock(), stopping.set
    ).start()
    peers.start()
    healthy.set("", health_pb2.HealthCheckResponse.SERVING)
    tell_ready(settings.ready_fd)
    log.info("chunkserver %d serves control on %s, data on %s", store.identity.server_id, address, data_address)
    stopping.wait()
    healthy.enter_graceful_shutdown()
    peers.stop()
    server.stop(STOP_GRACE_S).wait()
    dataport.close()
    for worker in (scrub, rechecking, compacting):
        worker.stop()
    peers.raise_if_refused()


def _compact(store: ChunkStore, ending: threading.Event) -> None:
    said = ""
    while not ending.wait(COMPACT_S):
        trouble = ""
        try:
            while store.tidy(ending) and not ending.is_set():
                pass
        except HeleniteError as error:
            trouble = str(error)
        if trouble and trouble != said:  # a disk may be away for days
            log.warning("compaction waits: %s", trouble)
        said = trouble


def _advertised(settings: ChunkserverSettings, listen: str) -> str:
    """The host that others reach us at."""
    return settings.advertise_host or reachable_host(listen.rpartition(":")[0])


if __name__ == "__main__":
    sys.exit(main())
