"""Content from the server into a local file: what the local file that it replaces has already is copied from there.

Used by `remote`. A download is a list of sources in the order of the file (`recipes`), in the simplest case the whole
file from the server. What is written so far is always the beginning of the wanted content, so a download that broke off
goes on. One that copies from a local file is staged under a name that tells which state of that it copies from, and
counts only if the state has not changed until the end. Any thread.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import BinaryIO

import httpx

from helenite.core.errors import DigestMismatchError, PreconditionFailedError, ProtocolError, UnavailableError
from helenite.core.model import Extent
from helenite.core.paths import Path, format_path
from syncagent.hashes import ask_digest, parse_digest
from syncagent.holes import HOLE_BYTES_MIN, ContentReader
from syncagent.learning import Learner
from syncagent.model import RemoteStamp
from syncagent.ports import LARGE_BYTES, Present
from syncagent.recipes import Origin, Source, plan_sources
from syncagent.session import Session
from syncagent.troubles import translated

log = logging.getLogger(__name__)

PIECE_BYTES = 256 << 10
"""Of what is fetched, at once."""
COPY_BYTES = 1 << 20
"""The same of a local file."""
_ZEROS = bytes(COPY_BYTES)
RANGES_MAX = 1000
"""Each costs a round trip; a file that differs in more places is fetched whole."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A revision that is to be fetched; `digest` is what it must hash to, if that is known."""

    path: Path
    stamp: RemoteStamp
    digest: bytes | None

    @property
    def name(self) -> str:
        return format_path(self.path)


class Downloads:
    """Fetches files from one collection."""

    def __init__(self, session: Session, learner: Learner) -> None:
        self._session = session
        self._learner = learner

    def fetch(
        self, path: Path, expected: RemoteStamp, into: FilePath, present: Present | None, known: bytes | None
    ) -> bytes:
        """As `ports.Remote.fetch`."""
        wanted = _Wanted(path, expected, known)
        with translated(into):
            digest = None
            recipe = self._learner.recipe(path, expected)
            if present is not None and not (into.exists() and into.stat().st_size > 0):
                sources = self._plan(wanted, recipe, present)
                if sources is not None:
                    digest = self._put_together(wanted, into, sources, present)
            if digest is None:
                digest = self._gather(wanted, into, _plan_alone(wanted, recipe), into)
            self._learner.learn(path, expected, digest, into, recipe=recipe)
        return digest

    def _plan(self, wanted: _Wanted, recipe: Sequence[Extent] | None, present: Present) -> list[Source] | None:
        """Where to take the file from, or None: from the server alone."""
        if wanted.digest is not None and present.digest == wanted.digest:
            return [Source(Origin.LOCAL, 0, wanted.stamp.size)]
        basis = None if recipe is None else self._learner.bases.load(wanted.stamp.resource)
        if basis is None or recipe is None or basis.digest != present.digest:
            return None
        sources = plan_sources(basis.extents, recipe)
        is_of_use = any(source.origin is Origin.LOCAL for source in sources)
        return sources if is_of_use and _count_ranges(sources) <= RANGES_MAX else None

    def _put_together(
        self, wanted: _Wanted, into: FilePath, sources: Sequence[Source], present: Present
    ) -> bytes | None:
        """Make the file from the present one and what that lacks; None when the result is not what the server has."""
        staged = into.with_name(f"{into.name}-{present.state}")
        try:
            digest = self._gather(wanted, staged, sources, present.file)
        except DigestMismatchError as error:
            # The disk may have lost what the local file held: its stamp does not tell.
            log.warning("%s is fetched whole: %s", wanted.name, error)
            staged.unlink()
            return None
        present.confirm()
        staged.replace(into)
        return digest

    def _gather(self, wanted: _Wanted, into: FilePath, sources: Sequence[Source], local: FilePath) -> bytes:
        """Write all that is missing. DigestMismatchError, and the file is empty, when it is not what it should be."""
        told, size = wanted.digest, wanted.stamp.size
        with into.open("a+b") as file:
            state, begun = _resume(file, into, size)
            at = 0
            for source in sources:
                left = _cut(source, begun - at)
                if left.length > 0 and left.origin is not Origin.SERVER:
                    file.flush()
                    _copy(into if left.origin is Origin.ITSELF else local, left, file, state)
                elif left.length > 0 or size == 0:
                    told = self._receive(wanted, file, state, left.length) or told
                at += source.length
            if file.tell() != size:
                raise UnavailableError(f"{wanted.name} broke off at byte {file.tell()} of {size}")
            told = told or self._ask(wanted)
            if told not in {None, state.digest()}:
                file.truncate(0)
                raise DigestMismatchError(f"{wanted.name} did not arrive as the server has it")
        return state.digest()

    def _ask(self, wanted: _Wanted) -> bytes | None:
        """The digest of what came without one, if it is large; None when it cannot be had."""
        if wanted.stamp.size <= LARGE_BYTES:
            return None
        try:
            return ask_digest(self._session, wanted.path, wanted.stamp)
        except UnavailableError as error:
            log.info("%s is taken as it arrived: %s", wanted.name, error)
            return None

    def _receive(self, wanted: _Wanted, file: BinaryIO, state: hashlib._Hash, length: int) -> bytes | None:
        """Append so many bytes of the server's file; the digest of all of it, if the server tells it."""
        etag, begun, end = wanted.stamp.etag, file.tell(), file.tell() + length
        is_whole = length == wanted.stamp.size
        headers = {"If-Match": etag}
        if not is_whole:
            headers |= {"Range": f"bytes={begun}-{end - 1}", "If-Range": etag}
        with self._session.send("GET", self._session.url(wanted.path), headers) as response:
            if response.headers.get("ETag", "") != etag:
                raise PreconditionFailedError(f"{wanted.name} has another revision by now")
            is_part = response.status_code == 206
            if is_part is is_whole or (is_part and not _begins_at(response, begun)):
                raise ProtocolError(f"the server sent another part of {wanted.name} than was asked for")
            for piece in response.iter_bytes(PIECE_BYTES):
                self._session.throttles.down.take(len(piece))
                state.update(piece)
                _append(file, piece)
                if file.tell() > end:
                    raise ProtocolError(f"the server sends more of {wanted.name} than it has")
        if file.tell() < end:
            raise UnavailableError(f"{wanted.name} broke off at byte {file.tell()} of {wanted.stamp.size}")
        return parse_digest(response.headers.get("Repr-Digest", ""))


def _plan_alone(wanted: _Wanted, recipe: Sequence[Extent] | None) -> list[Source]:
    """From the server, but for what the file has twice."""
    sources = [] if recipe is None else plan_sources((), recipe)
    return sources if 0 < _count_ranges(sources) <= RANGES_MAX else [Source(Origin.SERVER, 0, wanted.stamp.size)]


def _count_ranges(sources: Iterable[Source]) -> int:
    return sum(source.origin is Origin.SERVER for source in sources)


def _cut(source: Source, count: int) -> Source:
    """What is left of a source when its first bytes, up to so many, are there already."""
    skipped = min(source.length, max(0, count))
    return Source(source.origin, source.at + skipped, source.length - skipped)


def _copy(local: FilePath, source: Source, file: BinaryIO, state: hashlib._Hash) -> None:
    """Append a range of a local file."""
    left, buffer = source.length, memoryview(bytearray(COPY_BYTES))
    with local.open("rb", buffering=0) as held:
        content = ContentReader(held, source.at)
        while left > 0:
            count = content.readinto(buffer[:left])
            if not count:
                raise PreconditionFailedError(f"{local.name} was changed while it was copied from")
            piece = bytes(buffer[:count])
            state.update(piece)
            _append(file, piece)
            left -= count


def _append(file: BinaryIO, piece: bytes) -> None:
    """Write to the end of a file; a long row of zeros becomes a hole, so that sparse files stay sparse."""
    if len(piece) < HOLE_BYTES_MIN or not _ZEROS.startswith(piece):
        file.write(piece)
    else:
        file.truncate(file.tell() + len(piece))
        file.seek(0, os.SEEK_END)


def _resume(file: BinaryIO, into: FilePath, size: int) -> tuple[hashlib._Hash, int]:
    """What an earlier attempt has left in `into`, open as `file`: its hash so far, and how much it is."""
    if file.seek(0, os.SEEK_END) > size:
        file.truncate(0)
    with into.open("rb", buffering=0) as begun:
        return hashlib.file_digest(ContentReader(begun), "sha256"), file.seek(0, os.SEEK_END)


def _begins_at(response: httpx.Response, start: int) -> bool:
    return str(response.headers.get("Content-Range", "")).startswith(f"bytes {start}-")
