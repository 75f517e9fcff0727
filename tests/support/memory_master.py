"""What else a gateway asks of a master, in memory: its users and its status, and that it is here.

Used by `memory_filesystem`, whose `rpc` this is.
"""

from __future__ import annotations

from typing import Any

from helenite.core import errors
from helenite.core.pb import master_pb2


class MemoryRpc:
    """The verbs of the master's other services that a gateway calls."""

    def __init__(self) -> None:
        self.users: dict[str, str] = {}
        self.announced: list[Any] = []

    def admin(self, verb: str, request: Any) -> Any:
        match verb:
            case "GetUser":
                if request.name not in self.users:
                    raise errors.EntryNotFoundError(f"there is no user {request.name!r}")
                return master_pb2.User(name=request.name, password_hash=self.users[request.name])
            case "ListUsers":
                return master_pb2.UsersReply(users=[master_pb2.User(name=name) for name in self.users])
            case "GetStatus":
                return master_pb2.StatusReply(cluster_id="memory")
        raise AssertionError(verb)

    def cluster(self, verb: str, request: Any, deadline_s: float | None = None) -> Any:
        assert verb == "Announce", verb
        self.announced.append(request)
        return master_pb2.ServersReply()
