"""The structural half of `helenite fsck`: the books of the namespace, audited on a consistent snapshot, and mended.

A dump is taken and opened in a temporary Redis (nothing of the running one is touched), then compared with what the
chunkservers hold. Used by `fsck`.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import grpc
import msgpack
from rich.progress import Progress

from helenite.cli.snapshot import fetch_dump, opened_dump
from helenite.client.filesystem import FileSystem
from helenite.core.dumpfile import check_dump
from helenite.core.errors import UnavailableError
from helenite.core.model import ChunkHandle
from helenite.core.pb import chunkserver_pb2, common_pb2, master_pb2
from helenite.core.pb.chunkserver_pb2_grpc import ControlStub
from helenite.core.serving import GRPC_OPTIONS
from helenite.core.wire import error_from_rpc
from helenite.master.audit import Audit, Auditor, Finding, table_action

LIST_S = 30.0
LIST_PAGE = 10_000
MEND_BATCH = 200
"""Actions of one script: a few milliseconds of Redis."""
LOCATE_BATCH = 1_000
ENTER_S = 15.0
"""Some heartbeats, and the reading of some chunks; what takes longer is found later."""
ENTER_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Books:
    """What the audit found. `orphans` are chunks that no record names and no upload may still commit."""

    findings: tuple[Finding, ...]
    snapshot: Audit
    orphans: int
    pending: int
    """Chunks that no record names, but that an upload in progress may commit."""
    problems: tuple[str, ...]


def audit(cluster: FileSystem, progress: Progress) -> Books:
    """Audit the namespace as of now."""
    found = _audit_snapshot(cluster, progress)
    task = progress.add_task("listing what chunkservers hold", total=None)
    orphans = pending = 0
    holders: dict[ChunkHandle, list[int]] = {handle: [] for handle in found.unknown}
    problems: list[str] = []
    for server in cluster.rpc.admin("GetStatus", common_pb2.Empty()).chunkservers:
        try:
            for handle in _held(server):
                progress.advance(task)
                if handle in holders:
                    holders[handle].append(server.id)
                elif handle not in found.table:
                    orphans += handle <= found.orphan_floor
                    pending += handle > found.orphan_floor
        except UnavailableError as error:
            problems.append(f"what chunkserver {server.id} holds is not known: {error}")
    missing = tuple(
        Finding(
            f"chunk {handle:x} is in no chunk table" + (f"; {len(held)} chunkservers hold it" if held else ""),
            table_action(handle, held) if held else {},
        )
        for handle, held in holders.items()
    )
    return Books((*found.findings, *missing), found, orphans, pending, tuple(problems))


def mend(cluster: FileSystem, books: Books, progress: Progress, *, accept_loss: bool) -> int:
    """Carry out what the audit proposed; how many things changed.

    Where metadata was lost, what would give content up is carried out only if the loss is accepted.
    """
    gives_up = accept_loss or not books.snapshot.loss
    actions = [finding.action for finding in books.findings if finding.action and (gives_up or not finding.gives_up)]
    task = progress.add_task("mending", total=len(actions))
    mended, repair = 0, uuid4().hex
    for number, at in enumerate(range(0, len(actions), MEND_BATCH), 1):
        batch = actions[at : at + MEND_BATCH]
        request = master_pb2.MendRequest(
            actions=msgpack.packb(batch), id=repair, batch=number, mends=books.snapshot.mends, life=books.snapshot.life
        )
        mended += cluster.rpc.admin("Mend", request).mended
        progress.advance(task, len(batch))
    _await_replicas(
        cluster, {ChunkHandle(each["handle"]): len(each["servers"]) for each in actions if each["kind"] == "enter"}
    )
    return mended


def _await_replicas(cluster: FileSystem, entered: dict[ChunkHandle, int]) -> None:
    """Chunks that were entered into the table have their replicas as soon as the chunkservers have looked."""
    pause, deadline = threading.Event(), time.monotonic() + ENTER_S
    while entered and time.monotonic() < deadline:
        found = cluster.locate(list(entered)[:LOCATE_BATCH])
        complete = [location.handle for location in found if len(location.servers) >= entered[location.handle]]
        for handle in complete:
            del entered[handle]
        pause.wait(0 if complete else ENTER_PAUSE_S)


def _audit_snapshot(cluster: FileSystem, progress: Progress) -> Audit:
    with tempfile.NamedTemporaryFile(prefix="helenite-fsck-") as file:
        task = progress.add_task("taking a snapshot of the metadata", total=None)
        for piece in fetch_dump(cluster):
            file.write(piece)
            progress.advance(task, len(piece))
        file.flush()
        progress.add_task("auditing", total=None)
        header = check_dump(Path(file.name))
        with opened_dump(Path(file.name), header) as url:
            auditor = Auditor(url, header.space)
            try:
                return auditor.run()
            finally:
                auditor.close()


def _held(server: common_pb2.Chunkserver) -> Iterator[ChunkHandle]:
    """Every chunk that a chunkserver holds."""
    with grpc.insecure_channel(server.address, options=GRPC_OPTIONS) as channel:
        stub = ControlStub(channel)
        after = 0
        while True:
            request = chunkserver_pb2.ListChunksRequest(after=after, limit=LIST_PAGE, server=server.id)
            try:
                page = stub.ListChunks(request, timeout=LIST_S).handles
            except grpc.RpcError as problem:
                raise UnavailableError(str(error_from_rpc(problem, f"chunkserver {server.id}"))) from problem
            if not page:
                return
            yield from map(ChunkHandle, page)
            after = page[-1]
