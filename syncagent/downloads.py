"""Content from the server into a local file: what the local file that it replaces has already is copied from there.

Used by `remote`. A download is a list of sources in the order of the file (`recipes`), in the simplest case the whole
file from the server. What is written so far is always the beginning of the wanted content, so a download that broke off
goes on. One that copies from a local file is staged under a name that tells which state of that it copies from, and
counts only if the state has not changed until the end. Any thread.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import BinaryIO

import httpx

from helenite.core.errors import DigestMismatchError, PreconditionFailedError, ProtocolError, UnavailableError
from helenite.core.model import Extent
from helenite.core.paths import Path, format_path
from syncagent.learning import Learner
from syncagent.model import RemoteStamp
from syncagent.ports import Present
from syncagent.recipes import Source, plan_sources
from syncagent.session import Session
from syncagent.troubles import translated

log = logging.getLogger(__name__)

PIECE_BYTES = 256 << 10
RANGES_MAX = 1000
"""Each costs a round trip; a file that differs in more places is fetched whole."""


class Downloads:
    """Fetches files from one collection."""

    def __init__(self, session: Session, learner: Learner) -> None:
        self._session = session
        self._learner = learner

    def fetch(self, path: Path, expected: RemoteStamp, into: FilePath, present: Present | None) -> bytes:
        """As `ports.Remote.fetch`."""
        with translated(into):
            recipe = None
            if present is not None and not (into.exists() and into.stat().st_size > 0):
                recipe = self._learner.recipe(path, expected)
            sources = None if present is None or recipe is None else self._plan(expected, recipe, present)
            if present is None or sources is None:
                digest = self._gather(path, expected, into, [Source(None, expected.size)], into)
            else:
                staged = into.with_name(f"{into.name}-{present.state}")
                digest = self._gather(path, expected, staged, sources, present.file)
                present.confirm()
                staged.replace(into)
            self._learner.learn(path, expected, digest, into, recipe=recipe)
        return digest

    def _plan(self, expected: RemoteStamp, recipe: Sequence[Extent], present: Present) -> list[Source] | None:
        """Where to take the file from, or None: whole from the server."""
        basis = self._learner.bases.load(expected.resource)
        if basis is None or basis.digest != present.digest:
            return None
        sources = plan_sources(basis.extents, recipe)
        is_local = [source.at is not None for source in sources]
        return sources if any(is_local) and len(sources) - sum(is_local) <= RANGES_MAX else None

    def _gather(
        self, path: Path, expected: RemoteStamp, into: FilePath, sources: Sequence[Source], local: FilePath
    ) -> bytes:
        with into.open("a+b") as file:
            state, begun = _resume(file, expected.size)
            at = 0
            for source in sources:
                skipped = min(source.length, max(0, begun - at))
                left = Source(None if source.at is None else source.at + skipped, source.length - skipped)
                if left.length > 0 and left.at is not None:
                    _copy(local, left, file, state)
                elif left.length > 0 or expected.size == 0:
                    self._receive(path, expected, file, state, left.length)
                at += source.length
            if file.tell() != expected.size:
                raise UnavailableError(f"{format_path(path)} broke off at byte {file.tell()} of {expected.size}")
        return state.digest()

    def _receive(self, path: Path, expected: RemoteStamp, file: BinaryIO, state: hashlib._Hash, length: int) -> None:
        """Append so many bytes of the server's file."""
        begun, end = file.tell(), file.tell() + length
        is_whole = length == expected.size
        headers = {"If-Match": expected.etag}
        if not is_whole:
            headers |= {"Range": f"bytes={begun}-{end - 1}", "If-Range": expected.etag}
        with self._session.send("GET", self._session.url(path), headers) as response:
            if response.headers.get("ETag", "") != expected.etag:
                raise PreconditionFailedError(f"{format_path(path)} has another revision by now")
            is_part = response.status_code == 206
            if is_part is is_whole or (is_part and not _begins_at(response, begun)):
                raise ProtocolError(f"the server sent another part of {format_path(path)} than was asked for")
            for piece in response.iter_bytes(PIECE_BYTES):
                self._session.throttles.down.take(len(piece))
                state.update(piece)
                file.write(piece)
                if file.tell() > end:
                    raise ProtocolError(f"the server sends more of {format_path(path)} than it has")
            told = response.headers.get("Repr-Digest", "")
        if file.tell() < end:
            raise UnavailableError(f"{format_path(path)} broke off at byte {file.tell()} of {expected.size}")
        mine = base64.b64encode(state.digest()).decode()
        if end == expected.size and "sha-256=" in told and f"sha-256=:{mine}:" not in told:
            file.truncate(0)
            raise DigestMismatchError(f"{format_path(path)} did not arrive as the server has it")


def _copy(local: FilePath, source: Source, file: BinaryIO, state: hashlib._Hash) -> None:
    """Append a range of a local file."""
    assert source.at is not None
    left = source.length
    with local.open("rb", buffering=0) as held:
        held.seek(source.at)
        while left > 0:
            piece = held.read(min(left, 4 * PIECE_BYTES))
            if not piece:
                raise PreconditionFailedError(f"{local.name} was changed while it was copied from")
            state.update(piece)
            file.write(piece)
            left -= len(piece)


def _resume(file: BinaryIO, size: int) -> tuple[hashlib._Hash, int]:
    """What an earlier attempt has left: its hash so far, and how much it is."""
    state = hashlib.sha256()
    file.seek(0)
    while piece := file.read(PIECE_BYTES):
        state.update(piece)
    if file.tell() <= size:
        return state, file.tell()
    file.seek(0)
    file.truncate()
    return hashlib.sha256(), 0


def _begins_at(response: httpx.Response, start: int) -> bool:
    return str(response.headers.get("Content-Range", "")).startswith(f"bytes {start}-")
