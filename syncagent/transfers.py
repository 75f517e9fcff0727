"""Content on its way: starts uploads and downloads, and takes over what has arrived.

Used by `engine`. The slow part of a transfer (`cargo`) touches neither the journal nor the synced folder, and may run
on threads of its own while cycles go on, so that one large file holds up nothing; small files travel in company. When
it is done, `collect` looks at the node as it is by then and puts a download in place, or notes an upload; what does not
fit any more is dropped, and the planner decides anew. Apart from the jobs themselves: one thread.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain

from helenite.core.errors import EntryNotFoundError, HeleniteError, PreconditionFailedError
from helenite.core.paths import Path
from syncagent import observe, records
from syncagent.cargo import (
    Cargo,
    Fetched,
    Incoming,
    Outgoing,
    Result,
    Uploaded,
    carry,
    carry_down,
    carry_up,
    is_full,
)
from syncagent.journal import Journal
from syncagent.model import Kind, LocalState, Node, NodeId, Place, RemoteStamp, RemoteState, Tree, path_of
from syncagent.overlaps import Overlaps
from syncagent.plan import Download
from syncagent.plan import Upload as UploadStep
from syncagent.ports import LARGE_BYTES, Content, Folder, Present, Remote, Twin
from syncagent.underway import Carried

SMALL_MAX = 2_000
"""Small transfers under way or waiting for a thread; the planner comes back to the others when these are done."""
LARGE_MAX = 16
"""The same for large ones, so that they do not take the places of the small ones."""


@dataclass(frozen=True, slots=True)
class Lanes:
    """Where transfers run: threads for small files, others for large ones. None: at once, in the caller's thread.

    `on_arrival` is called, on such a thread, when a transfer is over: time for another cycle.
    """

    small: Executor | None = None
    large: Executor | None = None
    on_arrival: Callable[[], None] | None = None


_Job = Callable[[], Sequence[Result]]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A transfer that is over. `error`: why it came to nothing. `touched`: what was put in place locally.

    `is_doubtful`: it may have come to more than that, and the server has to be asked.
    """

    step: UploadStep | Download
    error: HeleniteError | None = None
    touched: Path | None = None
    is_doubtful: bool = False


@dataclass(frozen=True, slots=True)
class _Load:
    """Items that are on their way together; `future` has their outcomes, in order."""

    items: Sequence[Cargo]
    is_large: bool
    future: Future[Sequence[Result]]


class Transfers:
    """The transfers of one pair of folders."""

    def __init__(self, folder: Folder, remote: Remote, journal: Journal, lanes: Lanes) -> None:
        self._folder = folder
        self._remote = remote
        self._journal = journal
        self._lanes = lanes
        self._loads: list[_Load] = []
        self._arrived: deque[tuple[Cargo, Result]] = deque()  # and not yet taken over
        self._coming: dict[NodeId, list[Carried]] = {}  # about to be put in place
        self._placed: list[Carried] = []
        self._carried: list[Carried] = []  # taken over, which is about to be written down
        self._running: set[NodeId] = set()
        self._begun: dict[NodeId, Incoming] = {}  # what is staged of downloads, and not in place
        self._overlaps = Overlaps()
        self._astray: dict[NodeId, Path] = {}  # sent to this path, of which the directory was renamed meanwhile
        self._counts: Counter[bool] = Counter()  # of large ones and of others
        self._outgoing: list[Outgoing] = []  # these two wait for company
        self._incoming: list[Incoming] = []

    @property
    def running(self) -> frozenset[NodeId]:
        """The nodes whose content is on its way; nothing else is to be done with them meanwhile."""
        return frozenset(self._running)

    def cancel(self) -> None:
        """Wait for what is under way, and let nothing else begin; what has arrived is not taken over."""
        wait([load.future for load in self._loads if not load.future.cancel()])
        for held in (
            self._loads,
            self._arrived,
            self._outgoing,
            self._incoming,
            self._running,
            self._counts,
            self._begun,
            self._astray,
            self._coming,
            self._placed,
            self._carried,
        ):
            held.clear()
        self._overlaps.clear()

    def start(self, step: UploadStep | Download) -> bool:
        """Prepare a transfer, which begins with `begin` at the latest; False when it has to come again later."""
        node = self._journal.node(step.node)
        state = node.local if isinstance(step, UploadStep) else node.remote
        is_large = state is not None and state.stamp.size > LARGE_BYTES
        if step.node in self._running or self._counts[is_large] >= (LARGE_MAX if is_large else SMALL_MAX):
            return False
        cargo = self._outgoing_of(node, step) if isinstance(step, UploadStep) else self._incoming_of(node, step)
        self._running.add(step.node)
        if isinstance(cargo, Outgoing):
            self._overlaps.begin(step.node, self._journal.fact(observe.TOKEN) or "")
        else:
            self._begun[step.node] = cargo
        self._counts[is_large] += 1
        if cargo.travels_in_company and self._remote.group_max() > 1:
            self._join(cargo)
        else:
            self._submit([cargo], lambda: _alone(cargo, self._folder, self._remote), is_large=is_large)
        return True

    def begin(self) -> None:
        """Nobody else comes along: let those that wait for company go."""
        self._go_up()
        self._go_down()

    def collect(self) -> Iterator[Arrival]:
        """Take over what has arrived. When that is written down, `end` is to be called."""
        self._carried = []
        self._unload()
        self._foretell()
        while self._arrived:
            cargo, result = self._arrived.popleft()
            self._running.discard(cargo.step.node)
            arrival = self._end(cargo, result)
            if isinstance(cargo, Outgoing):
                if isinstance(result, Uploaded) and arrival.error is None and result.sent.digest is not None:
                    self._carried.append(cargo.carried(result.sent.digest))
                is_renamed = cargo.replaces is None and not self._is_at(cargo.place.parent, cargo.target[:-1])
                since = self._overlaps.end(cargo.step.node, cargo.target, is_renamed=is_renamed)
                if since is not None and arrival.error is None:
                    if is_renamed:
                        self._astray[cargo.step.node] = cargo.target
                    observe.ask_again(self._journal, cargo.place.parent, since)
                    arrival = replace(arrival, is_doubtful=True)
            elif arrival.error is None:
                self._carried += self._coming.pop(cargo.step.node, ())
            yield arrival
        placed, self._placed = self._placed, []
        self._folder.under_way.note(placed)
        self._carried += placed
        self._clear()

    def end(self) -> None:
        """What was taken over is written down."""
        self._folder.under_way.end(self._carried)
        self._carried = []

    def looked(self, removed: Iterable[Path] | None) -> None:
        """The server was looked at; what it says is removed, if it does."""
        self._overlaps.look(removed)
        self._find_astray()
        self._clear()

    def _find_astray(self) -> None:
        """What came into another directory, which had the path by then, was not moved there by anybody."""
        astray, self._astray = self._astray, {}
        for node_id, target in astray.items():
            with suppress(KeyError):  # it is gone
                node = self._journal.node(node_id)
                if node.remote is not None and node.ancestor is not None and self._is_at(node_id, target):
                    records.moved_before(self._journal, node_id)

    def _is_at(self, node: NodeId, path: Path) -> bool:
        """Whether the server has a node at this path."""
        try:
            return path_of(self._journal, Tree.REMOTE, node) == path
        except EntryNotFoundError:
            return False

    def _clear(self) -> None:
        """Remove what is staged of revisions that are not on the server any more; others may be gone on with."""
        for node in self._begun.keys() - self._running:
            cargo = self._begun[node]
            if not self._is_wanted(cargo):
                del self._begun[node]
                cargo.discard()

    def _is_wanted(self, cargo: Incoming) -> bool:
        try:
            remote = self._journal.node(cargo.step.node).remote
        except KeyError:
            return False
        return remote is not None and (remote.stamp.resource, remote.stamp.etag) == cargo.revision

    # Beginning

    def _join(self, cargo: Cargo) -> None:
        members_max = self._remote.group_max()
        if isinstance(cargo, Outgoing):
            self._outgoing.append(cargo)
            if is_full(self._outgoing, members_max):
                self._go_up()
        else:
            self._incoming.append(cargo)
            if is_full(self._incoming, members_max):
                self._go_down()

    def _go_up(self) -> None:
        group, self._outgoing = self._outgoing, []
        if group:
            self._submit(group, lambda: carry_up(group, self._folder, self._remote), is_large=False)

    def _go_down(self) -> None:
        group, self._incoming = self._incoming, []
        if group:
            self._submit(group, lambda: carry_down(group, self._remote), is_large=False)

    def _submit(self, items: Sequence[Cargo], job: _Job, *, is_large: bool) -> None:
        lane = self._lanes.large if is_large else self._lanes.small
        future = _run(job) if lane is None else lane.submit(job)
        self._loads.append(_Load(items, is_large, future))
        on_arrival = self._lanes.on_arrival
        if lane is not None and on_arrival is not None:
            future.add_done_callback(lambda _: on_arrival())

    # Ending

    def _foretell(self) -> None:
        """Note what is about to be put in place (`underway`)."""
        self._coming = {}
        for cargo, result in self._arrived:
            if isinstance(cargo, Incoming) and isinstance(result, Fetched):
                with suppress(KeyError, EntryNotFoundError, OSError):  # gone by now, as will be found out
                    name, inode = self._goal(cargo)[1][-1], result.content.staged.lstat().st_ino
                    coming = Carried(Tree.REMOTE, name, result.content.digest, inode, cargo.stamp.resource)
                    self._coming[cargo.step.node] = [coming]
        self._folder.under_way.note(chain.from_iterable(self._coming.values()))

    def _goal(self, cargo: Incoming) -> tuple[Place, Path]:
        """Where a download belongs by now."""
        node = self._journal.node(cargo.step.node)
        place = node.local.place if node.local is not None else cargo.step.place
        if place is None:
            raise EntryNotFoundError("the local file is gone by now")
        return place, (*path_of(self._journal, Tree.LOCAL, place.parent), place.name)

    def _unload(self) -> None:
        """Note the outcomes of all that is over."""
        loads, self._loads = self._loads, []
        for load in loads:
            if not load.future.done():
                self._loads.append(load)
                continue
            self._counts[load.is_large] -= len(load.items)
            try:
                results = load.future.result()
            except HeleniteError as error:
                results = [error] * len(load.items)
            self._arrived.extend(zip(load.items, results, strict=True))

    def _end(self, cargo: Cargo, result: Result) -> Arrival:
        if isinstance(result, HeleniteError):
            return Arrival(cargo.step, result)
        try:
            return Arrival(cargo.step, touched=self._take_over(cargo, result))
        except HeleniteError as error:
            return Arrival(cargo.step, error)

    def _outgoing_of(self, node: Node, step: UploadStep) -> Outgoing:
        local = node.local
        assert local is not None
        source = path_of(self._journal, Tree.LOCAL, node.id)
        if step.place is None:
            assert node.remote is not None
            place, replaces = node.remote.place, node.remote.stamp
        else:
            place, replaces = step.place, None
            records.expect_free(self._journal, Tree.REMOTE, place, node.id)
        target = (*path_of(self._journal, Tree.REMOTE, place.parent), place.name)
        twins = self._twins(local.stamp.size) if node.kind is Kind.FILE else {}
        parent = records.directory_id(self._journal, place)
        return Outgoing(step, local, source, place, target, replaces, twins, parent)

    def _twins(self, size: int) -> dict[bytes, Twin]:
        """Files on the server of this size, by their content."""
        return {
            node.ancestor.digest: Twin(path_of(self._journal, Tree.REMOTE, node.id), node.remote.stamp)
            for node in self._journal.find_twins(size)
            if node.ancestor is not None and node.ancestor.digest is not None and node.remote is not None
        }

    def _incoming_of(self, node: Node, step: Download) -> Incoming:
        remote = node.remote
        assert remote is not None
        source = path_of(self._journal, Tree.REMOTE, node.id)
        staging = self._folder.staging_file(f"{remote.stamp.resource} {remote.stamp.etag}")
        present = self._local_twin(remote) or self._present(node)
        replaces = None if node.local is None else node.local.stamp
        return Incoming(step, node.kind, source, remote.stamp, remote.digest, staging, present, replaces)

    def _local_twin(self, remote: RemoteState) -> Present | None:
        """A local file that has this content already."""
        nodes = [] if remote.digest is None else self._journal.find_twins(remote.stamp.size)
        found = (self._present(node) for node in nodes if node.ancestor and node.ancestor.digest == remote.digest)
        return next(found, None)

    def _present(self, node: Node) -> Present | None:
        """The local file, if it still has the content that was agreed."""
        local, agreed = node.local, node.ancestor
        if local is None or agreed is None or agreed.digest is None or local.stamp != agreed.local:
            return None
        path = path_of(self._journal, Tree.LOCAL, node.id)

        def confirm() -> None:
            seen = self._folder.see(path)
            if seen is None or seen.stamp != local.stamp:
                raise PreconditionFailedError("a local file was changed while it was copied from")

        stamp = local.stamp
        state = f"{stamp.inode:x}-{stamp.mtime_ns:x}-{stamp.ctime_ns:x}"
        return Present(self._folder.file_of(path), agreed.digest, state, confirm)

    def _take_over(self, cargo: Cargo, outcome: Uploaded | Fetched) -> Path | None:
        match outcome:
            case Uploaded(sent, place, stamp):
                assert isinstance(cargo, Outgoing)
                state = RemoteState(place, sent.kind, stamp, sent.digest)
                records.uploaded(self._journal, cargo.step.node, sent, state, cargo.replaces)
                return None
            case Fetched(stamp, content):
                assert isinstance(cargo, Incoming)
                path = self._install(cargo, stamp, content)
                self._begun.pop(cargo.step.node, None)
                return path

    def _install(self, cargo: Incoming, stamp: RemoteStamp, content: Content) -> Path:
        """Put a download in place, if it still is what both sides want."""
        try:
            node = self._journal.node(cargo.step.node)
        except KeyError as error:
            raise PreconditionFailedError("the entry is gone by now") from error
        if node.remote is None or node.remote.stamp != stamp:
            raise PreconditionFailedError("the server has a newer revision by now")
        replaces = None if node.local is None else node.local.stamp
        if replaces != (cargo.replaces if cargo.step.place is None else None):
            raise PreconditionFailedError("the local file was changed while its new revision came")
        place, path = self._goal(cargo)
        records.expect_free(self._journal, Tree.LOCAL, place, node.id)
        local = self._folder.install(path, content, replaces)
        self._placed.append(Carried(Tree.LOCAL, path[-1], content.digest, local.inode, stamp.resource))
        node = self._journal.node(node.id)
        assert node.remote is not None
        if node.remote.digest is None:
            records.remote_digest(self._journal, node.id, content.digest)
        records.local_is(self._journal, node.id, LocalState(place, node.kind, local, content.digest))
        return path


def _alone(cargo: Cargo, folder: Folder, remote: Remote) -> Sequence[Result]:
    return [carry(cargo, folder, remote)]


def _run(job: _Job) -> Future[Sequence[Result]]:
    """Run at once, in this thread."""
    future: Future[Sequence[Result]] = Future()
    try:
        future.set_result(job())
    except HeleniteError as error:
        future.set_exception(error)
    return future
