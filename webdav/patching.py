"""PATCH: a new revision of a file, made of ranges of the present one and of new bytes (RFC 5789).

Used by `requests`. As atomic, durable and conditional as a PUT; what is kept is not moved, its chunks are shared. What
a client sees is written down in COMPLIANCE.md.
"""

from __future__ import annotations

import itertools

from helenite.client.chunking import Part
from helenite.core.errors import (
    EntryNotFoundError,
    IncompleteBodyError,
    PreconditionFailedError,
    WrongKindError,
)
from helenite.core.model import Expect
from helenite.core.paths import format_path
from webdav.conditions import evaluate_request, found, refuse_upload
from webdav.digests import Digests, parse_sha256
from webdav.errors import refusal
from webdav.provider import File
from webdav.request import Request
from webdav.response import Response, empty
from webdav.results import ResultDigest
from webdav.rights import Verb
from webdav.splices import HEAD_BYTES_MAX, SPLICE_TYPE, BrokenSpliceError, find_end_of_head, parse_parts
from webdav.urls import parse_local_url

VERIFIED_BYTES_MAX = 1 << 30
"""A digest of a larger result is not kept: a small change of a large file would cost as much as reading all of it."""


def patch(request: Request) -> Response:
    """Splice a file (RFC 5789)."""
    if request.media_type != SPLICE_TYPE:
        raise refusal(415, f"a PATCH is {SPLICE_TYPE}", headers=[("Accept-Patch", SPLICE_TYPE)])
    modified_at_ms = request.modified_at_ms
    digests = Digests(request.header("Content-MD5"), request.header("Repr-Digest"), request.header("OC-Checksum"))
    told = parse_sha256(request.header("X-Helenite-Result-Digest"))
    request.demand_right(Verb.WRITE)
    evaluated = evaluate_request(request, with_locks=True, with_locations=True)
    file = _expect_file(found(evaluated.resource, request.path), request)
    if evaluated.condition.expect is not Expect.EXACT:
        raise refusal(428, "a PATCH needs If-Match with the entity tag of the revision that it is made from")
    refuse_upload(request, evaluated, request.body.announced)
    source = _find_source(request)
    head, rest = _read_head(request, digests)
    sizes = [file.entry.size_bytes] if source is None else [file.entry.size_bytes, source.entry.size_bytes]
    parts = parse_parts(head, sizes)
    result = _start_result(request, told, parts, [file] if source is None else [file, source])
    splicing = request.file_system.splice(
        request.path,
        file.view,
        parts,
        condition=evaluated.condition,
        modified_at_ms=modified_at_ms,
        source=None if source is None else (source.names, source.view),
    )
    with splicing as splicer:
        for piece in itertools.chain([rest], request.body.pieces()):
            splicer.write(piece)
            if piece is not rest:  # which came with the head
                digests.update(piece)
            if result is not None:
                result.update(piece)
        digests.verify()
        entry = splicer.commit(b"" if result is None else result.verified())
    headers = request.provider.describe(entry)
    if modified_at_ms:
        headers.append(("X-OC-Mtime", "accepted"))
    return empty(204, headers)


def _start_result(request: Request, told: bytes, parts: tuple[Part, ...], files: list[File]) -> ResultDigest | None:
    """What is to have the digest that the client told; None without one, or when the result is too large to be read."""
    if not told or sum(part.length for part in parts) > VERIFIED_BYTES_MAX:
        return None
    return ResultDigest(told, parts, [request.file_system.open_view(file.view) for file in files])


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
