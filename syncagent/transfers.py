"""Content on its way: starts uploads and downloads, and takes over what has arrived.

Used by `engine`. The slow part of a transfer touches neither the journal nor the synced folder: an upload reads a file,
a download fills a staging file. It may run on threads of its own while cycles go on, so that one large file holds up
nothing. When it is done, `collect` looks at the node as it is by then and puts a download in place, or notes an upload;
what does not fit any more is dropped, and the planner decides anew. Apart from the jobs themselves: one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass

from helenite.core.errors import DigestMismatchError, HeleniteError, PreconditionFailedError
from helenite.core.paths import Path
from syncagent import records
from syncagent.journal import Journal
from syncagent.model import LocalState, Node, NodeId, Place, RemoteStamp, RemoteState, Tree, path_of
from syncagent.plan import Download
from syncagent.plan import Upload as UploadStep
from syncagent.ports import Attributes, Content, Folder, Present, Remote, Twin, Upload

LARGE_BYTES = 4 << 20
"""Larger files take the lane for large ones."""
SMALL_MAX = 256
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


@dataclass(frozen=True, slots=True)
class _Uploaded:
    sent: LocalState
    place: Place
    stamp: RemoteStamp


@dataclass(frozen=True, slots=True)
class _Fetched:
    stamp: RemoteStamp
    content: Content


_Job = Callable[[], "_Uploaded | _Fetched"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A transfer that is over. `error`: why it came to nothing. `touched`: what was put in place locally."""

    step: UploadStep | Download
    error: HeleniteError | None = None
    touched: Path | None = None


@dataclass(frozen=True, slots=True)
class _Running:
    step: UploadStep | Download
    is_large: bool
    future: Future[_Uploaded | _Fetched]


class Transfers:
    """The transfers of one pair of folders."""

    def __init__(self, folder: Folder, remote: Remote, journal: Journal, lanes: Lanes) -> None:
        self._folder = folder
        self._remote = remote
        self._journal = journal
        self._lanes = lanes
        self._running: dict[NodeId, _Running] = {}

    @property
    def running(self) -> frozenset[NodeId]:
        """The nodes whose content is on its way; nothing else is to be done with them meanwhile."""
        return frozenset(self._running)

    def cancel(self) -> None:
        """Wait for what is under way, and let nothing else begin; what has arrived is not taken over."""
        waiting = [running.future for running in self._running.values() if not running.future.cancel()]
        wait(waiting)
        self._running.clear()

    def start(self, step: UploadStep | Download) -> bool:
        """Begin a transfer; False when so many are under way that it has to come again later."""
        node = self._journal.node(step.node)
        state = node.local if isinstance(step, UploadStep) else node.remote
        is_large = state is not None and state.stamp.size > LARGE_BYTES
        count = sum(running.is_large is is_large for running in self._running.values())
        if step.node in self._running or count >= (LARGE_MAX if is_large else SMALL_MAX):
            return False
        job = self._upload(node, step) if isinstance(step, UploadStep) else self._fetch(node)
        lane = self._lanes.large if is_large else self._lanes.small
        future = _run(job) if lane is None else lane.submit(job)
        self._running[step.node] = _Running(step, is_large, future)
        on_arrival = self._lanes.on_arrival
        if lane is not None and on_arrival is not None:
            future.add_done_callback(lambda _: on_arrival())
        return True

    def collect(self) -> Iterator[Arrival]:
        """Take over what has arrived."""
        for running in [running for running in self._running.values() if running.future.done()]:
            del self._running[running.step.node]
            try:
                outcome = running.future.result()
                self._expect_known(running.step.node)
                yield Arrival(running.step, touched=self._take_over(running.step, outcome))
            except HeleniteError as error:
                yield Arrival(running.step, error)

    def _expect_known(self, node: NodeId) -> None:
        """Refuse what has arrived for a node that went away on both sides meanwhile."""
        try:
            self._journal.node(node)
        except KeyError as error:
            raise PreconditionFailedError("the entry is gone by now") from error

    def _upload(self, node: Node, step: UploadStep) -> _Job:
        local, remote = node.local, node.remote
        assert local is not None
        source = path_of(self._journal, Tree.LOCAL, node.id)
        if step.place is None:
            assert remote is not None
            place, replaces = remote.place, remote.stamp
        else:
            place, replaces = step.place, None
            records.expect_free(self._journal, Tree.REMOTE, place, node.id)
        target = (*path_of(self._journal, Tree.REMOTE, place.parent), place.name)
        twin = None if local.digest is None else self._journal.find_content(local.digest)
        identical = None
        if twin is not None and twin.id != node.id and twin.remote is not None:
            identical = Twin(path_of(self._journal, Tree.REMOTE, twin.id), twin.remote.stamp)

        def upload() -> _Uploaded:
            digest = local.digest or self._folder.digest(source, local.stamp)
            stamp = local.stamp
            attributes = Attributes(stamp.mtime_ns // 1_000_000, stamp.executable)
            sent = Upload(node.kind, self._folder.file_of(source), stamp.size, digest, attributes, identical)
            stored = self._remote.store(target, sent, replaces)
            return _Uploaded(LocalState(local.place, node.kind, stamp, digest), place, stored)

        return upload

    def _fetch(self, node: Node) -> _Job:
        remote = node.remote
        assert remote is not None
        source = path_of(self._journal, Tree.REMOTE, node.id)
        staging = self._folder.staging_file(f"{remote.stamp.resource} {remote.stamp.etag}")
        present = self._present(node)

        def fetch() -> _Fetched:
            digest = self._remote.fetch(source, remote.stamp, staging, present)
            if remote.digest is not None and digest != remote.digest:
                staging.unlink(missing_ok=True)
                raise DigestMismatchError(f"{source} did not arrive as the server describes it")
            attributes = Attributes(remote.stamp.mtime_ms, remote.stamp.executable)
            return _Fetched(remote.stamp, Content(node.kind, staging, digest, attributes))

        return fetch

    def _present(self, node: Node) -> Present | None:
        """The local file, if it still has the content that was agreed."""
        local, agreed = node.local, node.ancestor
        if local is None or agreed is None or agreed.digest is None or local.stamp != agreed.local:
            return None
        path = path_of(self._journal, Tree.LOCAL, node.id)

        def confirm() -> None:
            seen = self._folder.see(path)
            if seen is None or seen.stamp != local.stamp:
                raise PreconditionFailedError("the local file was changed while its new revision came")

        stamp = local.stamp
        state = f"{stamp.inode:x}-{stamp.mtime_ns:x}-{stamp.ctime_ns:x}"
        return Present(self._folder.file_of(path), agreed.digest, state, confirm)

    def _take_over(self, step: UploadStep | Download, outcome: _Uploaded | _Fetched) -> Path | None:
        match outcome:
            case _Uploaded(sent, place, stamp):
                state = RemoteState(place, sent.kind, stamp, sent.digest)
                records.uploaded(self._journal, step.node, sent, state)
                return None
            case _Fetched(stamp, content):
                return self._install(step, stamp, content)

    def _install(self, step: UploadStep | Download, stamp: RemoteStamp, content: Content) -> Path:
        """Put a download in place, if it still is what both sides want."""
        node = self._journal.node(step.node)
        if node.remote is None or node.remote.stamp != stamp:
            raise PreconditionFailedError("the server has a newer revision by now")
        if step.place is not None and node.local is not None:
            raise PreconditionFailedError("there is a local file by now")
        if step.place is None and node.local is None:
            raise PreconditionFailedError("the local file is gone by now")
        place = node.local.place if node.local is not None else step.place
        assert place is not None
        records.expect_free(self._journal, Tree.LOCAL, place, node.id)
        replaces = None if node.local is None else node.local.stamp
        path = (*path_of(self._journal, Tree.LOCAL, place.parent), place.name)
        local = self._folder.install(path, content, replaces)
        node = self._journal.node(step.node)
        assert node.remote is not None
        if node.remote.digest is None:
            records.remote_digest(self._journal, node.id, content.digest)
        records.local_is(self._journal, node.id, LocalState(place, node.kind, local, content.digest))
        return path


def _run(job: _Job) -> Future[_Uploaded | _Fetched]:
    """Run at once, in this thread."""
    future: Future[_Uploaded | _Fetched] = Future()
    try:
        future.set_result(job())
    except HeleniteError as error:
        future.set_exception(error)
    return future
