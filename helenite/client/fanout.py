"""One attempt to write one chunk to all servers of its allocation: by fan-out or along the chain (D10).

Used by `pool`, which decides what a partial success is worth. Small chunks go to every server in parallel from here
(latency of one hop); large ones are sent once, to the primary, which forwards them while they arrive.
"""

from __future__ import annotations

import time

from helenite.client.connections import Connections
from helenite.core.dataport import DataConnection
from helenite.core.errors import HeleniteError, UnavailableError
from helenite.core.frames import Target, WriteRequest
from helenite.core.model import Allocation, ServerId

Acks = dict[ServerId, bytes]
Problems = dict[ServerId, HeleniteError]


def write_fan_out(
    connections: Connections, allocation: Allocation, data: memoryview, patience_s: float
) -> tuple[Acks, Problems]:
    """Send to all servers, then collect their acknowledgements: digests by server, and what went wrong."""
    deadline = time.monotonic() + patience_s
    request = WriteRequest(allocation.handle, len(data), allocation.capability)
    acks: Acks = {}
    problems: Problems = {}
    sent: list[tuple[ServerId, DataConnection]] = []
    for server in allocation.servers:
        try:
            connection = connections.take(server, _left(deadline))
            connection.send_write(request, (data,), _left(deadline))
            sent.append((server, connection))
        except HeleniteError as problem:
            problems[server] = problem
    for server, connection in sent:
        try:
            acks.update((ack.server, ack.digest) for ack in connection.receive_acks(_left(deadline)))
            connections.give_back(server, connection)
        except HeleniteError as problem:
            connection.close()
            problems[server] = problem
    return acks, problems


def write_chain(
    connections: Connections, allocation: Allocation, data: memoryview, patience_s: float
) -> tuple[Acks, Problems]:
    """Send to the primary, which forwards; the first server that did not acknowledge is the one to blame."""
    acks: Acks = {}
    try:
        targets = tuple(_target(connections, server) for server in allocation.servers[1:])
        request = WriteRequest(allocation.handle, len(data), allocation.capability, targets)
        with connections.borrow(allocation.servers[0], patience_s) as connection:
            acks.update((ack.server, ack.digest) for ack in connection.write(request, (data,), patience_s))
    except HeleniteError as problem:
        return acks, {allocation.servers[0]: problem}
    missing = [server for server in allocation.servers if server not in acks]
    if not missing:
        return acks, {}
    return acks, {missing[0]: UnavailableError("it did not acknowledge its part of the chain")}


def _target(connections: Connections, server: ServerId) -> Target:
    known = connections.server(server)
    return Target(server, known.data_address, known.data_socket)


def _left(deadline: float) -> float:
    return max(0.01, deadline - time.monotonic())
