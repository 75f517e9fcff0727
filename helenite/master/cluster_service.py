"""The Cluster service: chunkservers register and beat, gateways announce themselves, clients get the table.

The border between messages and values; decisions lie in `membership` and `namespace`. Only the leader's replies carry
commands. Called from gRPC's threads.
"""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from helenite.core.errors import InvalidRequestError, UnavailableError
from helenite.core.frames import capability_for
from helenite.core.model import ChunkHandle, ServerId
from helenite.core.pb import common_pb2, master_pb2
from helenite.core.pb.master_pb2_grpc import ClusterServicer
from helenite.core.wire import chunkserver_from_message, chunkserver_to_message, errors_as_status, failure_from_message
from helenite.master.backup import BackupSchedule
from helenite.master.leadership import Leadership
from helenite.master.membership import Membership
from helenite.master.namespace import Namespace
from helenite.master.repairer import Repairer
from helenite.master.reports import Reports

HEARTBEAT_MS = 1_000
DELETIONS_MAX = 1_000
"""Delete commands on one reply; a chunkserver carries them out before its next beats matter."""
MEMBER_TTL_S = 10
"""A gateway or master that has not announced itself for this long is shown as dead."""


class ClusterService(ClusterServicer):
    """Membership over gRPC."""

    def __init__(
        self,
        namespace: Namespace,
        membership: Membership,
        leadership: Leadership,
        repairer: Repairer,
        reports: Reports,
        backups: BackupSchedule,
    ) -> None:
        self._backups = backups
        self._namespace = namespace
        self._membership = membership
        self._leadership = leadership
        self._repairer = repairer
        self._reports = reports

    def Register(self, request: master_pb2.RegisterRequest, context: grpc.ServicerContext) -> master_pb2.RegisterReply:
        with errors_as_status(context):
            server = chunkserver_from_message(request.server)
            if not server.uuid or not server.data_address:
                raise InvalidRequestError("a chunkserver registers with its uuid and its data port's address")
            given = self._membership.register(server, request.cluster_id)
            self._reports.expect(given)
            return master_pb2.RegisterReply(
                id=given,
                cluster_id=self._namespace.cluster_id,
                capability_key=self._namespace.capability_key,
                masters=self._namespace.master_addresses(),
                heartbeat_ms=HEARTBEAT_MS,
            )

    def Heartbeat(
        self, request: master_pb2.HeartbeatRequest, context: grpc.ServicerContext
    ) -> master_pb2.HeartbeatReply:
        with errors_as_status(context):
            server = chunkserver_from_message(request.server)
            if not self._membership.beat(server):
                return master_pb2.HeartbeatReply(must_register=True)
            epoch = self._leadership.epoch
            if epoch is None:
                return master_pb2.HeartbeatReply()
            self._hear_results(request)
            doomed, called_off = self._repairer.deletions_for(server.id, DELETIONS_MAX, epoch)
            return master_pb2.HeartbeatReply(
                must_report=self._reports.is_wanted(server.id, epoch),
                delete=doomed,
                replicate=self._replicate_orders(server.id),
                masters=self._namespace.master_addresses(),
                verify=[*called_off, *self._reports.take_doubtful(server.id)],
                take_dump=self._backups.is_due(server.id, request.dumped_at_ms),
            )

    def _hear_results(self, request: master_pb2.HeartbeatRequest) -> None:
        server = ServerId(request.server.id)
        results = [
            (ChunkHandle(r.handle), failure_from_message(r.failure) if r.HasField("failure") else None)
            for r in request.copied
        ]
        self._repairer.note_copied(server, results)
        self._repairer.note_held(server, list(map(ChunkHandle, request.held)))
        self._repairer.note_corrupt(server, map(ChunkHandle, request.corrupt))
        if request.deleted:
            self._namespace.confirm_deletions(server, list(map(ChunkHandle, request.deleted)))

    def _replicate_orders(self, server: ServerId) -> list[master_pb2.Replicate]:
        orders = self._repairer.orders_for(server)
        if not orders:
            return []
        known = {found.id: chunkserver_to_message(found) for found in self._membership.servers()}
        key = self._namespace.capability_key
        return [
            master_pb2.Replicate(
                handle=order.handle,
                sources=[known[source] for source in order.sources if source in known],
                capability=capability_for(key, order.handle),
            )
            for order in orders
        ]

    def ReportChunks(
        self, request_iterator: Iterator[master_pb2.ChunkReport], context: grpc.ServicerContext
    ) -> common_pb2.Empty:
        """Everything that a chunkserver holds; a report that breaks off is asked for again."""
        with errors_as_status(context):
            epoch = self._leadership.epoch
            if epoch is None:
                raise UnavailableError("this master does not lead; report to the one that does")
            pages = ((ServerId(page.server), list(page.handles), page.is_last) for page in request_iterator)
            self._reports.hear(pages, epoch)
            return common_pb2.Empty()

    def Announce(self, request: master_pb2.AnnounceRequest, context: grpc.ServicerContext) -> master_pb2.ServersReply:
        with errors_as_status(context):
            if request.kind not in {"gateway", "master"}:
                raise InvalidRequestError(f"{request.kind!r} is no kind of member")
            self._namespace.announce_member(request.kind, request.id, request.address, request.pid, MEMBER_TTL_S)
            return self._servers()

    def ListServers(self, request: common_pb2.Empty, context: grpc.ServicerContext) -> master_pb2.ServersReply:
        with errors_as_status(context):
            return self._servers()

    def _servers(self) -> master_pb2.ServersReply:
        servers = [chunkserver_to_message(server) for server in self._membership.servers()]
        return master_pb2.ServersReply(servers=servers, masters=self._namespace.master_addresses())
