"""One master: `python -m helenite.master`, configured by HELENITE_* variables (config.MasterSettings)."""

from __future__ import annotations

import logging
import os
import secrets
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from helenite.config import MasterSettings
from helenite.core.clock import Clock, RunningClock
from helenite.core.descriptors import raise_descriptor_limit
from helenite.core.errors import ConfigurationError, HeleniteError, UnavailableError
from helenite.core.model import Usage
from helenite.core.pb import master_pb2
from helenite.core.pb.master_pb2_grpc import (
    add_AdminServicer_to_server,
    add_ClusterServicer_to_server,
    add_NamespaceServicer_to_server,
)
from helenite.core.process import (
    CONFIGURATION_EXIT,
    Worker,
    die_with_parent,
    start_logging,
    stop_event_on_signals,
    tell_ready,
)
from helenite.core.serving import bind_grpc, make_grpc_server, reachable_host
from helenite.master.admin_service import AdminService, total_usage
from helenite.master.allocator import Allocator, Rules
from helenite.master.backup import BackupSchedule
from helenite.master.call_port import CallPort
from helenite.master.cluster_service import MEMBER_TTL_S, ClusterService
from helenite.master.connecting import probe_sentinels
from helenite.master.fence import Fence
from helenite.master.leadership import Leadership
from helenite.master.maintenance import Ages, Maintenance
from helenite.master.membership import Liveness, Membership
from helenite.master.namespace import Namespace
from helenite.master.namespace_service import NamespaceService
from helenite.master.namespace_verbs import NamespaceVerbs
from helenite.master.repairer import Goals, Repairer
from helenite.master.reports import Reports
from helenite.master.store import Store
from helenite.master.survey import Survey

log = logging.getLogger("helenite.master")
STOP_GRACE_S = 2.0


def main() -> int:
    """Serve until SIGTERM; the exit status."""
    try:
        settings = MasterSettings.from_env(os.environ)
    except ConfigurationError as error:
        print(f"helenite.master: {error}", file=sys.stderr)
        return CONFIGURATION_EXIT
    start_logging(settings.log_level)
    stopping = stop_event_on_signals()
    if settings.supervised:
        die_with_parent()
    try:
        serve(settings, stopping)
    except (HeleniteError, OSError) as error:
        print(f"helenite.master: {error}", file=sys.stderr)
        return CONFIGURATION_EXIT
    return 0


def connect(settings: MasterSettings, stopping: threading.Event) -> Namespace:
    """Open the namespace, waiting for a Redis that is still starting or loading."""
    while True:
        try:
            store = Store(
                settings.redis_url, settings.space, wait_replicas=settings.redis_wait, wait_s=settings.redis_wait_s
            )
            return Namespace(store, trash_s=settings.trash_s)
        except UnavailableError as error:
            log.warning("waiting for Redis: %s", error)
            if stopping.wait(1.0):
                raise


class Loop(Protocol):
    """What runs on threads of its own."""

    def start(self) -> object: ...

    def stop(self) -> object: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What one master is made of."""

    namespace: Namespace
    membership: Membership
    fence: Fence
    leadership: Leadership
    maintenance: Maintenance
    repairer: Repairer
    reports: Reports
    allocator: Allocator
    survey: Survey


def assemble(
    settings: MasterSettings, namespace: Namespace, master_id: str, uptime: RunningClock, on_crash: Callable[[], None]
) -> Parts:
    """Wire the parts of one master together; `uptime` tells how long chunkservers have been silent.

    A loop that crashes calls `on_crash`: a leader without its loops would only keep others from leading.
    """
    clock = Clock()
    membership = Membership(namespace, Liveness(settings.suspect_after_s, settings.dead_after_s), uptime)
    fence = Fence(namespace, probe_sentinels(settings.redis_url), clock, on_crash)
    leadership = Leadership(namespace, master_id, fence, on_crash)
    reports = Reports(namespace, clock, report_s=settings.report_s, orphan_age_s=settings.orphan_age_s)
    ages = Ages(settings.trash_s, settings.gc_grace_s)
    goals = Goals(settings.replicas, settings.chunk_bytes)
    rules = Rules(settings.replicas, settings.min_replicas, settings.chunk_bytes)
    return Parts(
        namespace,
        membership,
        fence,
        leadership,
        Maintenance(namespace, membership, leadership, reports, ages, on_crash),
        Repairer(namespace, membership, leadership, goals, clock, on_crash),
        reports,
        Allocator(namespace, membership, rules, secrets.randbits(64)),
        Survey(namespace, membership, settings.replicas, clock),
    )


def make_verbs(settings: MasterSettings, parts: Parts) -> NamespaceVerbs:
    """What both the gRPC server and the call port answer with."""

    def usage() -> Usage:
        return total_usage(parts.namespace, parts.membership, settings.replicas)

    return NamespaceVerbs(parts.namespace, parts.allocator, usage)


def open_call_ports(
    settings: MasterSettings, verbs: NamespaceVerbs, on_crash: Callable[[], None]
) -> tuple[CallPort, ...]:
    """The call port, on the host of the gRPC port; none when it is switched off or cannot be had."""
    if not settings.call_port:
        return ()
    host = settings.listen.rpartition(":")[0].strip("[]")
    try:
        return (CallPort(verbs, host, on_crash),)
    except OSError as error:
        log.warning("there is no call port, gRPC has to do: %s", error)
        return ()


def make_server(
    settings: MasterSettings, parts: Parts, verbs: NamespaceVerbs, call_port: master_pb2.CallPort
) -> tuple[grpc.Server, health.HealthServicer]:
    """A gRPC server with all services, not yet started."""
    server = make_grpc_server(settings.threads)
    namespace, membership = parts.namespace, parts.membership
    admin = AdminService(namespace, membership, parts.leadership, parts.repairer, parts.reports, parts.survey)
    backups = BackupSchedule(membership, settings.dump_s, Clock())
    cluster = ClusterService(namespace, membership, parts.leadership, parts.repairer, parts.reports, backups)
    add_NamespaceServicer_to_server(NamespaceService(verbs, call_port), server)
    add_ClusterServicer_to_server(cluster, server)
    add_AdminServicer_to_server(admin, server)
    healthy = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    return server, healthy


def serve(settings: MasterSettings, stopping: threading.Event) -> None:
    """Run all services and loops until `stopping` is set."""
    raise_descriptor_limit()
    master_id = secrets.token_hex(8)
    uptime = RunningClock()
    parts = assemble(settings, connect(settings, stopping), master_id, uptime, stopping.set)
    verbs = make_verbs(settings, parts)
    call_ports = open_call_ports(settings, verbs, stopping.set)
    place = next((port.address for port in call_ports), master_pb2.CallPort())
    server, healthy = make_server(settings, parts, verbs, place)
    port = bind_grpc(server, settings.listen)
    address = settings.advertise or f"{reachable_host(settings.listen.rpartition(':')[0])}:{port}"

    def announce(ending: threading.Event) -> None:
        while True:
            try:
                parts.namespace.announce_member("master", master_id, address, os.getpid(), MEMBER_TTL_S)
            except HeleniteError as error:
                log.warning("cannot announce this master: %s", error)
            if ending.wait(MEMBER_TTL_S / 3):
                return

    loops: tuple[Loop, ...] = (
        *call_ports,
        Worker("uptime", uptime.keep_asking, stopping.set),
        parts.fence,
        parts.leadership,
        parts.maintenance,
        parts.repairer,
        Worker("announce", announce),
    )
    server.start()
    for loop in loops:
        loop.start()
    healthy.set("", health_pb2.HealthCheckResponse.SERVING)
    tell_ready(settings.ready_fd)
    log.info("master %s serves on %s", master_id, address)
    stopping.wait()
    healthy.enter_graceful_shutdown()
    server.stop(STOP_GRACE_S).wait()
    for loop in reversed(loops):
        loop.stop()
    parts.namespace.close()


if __name__ == "__main__":
    sys.exit(main())
