"""PATCH: a new revision of a file, made of ranges of the present one and of new bytes (RFC 5789).

Used by `requests`. As atomic, durable and conditional as a PUT; what is kept is not moved, its chunks are shared. What
a client sees is written down in COMPLIANCE.md.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from helenite.client.chunking import Part
from helenite.client.splicer import Splicer
from helenite.core.errors import (
    EntryNotFoundError,
    HeleniteError,
    IncompleteBodyError,
    PreconditionFailedError,
    WrongKindError,
)
from helenite.core.model import Condition, Entry, Expect
from helenite.core.paths import format_path
from webdav.conditions import evaluate_request, found, refuse_upload
from webdav.digests import Digests, parse_sha256
from webdav.errors import refusal
from webdav.outcomes import Outcome, write_outcomes
from webdav.provider import File
from webdav.request import Request
from webdav.response import XML_TYPE, Response, empty
from webdav.results import expect_same, known_digest, verify
from webdav.rights import Verb
from webdav.splices import HEAD_BYTES_MAX, SPLICE_TYPE, BrokenSpliceError, find_end_of_head, parse_parts
from webdav.urls import parse_local_url

log = logging.getLogger(__name__)

AT_ONCE_BYTES_MAX = 1 << 30
"""Of a larger result the client hears while it is read, if it prefers that: it takes more than a second or so."""
PROGRESS = "progress"
"""The preference (RFC 7240) for an answer that begins at once; see COMPLIANCE.md."""


@dataclass(frozen=True, slots=True)
class _Order:
    """What a PATCH demands, checked as far as it can be before its body is read."""

    file: File
    source: File | None
    condition: Condition
    modified_at_ms: int
    travels: Digests
    told: bytes
    """The SHA-256 of the result, empty if the client does not say it."""

    @property
    def files(self) -> Sequence[Entry]:
        """Those that there may be ranges of, by their numbers."""
        return [self.file.entry] if self.source is None else [self.file.entry, self.source.entry]

    def begin(self, request: Request, parts: tuple[Part, ...]) -> Splicer:
        """What takes the new bytes."""
        return request.file_system.splice(
            request.path,
            self.file.view,
            parts,
            condition=self.condition,
            modified_at_ms=self.modified_at_ms,
            source=None if self.source is None else (self.source.names, self.source.view),
        )


def patch(request: Request) -> Response:
    """Splice a file (RFC 5789)."""
    if request.media_type != SPLICE_TYPE:
        raise refusal(415, f"a PATCH is {SPLICE_TYPE}", headers=[("Accept-Patch", SPLICE_TYPE)])
    order = _check(request)
    head, rest = _read_head(request, order.travels)
    parts = parse_parts(head, [entry.size_bytes for entry in order.files])
    with contextlib.ExitStack() as unless_it_goes_on:
        splicer = unless_it_goes_on.enter_context(order.begin(request, parts))
        splicer.write(rest)
        for piece in request.body.pieces():
            splicer.write(piece)
            order.travels.update(piece)
        order.travels.verify()
        known = known_digest(parts, order.files)
        if not known and order.told and splicer.size_bytes > AT_ONCE_BYTES_MAX and _prefers_progress(request):
            unless_it_goes_on.pop_all()
            return _answer_while_verifying(request, splicer, order.told)
        if known and order.told:
            expect_same(known, order.told)
        elif order.told:
            for _ in verify(splicer.read_back(), order.told):
                pass
        entry = splicer.commit(known or order.told)
    headers = request.provider.describe(entry)
    if order.modified_at_ms:
        headers.append(("X-OC-Mtime", "accepted"))
    return empty(204, headers)


def _check(request: Request) -> _Order:
    """All that can be refused before the body is read."""
    modified_at_ms = request.modified_at_ms
    travels = Digests(request.header("Content-MD5"), request.header("Repr-Digest"), request.header("OC-Checksum"))
    told = parse_sha256(request.header("X-Helenite-Result-Digest"))
    request.demand_right(Verb.WRITE)
    evaluated = evaluate_request(request, with_locks=True, with_locations=True)
    file = _expect_file(found(evaluated.resource, request.path), request)
    if evaluated.condition.expect is not Expect.EXACT:
        raise refusal(428, "a PATCH needs If-Match with the entity tag of the revision that it is made from")
    refuse_upload(request, evaluated, request.body.announced)
    return _Order(file, _find_source(request), evaluated.condition, modified_at_ms, travels, told)


def _prefers_progress(request: Request) -> bool:
    return PROGRESS in (preference.strip().lower() for preference in (request.header("Prefer") or "").split(","))


def _answer_while_verifying(request: Request, splicer: Splicer, told: bytes) -> Response:
    """An answer that goes on until the result has been read; what became of it stands at its end."""

    def finish() -> Iterator[Outcome | None]:
        outcome = Outcome(request.href)
        with splicer:
            try:
                for _ in verify(splicer.read_back(), told):
                    yield None
                outcome.entry = splicer.commit(told)
            except HeleniteError as error:
                outcome.error = error
                log.info("%s %s: %s", request.method, request.href, error)
        yield outcome

    # The last one keeps nginx from collecting the answer until it is complete.
    headers = [("Content-Type", XML_TYPE), ("Preference-Applied", PROGRESS), ("X-Accel-Buffering", "no")]
    return Response(207, headers, write_outcomes(request.provider, finish()))


def _expect_file(resource: object, request: Request) -> File:
    if not isinstance(resource, File):
        raise WrongKindError(f"{format_path(request.path)} is a collection")
    if request.has_slash:
        raise EntryNotFoundError(f"{format_path(request.path)} is a file; its link has no slash at the end")
    return resource


def _find_source(request: Request) -> File | None:
    """The file of which there may be ranges too, in the revision that the client demands."""
    link, tag = request.header("X-Helenite-Source"), request.header("X-Helenite-Source-Match")
    if link is None:
        return None
    path = parse_local_url(link)
    if path is not None:
        request.demand_right(Verb.READ, path)
    source = None if path is None else request.find(path, with_locations=True)
    if path is None or source is None or tag is None or tag.strip() != f'"{source.get_etag()}"':
        raise PreconditionFailedError("the source is not there in the revision that X-Helenite-Source-Match names")
    if not isinstance(source, File):
        raise WrongKindError(f"{format_path(path)} is a collection")
    return source


def _read_head(request: Request, digests: Digests) -> tuple[bytes, bytes]:
    """The lines of a splice, and what of the new bytes came with them."""
    data = b""
    while (end := find_end_of_head(data)) < 0:
        piece = request.body.read()
        if not piece:
            raise IncompleteBodyError("the body ended before the empty line after the parts")
        digests.update(piece)
        data += piece
        if len(data) > HEAD_BYTES_MAX + len(piece):
            raise BrokenSpliceError(f"the parts of a splice take at most {HEAD_BYTES_MAX} bytes")
    return data[:end], data[end:]
