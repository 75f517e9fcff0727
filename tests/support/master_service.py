"""A master for chunkservers to talk to: real gRPC, and answers that the test decides on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc

from helenite.core.errors import DuplicateServerError, ForeignClusterError, UnavailableError
from helenite.core.pb import common_pb2, master_pb2
from helenite.core.pb.master_pb2_grpc import ClusterServicer, add_ClusterServicer_to_server
from helenite.core.wire import errors_as_status

KEY = b"k" * 32
CLUSTER = "ab" * 16


class ScriptedMaster(ClusterServicer):
    """Answers as told and remembers what it heard."""

    def __init__(self, port: int = 0) -> None:
        self.cluster_id = CLUSTER
        self.is_leader = True
        self.knows = False
        self.knows_another = False
        self.hangs = threading.Event()
        self.hangs.set()
        self.orders: list[master_pb2.HeartbeatReply] = []
        self.beats: list[master_pb2.HeartbeatRequest] = []
        self.registrations: list[master_pb2.RegisterRequest] = []
        self.reports: list[list[int]] = []
        self.refuses_reports = 0
        self.others: list[str] = []
        self._server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        add_ClusterServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port(f'127.0.0.1:{port}')}"
        self._server.start()

    def stop(self) -> None:
        self.hangs.set()
        self._server.stop(None).wait()

    def Register(self, request: master_pb2.RegisterRequest, context: grpc.ServicerContext) -> master_pb2.RegisterReply:
        with errors_as_status(context):
            if request.cluster_id not in {"", self.cluster_id}:
                raise ForeignClusterError("another cluster's data")
            if self.knows_another:
                raise DuplicateServerError("another process runs with this identity")
            self.registrations.append(request)
            self.knows = True
            return master_pb2.RegisterReply(
                id=5,
                cluster_id=self.cluster_id,
                capability_key=KEY,
                masters=[self.address, *self.others],
                heartbeat_ms=50,
            )

    def Heartbeat(
        self, request: master_pb2.HeartbeatRequest, context: grpc.ServicerContext
    ) -> master_pb2.HeartbeatReply:
        self.hangs.wait(30)
        self.beats.append(request)
        if not self.knows:
            return master_pb2.HeartbeatReply(must_register=True)
        if not self.is_leader:
            return master_pb2.HeartbeatReply()
        reply = self.orders.pop(0) if self.orders else master_pb2.HeartbeatReply()
        reply.masters.extend([self.address, *self.others])
        return reply

    def ReportChunks(
        self, request_iterator: Iterator[master_pb2.ChunkReport], context: grpc.ServicerContext
    ) -> common_pb2.Empty:
        with errors_as_status(context):
            pages = list(request_iterator)
            if self.refuses_reports:
                self.refuses_reports -= 1
                raise UnavailableError("not now")
            assert pages[-1].is_last
            self.reports.append([handle for page in pages for handle in page.handles])
            return common_pb2.Empty()
