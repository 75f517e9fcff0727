"""Carries out plans, step by step, against the two sides.

Used by `engine`. Steps that fail are values, not the end: the others go on, and what failed is looked at again in the
next cycle. Each group of steps is one transaction of the journal, and what it did to the local disk is flushed before
the commit, so that after a power cut the journal never knows more than the disk. A process that dies in between has
done steps that the journal does not know: the next look at both sides finds them done, and the planner adopts them.
Content is handed to `transfers`. One thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from helenite.core.errors import HeleniteError, PreconditionFailedError
from helenite.core.paths import Path
from syncagent import records
from syncagent.journal import Journal
from syncagent.model import Kind, LocalState, Node, NodeId, Place, RemoteStamp, RemoteState, Tree, path_of
from syncagent.plan import (
    Adopt,
    Batch,
    Delete,
    Direct,
    Forget,
    Inspect,
    MakeDirectory,
    Move,
    Note,
    Pair,
    Plan,
    Rescue,
    SetAside,
    SetAttributes,
    Step,
    Transfer,
)
from syncagent.ports import LARGE_BYTES, Attributes, Folder, Remote
from syncagent.selection import Selection
from syncagent.transfers import Transfers
from syncagent.underway import Carried, Doing, Moved

GROUP_MAX = 64
"""Steps in one transaction: what a crash makes us find out again, and how many fresh entries share one flush."""


@dataclass(slots=True)
class Outcome:
    """What became of a plan."""

    done: list[Step] = field(default_factory=list)
    failed: list[tuple[Step, HeleniteError]] = field(default_factory=list)
    dirty: set[Path] = field(default_factory=set)
    """Local directories that are not as the journal says."""
    is_full: bool = False
    """Transfers were left to a later plan, because as many as may be are under way."""
    is_doubtful: bool = False
    """What became of an upload has to be asked."""


class StepExecutor:
    """Carries out steps on one pair of folders."""

    def __init__(
        self, folder: Folder, remote: Remote, journal: Journal, selection: Selection, transfers: Transfers
    ) -> None:
        self._folder = folder
        self._remote = remote
        self._journal = journal
        self._selection = selection
        self._transfers = transfers
        self._touched: list[Path] = []
        self._did: list[Doing] = []  # in the present group, as it is noted in `underway`
        self._told: dict[NodeId, bytes | HeleniteError | None] = {}  # what the server says of the present group

    def select(self, selection: Selection) -> None:
        """From now on, another selection."""
        self._selection = selection

    def execute(self, plan: Plan) -> Outcome:
        """Carry out a plan. When anything but a deletion failed, the deletions are left to a later plan."""
        outcome = Outcome()
        for batch in plan.batches:
            deletes = any(isinstance(step, Delete) for step in batch)
            if deletes and outcome.failed:
                break
            for group in _groups(batch):
                self._did = self._local_moves(group)  # what does not happen is known not to have happened
                self._folder.under_way.note(self._did)
                with self._journal.transaction():
                    self._ask_together(group)
                    for step in self._make_together(group, outcome):
                        self._attempt(step, outcome)
                    self._flush()
                self._folder.under_way.end(self._did)
            if any(isinstance(step, Transfer) for step in batch):
                self._transfers.begin()
                self.collect(outcome)
        return outcome

    def collect(self, outcome: Outcome) -> None:
        """Take over what transfers have brought, of this plan or of earlier ones."""
        with self._journal.transaction():
            for arrival in self._transfers.collect():
                if arrival.error is None:
                    outcome.done.append(arrival.step)
                else:
                    self._fail(arrival.step, arrival.error, outcome)
                outcome.is_doubtful |= arrival.is_doubtful
                if arrival.touched is not None:
                    self._touched.append(arrival.touched)
            self._flush()
        self._transfers.end()

    def _local_moves(self, group: Batch) -> list[Doing]:
        """The moves here of a group: many are noted as fast as one."""
        moves = [step for step in group if isinstance(step, Move) and step.side is Tree.LOCAL]
        here = [(self._journal.node(step.node).local, step.place.name) for step in moves]
        return [Moved(local.stamp.inode, name) for local, name in here if local is not None]

    def _flush(self) -> None:
        if self._touched:
            self._folder.flush(self._touched)
            self._touched = []

    def _attempt(self, step: Step, outcome: Outcome) -> None:
        try:
            if isinstance(step, Transfer):
                outcome.is_full |= not self._transfers.start(step)
            else:
                self._carry_out(step)
                outcome.done.append(step)
        except HeleniteError as error:
            self._fail(step, error, outcome)

    def _fail(self, step: Step, error: HeleniteError, outcome: Outcome) -> None:
        outcome.failed.append((step, error))
        if not isinstance(step, Pair):
            outcome.dirty |= self._around(step.node)

    def _around(self, node_id: NodeId) -> set[Path]:
        """The local directory to look at after a step with this node failed."""
        try:
            node = self._journal.node(node_id)
        except KeyError:
            return set()  # while its content was on its way, the node went away on both sides
        if node.local is None:
            return set()
        return {path_of(self._journal, Tree.LOCAL, node.local.place.parent)}

    def _ask_together(self, group: Batch) -> None:
        """Ask the server for the digests that the group wants to know."""
        wanted: dict[NodeId, tuple[Path, RemoteStamp]] = {}
        for step in group:
            if isinstance(step, Inspect) and step.side is Tree.REMOTE:
                state = self._journal.node(step.node).remote
                assert state is not None
                wanted[step.node] = path_of(self._journal, Tree.REMOTE, step.node), state.stamp
        told = self._remote.digests(list(wanted.values())) if wanted else ()
        self._told = dict(zip(wanted, told, strict=True))

    def _make_together(self, group: Batch, outcome: Outcome) -> list[Step]:
        """Make the group's directories on the server in one request; the other steps."""
        makes: list[tuple[MakeDirectory, Path]] = []
        others: list[Step] = []
        for step in group:
            if isinstance(step, MakeDirectory) and step.side is Tree.REMOTE and self._remote.group_max() > 1:
                try:
                    makes.append((step, self._path(Tree.REMOTE, step.place, step.node)))
                except HeleniteError as error:
                    self._fail(step, error, outcome)
            else:
                others.append(step)
        sent = [self._sent_directory(step, path) for step, path in makes]
        self._folder.under_way.note(sent)
        answers = self._make_remote([path for _, path in makes])
        for (step, _), noted, made in zip(makes, sent, answers, strict=True):
            if isinstance(made, HeleniteError):
                self._fail(step, made, outcome)
            else:
                records.remote_is(self._journal, step.node, RemoteState(step.place, Kind.DIRECTORY, made))
                self._did.append(noted)
                outcome.done.append(step)
        return others

    def _sent_directory(self, step: MakeDirectory, path: Path) -> Carried:
        local = self._journal.node(step.node).local
        assert local is not None
        parent = records.directory_id(self._journal, step.place)
        return Carried(Tree.LOCAL, step.place.name, b"", local.stamp.inode, "", parent, "/".join(path))

    def _make_remote(self, paths: list[Path]) -> Sequence[RemoteStamp | HeleniteError]:
        made: list[RemoteStamp | HeleniteError] = []
        for start in range(0, len(paths), self._remote.group_max()):
            some = paths[start : start + self._remote.group_max()]
            try:
                made += self._remote.make_directories(some)
            except HeleniteError as error:
                made += [error] * len(some)
        return made

    def _carry_out(self, step: Note | Direct) -> None:
        match step:
            case Pair(local, remote):
                records.pair(self._journal, local, remote)
            case Rescue(node):
                records.rescue(self._journal, node)
            case Adopt(node):
                records.agree(self._journal, node)
                self._study(node)
            case Forget(node):
                records.forget(self._journal, node)
            case Inspect():
                self._inspect(step)
            case _:
                self._write(step)

    def _write(self, step: Direct) -> None:
        match step:
            case MakeDirectory(Tree.LOCAL, node, place):
                path = self._path(Tree.LOCAL, place, node)
                local = LocalState(place, Kind.DIRECTORY, self._folder.make_directory(path))
                remote = self._journal.node(node).remote
                assert remote is not None
                made = Carried(
                    Tree.REMOTE, place.name, b"", local.stamp.inode, remote.stamp.resource,
                    touched_ns=self._folder.touched_ns(path),
                )  # fmt: skip
                self._folder.under_way.note([made])
                self._touched.append(path)
                records.local_is(self._journal, node, local)
                self._did.append(made)
            case MakeDirectory(_, node, place):
                path = self._path(Tree.REMOTE, place, node)
                sent = self._sent_directory(step, path)
                self._folder.under_way.note([sent])
                stamp = self._remote.make_directory(path)
                records.remote_is(self._journal, node, RemoteState(place, Kind.DIRECTORY, stamp))
                self._did.append(sent)
            case Move(side, node, place):
                self._move(side, self._journal.node(node), place)
            case SetAside(node, name):
                self._set_aside(self._journal.node(node), name)
            case SetAttributes(side, node):
                self._set_attributes(side, self._journal.node(node))
                self._study(node)
            case Delete(Tree.LOCAL, node):
                self._delete_local(node)
            case Delete(_, node):
                self._delete_remote(node)

    def _study(self, node_id: NodeId) -> None:
        """What both sides were found to have need not travel whole when it changes."""
        node = self._journal.node(node_id)
        there, agreed = node.remote, node.ancestor
        if there is None or there.stamp.size <= LARGE_BYTES or node.kind is not Kind.FILE or not node.is_settled:
            return
        if agreed is not None and agreed.digest is not None:
            path, local = (path_of(self._journal, side, node_id) for side in (Tree.REMOTE, Tree.LOCAL))
            self._remote.study(path, there.stamp, agreed.digest, self._folder.file_of(local))

    def _inspect(self, step: Inspect) -> None:
        node = self._journal.node(step.node)
        path = path_of(self._journal, step.side, node.id)
        if step.side is Tree.LOCAL:
            assert node.local is not None
            records.inspected(self._journal, node.id, self._folder.digest(path, node.local.stamp))
            self._study(node.id)
        else:
            assert node.remote is not None
            told = self._told.get(node.id)
            if isinstance(told, HeleniteError):
                raise told
            digest = told or self._read_remote(node, path, node.remote.stamp)
            records.remote_digest(self._journal, node.id, digest)

    def _read_remote(self, node: Node, path: Path, stamp: RemoteStamp) -> bytes:
        """The digest of what a server has that does not tell it."""
        staging = self._folder.staging_file(f"{stamp.resource} {stamp.etag}")
        digest = self._remote.fetch(path, stamp, staging)
        if node.local is not None and node.local.digest == digest:
            staging.unlink(missing_ok=True)  # else the download that follows goes on from here
        return digest

    def _move(self, side: Tree, node: Node, place: Place) -> None:
        source, target = path_of(self._journal, side, node.id), self._path(side, place, node.id)
        if side is Tree.LOCAL:
            assert node.local is not None
            stamp = self._folder.move(source, target, node.local.stamp)
            self._touched += [source[:-1], target]
            records.moved(self._journal, side, node.id, place, stamp)
        else:
            assert node.remote is not None
            noted = Moved(node.remote.stamp.resource, place.name)
            self._folder.under_way.note([noted])
            self._remote.move(source, target, node.remote.stamp)
            records.moved(self._journal, side, node.id, place, None)
            self._did.append(noted)

    def _set_aside(self, node: Node, name: str) -> None:
        assert node.local is not None
        place = Place(node.local.place.parent, name)
        source, target = path_of(self._journal, Tree.LOCAL, node.id), self._path(Tree.LOCAL, place, node.id)
        stamp = self._folder.move(source, target, node.local.stamp)
        self._touched.append(target)
        records.set_aside(self._journal, node.id, place, stamp)

    def _set_attributes(self, side: Tree, node: Node) -> None:
        assert node.local is not None
        assert node.remote is not None
        path = path_of(self._journal, side, node.id)
        local, remote = node.local.stamp, node.remote.stamp
        if side is Tree.LOCAL:
            stamp = self._folder.set_attributes(path, local, Attributes(remote.mtime_ms, remote.executable))
            self._touched.append(path)
            records.attributes_set(self._journal, node.id, stamp)
        else:
            attributes = Attributes(local.mtime_ns // 1_000_000, local.executable)
            records.attributes_set(self._journal, node.id, self._remote.set_attributes(path, remote, attributes))

    def _delete_local(self, node: NodeId) -> None:
        beneath = {path: state.local.stamp for path, state in self._doomed(Tree.LOCAL, node) if state.local is not None}
        path = path_of(self._journal, Tree.LOCAL, node)
        self._folder.trash(path, beneath, self._goes_along)
        self._touched.append(path[:-1])
        records.forget_beneath(self._journal, Tree.LOCAL, node)

    def _delete_remote(self, node: NodeId) -> None:
        beneath = {
            path: state.remote.stamp for path, state in self._doomed(Tree.REMOTE, node) if state.remote is not None
        }
        path = path_of(self._journal, Tree.REMOTE, node)
        self._remote.delete(path, beneath.pop(path), beneath)
        records.forget_beneath(self._journal, Tree.REMOTE, node)

    def _doomed(self, side: Tree, top: NodeId) -> Iterator[tuple[Path, Node]]:
        """A node with everything beneath on one side; nobody among them may be wanted on the other."""
        paths: dict[NodeId, Path] = {}
        for node in self._journal.subtree(side, top):
            state = node.state(side)
            assert state is not None
            if node.only_side is not side or node.ancestor is None:
                raise PreconditionFailedError(f"something in {state.place.name} is not to be deleted")
            above = paths.get(state.place.parent)
            path = path_of(self._journal, side, node.id) if above is None else (*above, state.place.name)
            paths[node.id] = path
            yield path, node

    def _goes_along(self, path: Path, kind: Kind) -> bool:
        return not self._selection.includes(path, is_directory=kind is Kind.DIRECTORY)

    def _path(self, side: Tree, place: Place, taker: NodeId) -> Path:
        """The path of a place that a node is to have."""
        records.expect_free(self._journal, side, place, taker)
        return (*path_of(self._journal, side, place.parent), place.name)


def _groups(batch: Batch) -> Iterator[Batch]:
    for start in range(0, len(batch), GROUP_MAX):
        yield batch[start : start + GROUP_MAX]
