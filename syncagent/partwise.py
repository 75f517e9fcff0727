"""Uploads of very large files in parts: what is on the server need not be sent again after a break or a restart.

Used by `deliveries`. The parts are put together in a draft (`drafts`), each durable when its request is answered: the
first by PUT, the others by PATCH. Holes of a sparse file are only named, so such a file always goes this way. A draft
that is complete is moved to its name, if that is free, or its content becomes the next revision of the file that was
seen there. A part takes some seconds, whatever the line gives. The draft is gone on with only while the local file is
in the very state in which it was begun, so what it holds is the beginning of the content. One thread for each upload.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as FilePath

from helenite.core.errors import (
    EntryExistsError,
    EntryNotFoundError,
    HeleniteError,
    InvalidRequestError,
    PreconditionFailedError,
)
from helenite.core.paths import Path, format_path
from syncagent.drafts import Draft, Drafts
from syncagent.holes import Layout, Run, layout_of, may_be_sparse
from syncagent.model import LocalStamp, RemoteStamp
from syncagent.names import aside_name
from syncagent.pace import Pace
from syncagent.ports import Twin, Upload
from syncagent.session import Session, format_digest
from syncagent.splicing import patch, stamp_of
from syncagent.taking import take_all
from syncagent.troubles import expect_state, translated

log = logging.getLogger(__name__)

PIECE_BYTES = 256 << 10
RUNS_MAX = 4000
"""In one part, each a line; a server takes 4096."""

Look = Callable[[Path], RemoteStamp]
"""What the server says of an entry; EntryNotFoundError."""


@dataclass(slots=True)
class _Upload:
    """An upload under way: what it is of, where it grows, and how far it is."""

    sent: Upload
    layout: Layout
    draft: Draft
    grown: RemoteStamp | None

    @property
    def size(self) -> int:
        return 0 if self.grown is None else self.grown.size

    def expect_unchanged(self) -> None:
        """PreconditionFailedError when the file is not what it was when its digest was taken."""
        assert self.sent.stamp is not None
        expect_state(self.sent.file, self.sent.stamp)


class Partwise:
    """Sends files to one collection, part by part."""

    def __init__(self, session: Session, drafts: Drafts, pace: Pace) -> None:
        self._session = session
        self._drafts = drafts
        self._pace = pace

    def is_worth_it(self, path: Path, sent: Upload) -> bool:
        """Whether a file should go in parts: it takes long, or has holes, or some of it is there already."""
        if not self._drafts.are_kept or sent.stamp is None:
            return False
        if self._pace.is_too_much(sent.size) or self._drafts.load(path) is not None:
            return True
        with translated(sent.file):
            return may_be_sparse(sent.file.lstat())

    def store(
        self, path: Path, sent: Upload, replaces: RemoteStamp | None, dated: dict[str, str], look: Look
    ) -> RemoteStamp:
        """As `ports.Remote.store`; `dated` are headers that say of what time the file is."""
        upload = self._begin(path, sent, look)
        try:
            while upload.grown is None or upload.grown.size < sent.size:
                upload.grown = self._grow(upload, dated)
                self._drafts.save(upload.draft)
            upload.expect_unchanged()
            return self._publish(path, upload, replaces, dated)
        except (PreconditionFailedError, EntryExistsError, EntryNotFoundError, InvalidRequestError):
            self._give_up(upload.draft)  # it cannot become what it was to be
            raise

    def _publish(self, path: Path, upload: _Upload, replaces: RemoteStamp | None, dated: dict[str, str]) -> RemoteStamp:
        """Make a complete draft what it was to be."""
        assert upload.grown is not None
        source = self._session.url(upload.draft.path)
        if replaces is None:
            target = {"Destination": self._session.url(path), "Overwrite": "F", "If-Match": upload.grown.etag}
            self._session.ask("MOVE", source, target)
            self._drafts.forget(upload.draft)
            return upload.grown
        twin = Twin(upload.draft.path, upload.grown)
        stamp = take_all(self._session, path, replaces, twin, upload.sent, dated)
        self._give_up(upload.draft)
        return stamp

    def tidy(self) -> None:
        """Delete what was begun long ago and never came to its end."""
        for draft in self._drafts.abandoned(self._session.clock.now_ms()):
            self._give_up(draft)

    def _begin(self, path: Path, sent: Upload, look: Look) -> _Upload:
        """Go on with a draft, or begin a new one."""
        state, draft = _format_state(sent.stamp), self._drafts.load(path)
        with translated(sent.file), sent.file.open("rb", buffering=0) as file:
            layout = layout_of(file)
        if draft is not None:
            grown = _look(draft.path, look)
            if (draft.digest, draft.state) == (sent.digest, state) and grown is not None and grown.size <= sent.size:
                return _Upload(sent, layout, draft, grown)
            self._give_up(draft)
        place = (*path[:-1], aside_name(f"upload{secrets.token_hex(8)}", 1))
        draft = Draft(path, place, sent.digest, state)
        self._drafts.save(draft)
        return _Upload(sent, layout, draft, None)

    def _give_up(self, draft: Draft) -> None:
        try:
            self._session.ask("DELETE", self._session.url(draft.path), {})
        except EntryNotFoundError:
            pass
        except HeleniteError as error:
            log.info("%s is not deleted yet: %s", format_path(draft.path), error)
            return
        self._drafts.forget(draft)

    # Parts

    def _grow(self, upload: _Upload, dated: dict[str, str]) -> RemoteStamp:
        """Send the next part."""
        sent, begun = upload.sent, upload.size
        runs = choose_part(upload.layout.within(begun, sent.size - begun), self._pace.part_bytes(), RUNS_MAX)
        if upload.grown is None:
            runs, head = [] if runs[0].is_hole else runs[:1], b""  # a PUT has no words for holes
        else:
            head = f"keep 0 {begun}\n".encode() + write_runs(runs)
        end, length = runs[-1].end if runs else 0, sum(run.length for run in runs if not run.is_hole)
        headers = dated | {
            "Content-Length": str(len(head) + length),
            "Repr-Digest": format_digest(_digest_part(upload, head, runs)),
        }
        with self._pace.measured(self._content(upload, head, runs)) as content:
            told = self._send(upload, headers, content, is_last=end == sent.size)
        return stamp_of(told, end, sent.attributes.mtime_ms, executable=False)

    def _send(
        self, upload: _Upload, headers: dict[str, str], content: Iterator[bytes], *, is_last: bool
    ) -> tuple[str, str]:
        """Send a part; the server verifies all of it with the last one. The ETag and the id of the draft then."""
        url = self._session.url(upload.draft.path)
        if upload.grown is None:
            wanted = headers | {"If-None-Match": "*", "Content-Type": "application/octet-stream"}
            response, _ = self._session.ask("PUT", url, wanted, content)
            return response.headers.get("ETag", ""), response.headers.get("Resource-Id", "")
        if is_last:
            upload.expect_unchanged()
        result = upload.sent if is_last else None
        return patch(self._session, url, headers | {"If-Match": upload.grown.etag}, content, result)

    def _content(self, upload: _Upload, head: bytes, runs: Sequence[Run]) -> Iterator[bytes]:
        """A part. Its last piece is kept back until it is clear that the file has not changed meanwhile."""
        piece, source = head, upload.sent.file
        for following in _read(source, runs):
            if piece:
                yield piece
            piece = following
            self._session.throttles.up.take(len(piece))
        upload.expect_unchanged()
        yield piece


def choose_part(runs: Iterable[Run], data_bytes_max: int, runs_max: int) -> list[Run]:
    """The first of these runs, cut to so many bytes of data; what is no hole costs time, and each its line."""
    chosen: list[Run] = []
    room = data_bytes_max
    for run in itertools.islice(runs, runs_max):
        if run.is_hole:
            chosen.append(run)
        elif room > 0:
            chosen.append(replace(run, length=min(run.length, room)))
            room -= run.length
        if room <= 0:
            break
    return chosen


def write_runs(runs: Iterable[Run]) -> bytes:
    """The lines that name them in a splice, and the end of these lines."""
    lines = (f"{'zero' if run.is_hole else 'new'} {run.length}\n" for run in runs)
    return "".join([*lines, "\n"]).encode()


def _look(path: Path, look: Look) -> RemoteStamp | None:
    try:
        return look(path)
    except EntryNotFoundError:
        return None


def _digest_part(upload: _Upload, head: bytes, runs: Sequence[Run]) -> bytes:
    """The SHA-256 of what is to be sent."""
    state = hashlib.sha256(head)
    for piece in _read(upload.sent.file, runs):
        state.update(piece)
    return state.digest()


def _read(source: FilePath, runs: Sequence[Run]) -> Iterator[bytes]:
    """The data in these runs."""
    with translated(source), source.open("rb", buffering=0) as file:
        for run in runs:
            left = 0 if run.is_hole else run.length
            file.seek(run.offset)
            while left > 0:
                piece = file.read(min(left, PIECE_BYTES))
                if not piece:
                    raise PreconditionFailedError(f"{source.name} became shorter while it was sent")
                left -= len(piece)
                yield piece


def _format_state(stamp: LocalStamp | None) -> str:
    """What changes with any edit of a file."""
    assert stamp is not None
    return f"{stamp.inode:x}-{stamp.size:x}-{stamp.mtime_ns:x}-{stamp.ctime_ns:x}"
