"""One attempt to write one chunk to all servers of its allocation: by fan-out or along the chain.

Used by `pool`, which decides what a partial success is worth. Small chunks go to every server in parallel from here
(latency of one hop), several in one request where they are at hand; large ones are sent once, to the primary, which
forwards them while they arrive.
"""

from __future__ import annotations

import select
import time
from collections.abc import Sequence

from helenite.client.connections import Connections
from helenite.core.dataport import DataConnection, write_parts
from helenite.core.errors import DeadlineExceededError, HeleniteError, UnavailableError
from helenite.core.frames import SmallChunk, Target, WriteRequest, encode_write_many
from helenite.core.model import Allocation, ServerId
from helenite.core.stream import Buffer

Acks = dict[ServerId, bytes]
Problems = dict[ServerId, HeleniteError]
Sending = dict[ServerId, tuple[DataConnection, list[Buffer]]]
"""What each server has not been sent yet."""
ACKNOWLEDGE_S = 0.1
"""Kept of the patience for servers that have everything; their acknowledgements are mostly here by then."""


def write_fan_out(
    connections: Connections, allocation: Allocation, data: memoryview, patience_s: float
) -> tuple[Acks, Problems]:
    """Send to all servers, then collect their acknowledgements: digests by server, and what went wrong."""
    deadline = time.monotonic() + patience_s
    request = WriteRequest(allocation.handle, len(data), allocation.capability)
    acks: Acks = {}
    problems: Problems = {}
    messages = {server: write_parts(request, (data,), patience_s) for server in allocation.servers}
    for server, connection in _send_to_all(connections, messages, deadline, problems):
        try:
            acks.update((ack.server, ack.digest) for ack in connection.receive_acks(_left(deadline)))
            connections.give_back(server, connection)
        except HeleniteError as problem:
            connection.close()
            problems[server] = problem
    return acks, problems


def write_many(
    connections: Connections, chunks: Sequence[tuple[Allocation, Buffer]], patience_s: float
) -> tuple[list[Acks], Problems]:
    """The same for several small chunks, in one request to each server: what each chunk's servers acknowledged."""
    deadline = time.monotonic() + patience_s
    shares: dict[ServerId, list[int]] = {}
    for number, (allocation, _) in enumerate(chunks):
        for server in allocation.servers:
            shares.setdefault(server, []).append(number)
    # Mostly all servers get the same request, which is made once.
    requests = {numbers: _many_parts([chunks[n] for n in numbers]) for numbers in set(map(tuple, shares.values()))}
    messages = {server: requests[tuple(numbers)] for server, numbers in shares.items()}
    acks: list[Acks] = [{} for _ in chunks]
    problems: Problems = {}
    for server, connection in _send_to_all(connections, messages, deadline, problems):
        try:
            digests = connection.receive_many_acks(len(shares[server]), _left(deadline))
            connections.give_back(server, connection)
        except HeleniteError as problem:
            connection.close()
            problems[server] = problem
            continue
        for number, digest in zip(shares[server], digests, strict=True):
            if digest:
                acks[number][server] = digest
    return acks, problems


def _many_parts(chunks: Sequence[tuple[Allocation, Buffer]]) -> list[Buffer]:
    small = [SmallChunk(allocation.handle, len(data), allocation.capability) for allocation, data in chunks]
    return [encode_write_many(small), *(data for _, data in chunks)]


def _send_to_all(
    connections: Connections, messages: dict[ServerId, list[Buffer]], deadline: float, problems: Problems
) -> list[tuple[ServerId, DataConnection]]:
    """Send to all at once, so that one that takes nothing does not use up the time of the others; who has it all."""
    sent: list[tuple[ServerId, DataConnection]] = []
    sending: Sending = {}
    for server, parts in messages.items():
        try:
            sending[server] = connections.take(server, _left(deadline)), parts
        except HeleniteError as problem:
            problems[server] = problem
    while sending:
        sent += _send_some(sending, problems)
        if sending and not _wait_for_room([connection for connection, _ in sending.values()], deadline):
            for server, (connection, _) in sending.items():
                connection.close()
                problems[server] = DeadlineExceededError(f"chunkserver {server} takes no data")
            break
    return sent


def _send_some(sending: Sending, problems: Problems) -> list[tuple[ServerId, DataConnection]]:
    """Send to each what it takes now; who has it all, and is no longer among those that are being sent to."""
    finished: list[tuple[ServerId, DataConnection]] = []
    for server, (connection, parts) in list(sending.items()):
        try:
            left = connection.send_some(parts)
        except HeleniteError as problem:
            problems[server] = problem
            del sending[server]
            continue
        sending[server] = connection, left
        if not left:
            finished.append((server, connection))
            del sending[server]
    return finished


def _wait_for_room(connections: list[DataConnection], deadline: float) -> bool:
    """Whether one of them can take more before the deadline, leaving others time to acknowledge."""
    room = select.poll()
    for connection in connections:
        room.register(connection, select.POLLOUT)
    left = deadline - ACKNOWLEDGE_S - time.monotonic()
    return left > 0 and bool(room.poll(left * 1000))


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
