"""Content from a local file to the server: what the revision that it replaces has already is not sent again.

Used by `deliveries`. A large file is signed while it is read once more before it is sent; with the signature of the
revision on the server that makes a splice (PATCH, see webdav/COMPLIANCE.md), as atomic and conditional as a PUT. What
is not worth it, or not known, goes whole. Any thread.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path as FilePath

from helenite.core.errors import (
    EntryNotFoundError,
    InvalidRequestError,
    PermissionDeniedError,
    PreconditionFailedError,
    ProtocolError,
)
from helenite.core.paths import Path, format_path
from syncagent.holes import ContentReader, Layout, layout_of
from syncagent.learning import Learner
from syncagent.model import Kind, RemoteStamp
from syncagent.ports import LARGE_BYTES, Upload
from syncagent.session import Session, format_digest
from syncagent.signature import (
    HASH_BYTES,
    Fresh,
    Kept,
    Part,
    Signature,
    Zeros,
    choose_average,
    compare,
    pieces_within,
    sign,
)
from syncagent.taking import take_all
from syncagent.troubles import expect_state, translated

log = logging.getLogger(__name__)

PIECE_BYTES = 256 << 10
PARTS_MAX = 4096
"""As many as a server takes."""
WORTH = 0.75
"""A splice that sends a larger part of the file is not worth it."""
AVERAGES_APART_MAX = 4
"""A signature whose pieces are so many times larger or smaller than they should be by now is not continued."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """What to send, and the headers that describe it. `signature` is that of the file, when it is known by now."""

    headers: dict[str, str]
    content: Iterator[bytes]
    signature: Signature | None = None


class Uploads:
    """Sends files to one collection."""

    def __init__(self, session: Session, learner: Learner) -> None:
        self._session = session
        self._learner = learner

    def whole(self, upload: Upload) -> Parcel:
        """The file as it is."""
        headers = {
            "Content-Length": str(upload.size),
            "Content-Type": "application/octet-stream",
            "Repr-Digest": format_digest(upload.digest),
        }
        return Parcel(headers, self._content(upload))

    def splice(self, upload: Upload, replaces: RemoteStamp) -> Parcel | None:
        """What the file has that the revision on the server has not; None when the whole file is to be sent."""
        known = self._known_signature(upload, replaces)
        if known is None or upload.stamp is None:
            return None
        with translated(upload.file), upload.file.open("rb", buffering=0) as file:
            signature = sign(ContentReader(file), known.average_bytes)
            expect_state(upload.file, upload.stamp)  # so all that was signed is the content that is to be sent
            layout = layout_of(file)
            compared = compare(known, signature)
            parts = leave_out_holes(compared, layout)
            fresh = [part for part in parts if isinstance(part, Fresh)]
            length = sum(part.length for part in fresh)
            if length > WORTH * upload.size or len(parts) > PARTS_MAX:
                return None
            head = write_head(parts)
            headers = {
                "Content-Length": str(len(head) + length),
                "Repr-Digest": format_digest(_digest_fresh(file, head, signature, compared, layout)),
            }
        return Parcel(headers, self._pieces(upload.file, head, fresh), signature)

    def _known_signature(self, upload: Upload, replaces: RemoteStamp) -> Signature | None:
        """That of the revision on the server, if it is of use."""
        if upload.size <= LARGE_BYTES or upload.kind is not Kind.FILE:
            return None
        basis = self._learner.bases.load(replaces.resource)
        if basis is None or basis.etag != replaces.etag or basis.signature is None:
            return None
        average, aim = basis.signature.average_bytes, choose_average(upload.size)
        is_near = max(average, aim) <= AVERAGES_APART_MAX * min(average, aim)
        return basis.signature if is_near else None

    def copy(
        self, path: Path, upload: Upload, replaces: RemoteStamp | None, dated: dict[str, str]
    ) -> RemoteStamp | None:
        """Have the server copy an entry that has the content; None when that is not there as it was, or not for us.

        Only of a server that compares If-Match with the ETag of what is copied, as ours does (RFC 9110 section 13.1.1).
        """
        twin = upload.identical
        if twin is None:
            return None
        try:
            if replaces is not None:
                return take_all(self._session, path, replaces, twin, upload, dated)
            headers = {"Destination": self._session.url(path), "Overwrite": "F", "If-Match": twin.stamp.etag}
            response, _ = self._session.ask("COPY", self._session.url(twin.path), headers)
        except (PreconditionFailedError, EntryNotFoundError, PermissionDeniedError, InvalidRequestError) as error:
            log.info("%s is sent, not copied: %s", format_path(path), error)
            return None
        etag, resource = response.headers.get("ETag", ""), response.headers.get("Resource-Id", "")
        if not etag or not resource:
            raise ProtocolError("the server does not say what it has copied")
        return twin.stamp._replace(etag=etag, resource=resource)

    def _content(self, upload: Upload) -> Iterator[bytes]:
        with translated(upload.file):
            if upload.kind is Kind.LINK:
                yield os.fsencode(upload.file.readlink())
                return
            left = upload.size
            with upload.file.open("rb", buffering=0) as file:
                while piece := file.read(PIECE_BYTES):
                    left -= len(piece)
                    if left < 0:
                        break
                    self._session.throttles.up.take(len(piece))
                    yield piece
            if left:
                raise PreconditionFailedError(f"{upload.file.name} was changed while it was sent")

    def _pieces(self, source: FilePath, head: bytes, parts: Iterable[Fresh]) -> Iterator[bytes]:
        yield head
        with translated(source), source.open("rb", buffering=0) as file:
            for part in parts:
                for piece in _read(file, part.offset, part.length):
                    self._session.throttles.up.take(len(piece))
                    yield piece


def leave_out_holes(parts: Iterable[Kept | Fresh], layout: Layout) -> list[Part]:
    """The same with zeros for what is a hole and would be sent, or put together of zeros that the server has."""
    found: list[Part] = []
    at = 0
    for part in parts:
        runs = list(layout.within(at, part.length))
        if isinstance(part, Kept) and not all(run.is_hole for run in runs):
            runs = []
            found.append(part)
        for run in runs:
            last = found[-1] if found else None
            if not run.is_hole:
                found.append(Fresh(run.offset, run.length))
            elif isinstance(last, Zeros):
                found[-1] = Zeros(last.length + run.length)
            else:
                found.append(Zeros(run.length))
        at += part.length
    return found


def write_head(parts: Iterable[Part]) -> bytes:
    """The lines that begin a splice."""
    lines: list[str] = []
    for part in parts:
        match part:
            case Kept(offset, length):
                lines.append(f"keep {offset} {length}\n")
            case Fresh(_, length):
                lines.append(f"new {length}\n")
            case Zeros(length):
                lines.append(f"zero {length}\n")
    return "".join([*lines, "\n"]).encode()


def _digest_fresh(
    file: io.FileIO, head: bytes, signature: Signature, compared: Iterable[Kept | Fresh], layout: Layout
) -> bytes:
    """The SHA-256 of a splice, from pieces that are what was signed: the server compares what arrives with it."""
    state = hashlib.sha256(head)
    for at, piece in pieces_within(signature, (part for part in compared if isinstance(part, Fresh))):
        check = hashlib.sha256()
        for run in layout.within(at, piece.length):
            if run.is_hole:
                check.update(bytes(run.length))
                continue
            for data in _read(file, run.offset, run.length):
                check.update(data)
                state.update(data)
        if check.digest()[:HASH_BYTES] != piece.hash:
            raise PreconditionFailedError("the file was changed while it was looked at")
    return state.digest()


def _read(file: io.FileIO, offset: int, length: int) -> Iterator[bytes]:
    file.seek(offset)
    left = length
    while left > 0:
        piece = file.read(min(left, PIECE_BYTES))
        if not piece:
            raise PreconditionFailedError("the file became shorter while it was read")
        left -= len(piece)
        yield piece
