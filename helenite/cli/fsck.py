"""`helenite fsck`: reads every replica of every file, audits the books, names what is degraded, wrong or lost.

Exit status 0 healthy, 1 degraded (some replicas missing or corrupt, or books that are wrong; content intact), 2 data
lost. The judgement is a pure function of what the namespace wants and what the chunkservers say they hold. With
`--repair` the books are corrected; where metadata was lost, no content is given up unless that is accepted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated

import grpc
import typer
from rich.progress import Progress

from helenite.cli.books import audit, mend
from helenite.cli.connect import DirOption, JsonOption, MasterOption, open_cluster
from helenite.cli.progress import open_progress
from helenite.client.filesystem import FileSystem
from helenite.core.errors import UnavailableError
from helenite.core.model import ChunkHandle, EntryView, ServerId
from helenite.core.paths import ROOT, Path, format_path
from helenite.core.pb import chunkserver_pb2, common_pb2
from helenite.core.pb.chunkserver_pb2_grpc import ControlStub
from helenite.core.serving import GRPC_OPTIONS
from helenite.core.wire import error_from_rpc, failure_from_message

VERIFY_BATCH = 16
"""Chunks verified in one call: at 64 MiB each, about a GiB of reading."""
VERIFY_S = 120.0
LOCATE_BATCH = 1_000
CHUNKS_AT_ONCE = 50_000
"""Chunks that are located, verified and judged before the walk goes on: what bounds the memory, at about 50 MB."""


@dataclass(slots=True)
class Wanted:
    """A chunk that files need: who should hold it, and which files."""

    servers: tuple[ServerId, ...]
    paths: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Report:
    """What fsck found. `degraded` and `lost` are paths of files; `books` and `problems` are sentences."""

    files: int
    chunks: int
    degraded: tuple[str, ...]
    lost: tuple[str, ...]
    problems: tuple[str, ...]
    books: tuple[str, ...] = ()
    orphans: int = 0
    pending: int = 0
    mended: int = 0
    loss: str = ""
    """What shows that metadata was lost; empty when nothing does."""

    @property
    def exit_status(self) -> int:
        return 2 if self.lost or self.loss else 1 if self.degraded or self.problems or self.books else 0


@dataclass(slots=True)
class Tally:
    """What the chunkservers said about one chunk: replicas found good, and replicas that could not be asked about."""

    good: int = 0
    unchecked: int = 0


@dataclass(slots=True)
class Answer:
    """What one chunkserver said: handles found good, handles it could not be asked about, sentences on the rest."""

    healthy: list[ChunkHandle] = field(default_factory=list)
    unchecked: list[ChunkHandle] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def judge(
    files: int, wanted: dict[ChunkHandle, Wanted], said: dict[ChunkHandle, Tally], target: int, problems: list[str]
) -> Report:
    """Compare the healthy replicas of each chunk with the number that it should have.

    A chunk is lost when every replica was asked about and none is good; what could not be asked about may be well.
    """
    degraded: set[str] = set()
    lost: set[str] = set()
    for handle, chunk in wanted.items():
        tally = said.get(handle, Tally())
        if tally.good == 0 and tally.unchecked == 0:
            lost.update(chunk.paths)
        elif tally.good < target:
            degraded.update(chunk.paths)
    return Report(files, len(wanted), tuple(sorted(degraded - lost)), tuple(sorted(lost)), tuple(problems))


def fsck(
    directory: DirOption = None,
    master: MasterOption = None,
    as_json: JsonOption = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Correct the books. Where metadata was lost, nothing is given up that a dump may still bring back.",
        ),
    ] = False,
    accept_loss: Annotated[
        bool,
        typer.Option("--accept-loss", help="With --repair: what was lost is lost; delete the content that it named."),
    ] = False,
) -> None:
    """Read every replica of every file and audit the books; exit 0 healthy, 1 degraded, 2 data lost."""
    with open_cluster(directory, master) as cluster, open_progress() as progress:
        found = audit(cluster, progress)
        mended = 0
        if repair and found.findings:
            mended = mend(cluster, found, progress, accept_loss=accept_loss)
            found = audit(cluster, progress)
        report = replace(
            check(cluster, progress),
            books=tuple(finding.sentence for finding in found.findings),
            orphans=found.orphans,
            pending=found.pending,
            mended=mended,
            loss=found.snapshot.loss,
        )
        report = replace(report, problems=(*report.problems, *found.problems))
    if as_json:
        print(json.dumps(asdict(report), indent=2))
    else:
        show(report)
    sys.exit(report.exit_status)


def show(report: Report) -> None:
    """The report for people."""
    for word, lines in (
        ("LOST", report.lost),
        ("degraded", report.degraded),
        ("books", report.books),
        ("problem", report.problems),
    ):
        for line in lines:
            print(f"{word:9} {line}")
    if report.mended:
        print(f"{report.mended} things in the books were mended")
    if report.loss:
        print(f"METADATA LOST: {report.loss}")
        print(
            "`helenite load latest` brings back what the last dump holds; without one, "
            "`helenite fsck --repair --accept-loss` deletes the content that was named"
        )
    elif report.books:
        print("`helenite fsck --repair` corrects the books")
    verdict = ("healthy", "degraded", "DATA LOST")[report.exit_status]
    unnamed = report.orphans + report.pending
    ending = f"; {unnamed} replicas that no file names will be deleted in time" if unnamed else ""
    print(f"{report.files} files, {report.chunks} chunks: {verdict}{ending}")


def check(cluster: FileSystem, progress: Progress) -> Report:
    """Walk the namespace and ask every chunkserver to verify what it should hold, some ten thousand chunks at a time.

    A chunk that files far from each other share is verified and counted more than once.
    """
    walking = progress.add_task("verifying files", total=cluster.usage().file_count)
    total = Report(0, 0, (), (), ())
    wanted: dict[ChunkHandle, Wanted] = {}
    files = 0
    for path, view in _walk(cluster, ROOT):
        if view.entry.is_directory:
            continue
        files += 1
        _want(cluster, wanted, path, view)
        if len(wanted) >= CHUNKS_AT_ONCE:
            total = join(total, _verify_all(cluster, files, wanted, progress))
            progress.advance(walking, files)
            wanted, files = {}, 0
    return join(total, _verify_all(cluster, files, wanted, progress))


def join(one: Report, other: Report) -> Report:
    """Two reports on different files as one."""
    lost = {*one.lost, *other.lost}
    return Report(
        one.files + other.files,
        one.chunks + other.chunks,
        tuple(sorted({*one.degraded, *other.degraded} - lost)),
        tuple(sorted(lost)),
        tuple(dict.fromkeys((*one.problems, *other.problems))),
    )


def _verify_all(cluster: FileSystem, files: int, wanted: dict[ChunkHandle, Wanted], progress: Progress) -> Report:
    status = cluster.rpc.admin("GetStatus", common_pb2.Empty())
    held: dict[ServerId, list[ChunkHandle]] = {}
    for handle, chunk in wanted.items():
        for server in chunk.servers:
            held.setdefault(server, []).append(handle)
    task = progress.add_task("verifying replicas", total=sum(map(len, held.values())))
    said = {handle: Tally() for handle in wanted}
    problems: list[str] = []
    addresses = {ServerId(server.id): server.address for server in status.chunkservers}
    with ThreadPoolExecutor(max(1, len(held))) as pool:
        answers = pool.map(
            lambda item: _verify(addresses.get(item[0], ""), item[0], item[1], progress, task), held.items()
        )
        for answer in answers:
            problems += answer.problems
            for handle in answer.healthy:
                said[handle].good += 1
            for handle in answer.unchecked:
                said[handle].unchecked += 1
    progress.remove_task(task)
    return judge(files, wanted, said, min(status.replica_target, len(status.chunkservers)), problems)


def _walk(cluster: FileSystem, path: Path) -> Iterator[tuple[Path, EntryView]]:
    _, found = cluster.list(path, with_locations=True)
    for view in found:
        at = (*path, view.entry.name)
        yield at, view
        if view.entry.is_directory:
            yield from _walk(cluster, at)


def _want(cluster: FileSystem, wanted: dict[ChunkHandle, Wanted], path: Path, view: EntryView) -> None:
    servers = {location.handle: location.servers for location in view.locations}
    missing = [extent.handle for extent in view.entry.extents if extent.handle not in servers]
    for at in range(0, len(missing), LOCATE_BATCH):
        for location in cluster.locate(missing[at : at + LOCATE_BATCH]):
            servers[location.handle] = location.servers
    for handle in dict.fromkeys(extent.handle for extent in view.entry.extents):
        wanted.setdefault(handle, Wanted(servers.get(handle, ()))).paths.append(format_path(path))


def _verify(address: str, server: ServerId, handles: list[ChunkHandle], progress: Progress, task: int) -> Answer:
    """Let one chunkserver verify what it should hold."""
    answer = Answer()
    if not address:
        answer.unchecked = handles
        answer.problems.append(f"chunkserver {server} is not registered; {len(handles)} replicas cannot be checked")
        return answer
    with grpc.insecure_channel(address, options=GRPC_OPTIONS) as channel:
        stub = ControlStub(channel)
        for at in range(0, len(handles), VERIFY_BATCH):
            batch = handles[at : at + VERIFY_BATCH]
            try:
                reply = stub.Verify(chunkserver_pb2.HandlesRequest(handles=batch, server=server), timeout=VERIFY_S)
            except grpc.RpcError as problem:
                error = error_from_rpc(problem, f"chunkserver {server}")
                answer.unchecked += handles[at:]
                answer.problems.append(f"{error}; {len(handles) - at} replicas unchecked")
                return answer
            for chunk in reply.chunks:
                if chunk.HasField("failure"):
                    if isinstance(failure_from_message(chunk.failure), UnavailableError):  # it may be well
                        answer.unchecked.append(ChunkHandle(chunk.handle))
                    answer.problems.append(f"chunkserver {server}, chunk {chunk.handle:x}: {chunk.failure.message}")
                else:
                    answer.healthy.append(ChunkHandle(chunk.handle))
            progress.advance(task, len(batch))  # type: ignore[arg-type]
    return answer
