"""PUT, MKCOL and DELETE.

Used by `requests`. A PUT is invisible until its commit, which happens only when every announced byte is there and
every checksum agrees; what would refuse it is found out before the body is read, unless the body is so small that the
commit's own refusal costs less than another round trip.
"""

from __future__ import annotations

from helenite.core.errors import EntryExistsError, InvalidRequestError, WrongKindError
from helenite.core.model import Condition
from helenite.core.paths import ROOT, format_path
from webdav.conditions import (
    evaluate_if_any,
    evaluate_request,
    found,
    has_conditions,
    refuse_upload,
    unconditional,
)
from webdav.digests import Digests
from webdav.errors import refusal
from webdav.request import Request
from webdav.response import Headers, Response, empty
from webdav.rights import Verb

SMALL_BYTES = 64 * 1024
"""Up to this size a PUT without conditions skips the look-up: the commit refuses just the same."""


def put(request: Request) -> Response:
    """Create or replace a file (RFC 9110 section 9.3.4)."""
    _refuse_strange_content(request)
    if request.path == ROOT or request.has_slash:
        raise refusal(405, "a collection has no content to PUT; a file's link has no slash at the end")
    announced, modified_at_ms = request.announced_bytes, request.modified_at_ms
    digests = Digests(request.header("Content-MD5"), request.header("Repr-Digest"), request.header("OC-Checksum"))
    condition = _condition_of_put(request, announced)
    writing = request.file_system.create(
        request.path, condition=condition, size_bytes=announced, modified_at_ms=modified_at_ms
    )
    with writing as writer:
        for piece in request.body.pieces():
            writer.write(piece)
            digests.update(piece)
        digests.verify()
        entry, is_new = writer.commit(digests.sha256)
    headers = request.provider.describe(entry)
    if modified_at_ms:
        headers.append(("X-OC-Mtime", "accepted"))
    return empty(201 if is_new else 204, headers)


def _refuse_strange_content(request: Request) -> None:
    if request.header("Content-Range") is not None:
        raise InvalidRequestError(
            "a PUT replaces the whole file; Content-Range is not understood (RFC 9110 section 14.5)"
        )
    coding = (request.header("Content-Encoding") or "identity").strip().lower()
    if coding != "identity":
        raise refusal(415, "content is stored as it is; send it without Content-Encoding")


def _condition_of_put(request: Request, announced: int | None) -> Condition:
    """Everything that can be said before the body is read."""
    request.demand_right(Verb.WRITE)
    is_small = announced is not None and announced <= SMALL_BYTES and not request.body.awaits_continue
    if is_small and not has_conditions(request):
        return unconditional(request)
    evaluated = evaluate_request(request, with_locks=True)
    if evaluated.resource is not None and evaluated.resource.is_collection:
        raise WrongKindError(f"{format_path(request.path)} is a collection")
    refuse_upload(request, evaluated, announced)
    return evaluated.condition


def make_collection(request: Request) -> Response:
    """MKCOL (RFC 4918 section 9.3)."""
    request.refuse_body()
    if request.depth("0") != "0":
        raise InvalidRequestError("MKCOL makes one collection: Depth is 0")
    if request.path == ROOT:
        raise EntryExistsError("the root is there already")
    modified_at_ms = request.modified_at_ms
    condition = evaluate_if_any(request)
    entry = request.file_system.make_directory(request.path, condition=condition, modified_at_ms=modified_at_ms)
    headers: Headers = [("Resource-Id", request.provider.resource_id(entry))]
    return empty(201, [*headers, ("X-OC-Mtime", "accepted")] if modified_at_ms else headers)


def delete(request: Request) -> Response:
    """DELETE of a file or a whole collection (RFC 4918 section 9.6). A body means nothing and is ignored."""
    if request.path == ROOT:
        raise refusal(403, "the root cannot be deleted")
    depth = request.depth("infinity")
    condition = evaluate_if_any(request)
    if depth != "infinity" and (depth == "1" or found(request.find(), request.path).is_collection):
        raise InvalidRequestError("DELETE of a collection takes everything beneath it: Depth is infinity")
    request.file_system.remove(request.path, condition=condition)
    return empty(204)
