"""The Admin service, for people and for `helenite`: status, users, chunkservers that go, dumps, repairs of the books.

The border between messages and values. Passwords arrive hashed; this process never sees one. Called from gRPC's
threads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc
import msgpack

from helenite.core.errors import EntryNotFoundError, InvalidRequestError, PreconditionFailedError, UnavailableError
from helenite.core.model import ChunkHandle, Chunkserver, ServerId, ServerState, Usage
from helenite.core.pb import common_pb2, master_pb2
from helenite.core.pb.master_pb2_grpc import AdminServicer
from helenite.core.wire import chunkserver_to_message, errors_as_status, usage_to_message
from helenite.master.leadership import Leadership
from helenite.master.membership import Membership
from helenite.master.namespace import Namespace
from helenite.master.repair import staying_servers
from helenite.master.repairer import Repairer
from helenite.master.reports import Reports
from helenite.master.stored import MendBatch, Progress
from helenite.master.survey import Survey

USER_NAME_MAX = 64
DUMPS_AT_ONCE = 4
"""Each holds one of the threads that requests are served by, and makes Redis fork."""


class AdminService(AdminServicer):
    """What people ask of the cluster, over gRPC."""

    def __init__(
        self,
        namespace: Namespace,
        membership: Membership,
        leadership: Leadership,
        repairer: Repairer,
        reports: Reports,
        survey: Survey,
    ) -> None:
        self._namespace = namespace
        self._membership = membership
        self._repairer = repairer
        self._reports = reports
        self._survey = survey
        self._leadership = leadership
        self._dumping = threading.BoundedSemaphore(DUMPS_AT_ONCE)

    def GetStatus(self, request: common_pb2.Empty, context: grpc.ServicerContext) -> master_pb2.StatusReply:
        with errors_as_status(context):
            health = self._survey.latest()
            masters, gateways = self._members()
            usage = total_usage(self._namespace, self._membership, self._repairer.goals.replicas)
            repair, rebalance = self._namespace.progress()
            stopped_at_ms, reason = self._namespace.deleting_stopped()
            return master_pb2.StatusReply(
                cluster_id=self._namespace.cluster_id,
                masters=masters,
                chunkservers=[chunkserver_to_message(server) for server in self._membership.servers()],
                gateways=gateways,
                chunks_total=health.total,
                chunks_under_replicated=health.under_replicated,
                chunks_lost=health.lost,
                usage=usage_to_message(usage),
                sequence=self._namespace.last_sequence(),
                replica_target=self._repairer.goals.replicas,
                repair=_progress_to_message(repair),
                rebalance=_progress_to_message(rebalance),
                deleting_stopped=reason,
                deleting_stopped_at_ms=stopped_at_ms,
            )

    def ResumeDeleting(self, request: common_pb2.Empty, context: grpc.ServicerContext) -> master_pb2.ResumeReply:
        with errors_as_status(context):
            return master_pb2.ResumeReply(was_stopped=self._namespace.resume_deleting())

    def ListUsers(self, request: common_pb2.Empty, context: grpc.ServicerContext) -> master_pb2.UsersReply:
        with errors_as_status(context):
            users = [
                master_pb2.User(name=user.name, created_at_ms=user.created_at_ms)
                for user in self._namespace.list_users()
            ]
            return master_pb2.UsersReply(users=users)

    def GetUser(self, request: master_pb2.UserRequest, context: grpc.ServicerContext) -> master_pb2.User:
        with errors_as_status(context):
            user = self._namespace.get_user(request.name)
            if user is None:
                raise EntryNotFoundError(f"there is no user {request.name!r}")
            return master_pb2.User(name=user.name, password_hash=user.password_hash, created_at_ms=user.created_at_ms)

    def PutUser(self, request: master_pb2.User, context: grpc.ServicerContext) -> common_pb2.Empty:
        with errors_as_status(context):
            validate_user_name(request.name)
            if not request.password_hash.startswith("$argon2"):
                raise InvalidRequestError("a password comes as its argon2 hash")
            self._namespace.put_user(request.name, request.password_hash)
            return common_pb2.Empty()

    def RemoveUser(self, request: master_pb2.UserRequest, context: grpc.ServicerContext) -> common_pb2.Empty:
        with errors_as_status(context):
            if not self._namespace.remove_user(request.name):
                raise EntryNotFoundError(f"there is no user {request.name!r}")
            return common_pb2.Empty()

    def Drain(self, request: master_pb2.DrainRequest, context: grpc.ServicerContext) -> master_pb2.DrainReply:
        with errors_as_status(context):
            server = self._known_server(request.id).id
            if not request.is_off and not staying_servers(self._membership.servers()) - {server}:
                raise PreconditionFailedError(
                    f"there is no other chunkserver that the chunks of {server} could go to; add one first"
                )
            self._namespace.set_draining(server, is_on=not request.is_off)
            return master_pb2.DrainReply(dependent_chunks=self._repairer.count_dependent(server))

    def Dump(self, request: common_pb2.Empty, context: grpc.ServicerContext) -> Iterator[master_pb2.DumpPiece]:
        with errors_as_status(context):
            if not self._dumping.acquire(blocking=False):
                raise UnavailableError("as many dumps as this master makes at once are under way")
            try:
                for piece in self._namespace.dump():
                    yield master_pb2.DumpPiece(data=piece)
            finally:
                self._dumping.release()

    def Mend(self, request: master_pb2.MendRequest, context: grpc.ServicerContext) -> master_pb2.MendReply:
        with errors_as_status(context):
            epoch = self._leadership.epoch
            if epoch is None:
                raise UnavailableError("this master does not lead; ask the one that does")
            try:
                actions = msgpack.unpackb(request.actions, raw=False)
            except ValueError as error:
                raise InvalidRequestError(f"the actions are no msgpack: {error}") from error
            batch = MendBatch(request.id, request.batch, request.mends, request.life, actions)
            mended = self._namespace.mend(batch, epoch)
            for action in actions:
                if action["kind"] == "enter":
                    for server in action["servers"]:
                        self._reports.look_at(ServerId(server), [ChunkHandle(action["handle"])])
            return master_pb2.MendReply(mended=mended)

    def RemoveServer(self, request: master_pb2.ServerRequest, context: grpc.ServicerContext) -> common_pb2.Empty:
        with errors_as_status(context):
            known = self._known_server(request.id)
            server = known.id
            if known.state in {ServerState.ALIVE, ServerState.DRAINING}:
                raise PreconditionFailedError(f"chunkserver {server} is running; stop it first, or it registers again")
            if dependent := self._repairer.count_dependent(server):
                raise PreconditionFailedError(
                    f"{dependent} chunks depend on chunkserver {server}: first `helenite server drain {server}`"
                )
            self._namespace.forget_server(server)
            self._membership.forget(server)
            return common_pb2.Empty()

    def _known_server(self, number: int) -> Chunkserver:
        for server in self._membership.servers():
            if server.id == number:
                return server
        raise EntryNotFoundError(f"there is no chunkserver {number}")

    def _members(self) -> tuple[list[master_pb2.Member], list[master_pb2.Member]]:
        leader = self._namespace.leader_id()
        masters, gateways = [], []
        for member in self._namespace.list_members():
            message = master_pb2.Member(id=member.id, address=member.address, pid=member.pid)
            if member.kind == "master":
                message.state = "dead" if not member.is_alive else "leader" if member.id == leader else "standby"
                masters.append(message)
            else:
                message.state = "alive" if member.is_alive else "dead"
                gateways.append(message)
        return masters, gateways


def _progress_to_message(progress: Progress) -> master_pb2.Progress:
    return master_pb2.Progress(
        waiting=progress.waiting,
        under_way=progress.under_way,
        chunks_per_s=progress.chunks_per_s,
        left_s=progress.left_s,
    )


def validate_user_name(name: str) -> None:
    """A name that fits HTTP Basic (no colon) and every client's login form."""
    if not 0 < len(name) <= USER_NAME_MAX or not name.isprintable() or set(name) & set(':/\\"'):
        raise InvalidRequestError(
            f"{name!r} cannot be a user's name: 1 to {USER_NAME_MAX} printable characters without : / \\ and quotes"
        )


def total_usage(namespace: Namespace, membership: Membership, replica_target: int) -> Usage:
    """The space's totals, with capacity and free space divided by the replicas that each byte costs.

    A server that has not called yet counts as empty: a master that has just started must not say that there is no room.
    """
    heard = membership.heard()
    servers = [server for server in membership.servers() if server.state is not ServerState.DEAD]
    copies = max(1, min(replica_target, len(servers)))
    usage = namespace.usage()
    return Usage(
        usage.file_count,
        usage.directory_count,
        usage.file_bytes,
        sum(server.capacity_bytes for server in servers) // copies,
        sum(server.free_bytes if server.id in heard else server.capacity_bytes for server in servers) // copies,
    )
