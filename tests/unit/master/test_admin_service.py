"""What people ask of a master: orders that could never be carried out are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NoReturn, cast

import grpc
import pytest

from helenite.core.clock import Clock
from helenite.core.pb import master_pb2
from helenite.master.admin_service import AdminService
from helenite.master.membership import Liveness, Membership
from helenite.master.namespace import Namespace
from helenite.master.repairer import Repairer
from tests.unit.master.test_membership import chunkserver


class Refusing:
    """The context of a call."""

    def set_trailing_metadata(self, metadata: Any) -> None: ...

    def abort(self, _status: grpc.StatusCode, sentence: str) -> NoReturn:
        raise PermissionError(sentence)


class Counting:
    """A repairer that knows of three chunks that depend on any server."""

    def count_dependent(self, _server: int) -> int:
        return 3


def test_the_only_server_cannot_be_drained(namespace: Namespace) -> None:
    """It would be waited for, for ever, and take no new chunks meanwhile."""
    membership = Membership(namespace, Liveness(10.0, 60.0), Clock())
    nobody: Any = None
    service = AdminService(namespace, membership, nobody, cast("Repairer", Counting()), nobody, nobody)
    context = cast("grpc.ServicerContext", Refusing())
    first = membership.register(chunkserver("a"), "")
    with pytest.raises(PermissionError, match="add one first"):
        service.Drain(master_pb2.DrainRequest(id=first), context)
    assert namespace.draining() == frozenset()
    second = membership.register(replace(chunkserver("b"), address="h:3"), "")
    assert service.Drain(master_pb2.DrainRequest(id=first), context).dependent_chunks == 3
    with pytest.raises(PermissionError, match="add one first"):
        service.Drain(master_pb2.DrainRequest(id=second), context)
    assert service.Drain(master_pb2.DrainRequest(id=first, is_off=True), context).dependent_chunks == 3
    assert namespace.draining() == frozenset()
