"""The Namespace service: the metadata verbs over gRPC, and where the most frequent of them are answered without it.

Called from gRPC's threads; `namespace_verbs` does the work.
"""

from __future__ import annotations

import grpc

from helenite.core.errors import UnavailableError
from helenite.core.pb import common_pb2, master_pb2
from helenite.core.pb.master_pb2_grpc import NamespaceServicer
from helenite.core.wire import errors_as_status
from helenite.master.namespace_verbs import NamespaceVerbs


class NamespaceService(NamespaceServicer):
    """Serves one namespace."""

    def __init__(self, verbs: NamespaceVerbs, call_port: master_pb2.CallPort) -> None:
        self._verbs = verbs
        self._call_port = call_port

    def Lookup(self, request: master_pb2.LookupRequest, context: grpc.ServicerContext) -> common_pb2.Entry:
        with errors_as_status(context):
            return self._verbs.lookup(request)

    def List(self, request: master_pb2.ListRequest, context: grpc.ServicerContext) -> master_pb2.ListReply:
        with errors_as_status(context):
            return self._verbs.list(request)

    def Locate(self, request: master_pb2.LocateRequest, context: grpc.ServicerContext) -> master_pb2.LocateReply:
        with errors_as_status(context):
            return self._verbs.locate(request)

    def Mutate(self, request: master_pb2.MutateRequest, context: grpc.ServicerContext) -> master_pb2.MutateReply:
        with errors_as_status(context):
            if not context.is_active():  # a master that was paused finds requests whose clients have long been told no
                raise UnavailableError("the client no longer waits for this change")
            return self._verbs.mutate(request)

    def ReadFeed(self, request: master_pb2.ReadFeedRequest, context: grpc.ServicerContext) -> master_pb2.ReadFeedReply:
        with errors_as_status(context):
            return self._verbs.read_feed(request)

    def GetUsage(self, request: common_pb2.Empty, context: grpc.ServicerContext) -> master_pb2.Usage:
        with errors_as_status(context):
            return self._verbs.get_usage()

    def Allocate(self, request: master_pb2.AllocateRequest, context: grpc.ServicerContext) -> master_pb2.AllocateReply:
        with errors_as_status(context):
            return self._verbs.allocate(request)

    def ListTrash(
        self, request: master_pb2.ListTrashRequest, context: grpc.ServicerContext
    ) -> master_pb2.ListTrashReply:
        with errors_as_status(context):
            return self._verbs.list_trash(request)

    def FindCallPort(self, request: common_pb2.Empty, context: grpc.ServicerContext) -> master_pb2.CallPort:
        return self._call_port
