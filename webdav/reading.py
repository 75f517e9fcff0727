"""OPTIONS, GET and HEAD.

Used by `requests`. Files are sent as segments of verified bytes, ranges included; directories as a page for browsers.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
from collections.abc import Iterator

from helenite.core.errors import EntryNotFoundError, PreconditionFailedError, WrongKindError
from helenite.core.model import Condition, Entry
from helenite.core.paths import format_path
from webdav.conditions import evaluate_request, found, state_of_view
from webdav.digests import format_repr_digest, wants_sha256
from webdav.errors import refusal
from webdav.listing import render_listing
from webdav.preconditions import if_range_holds
from webdav.provider import Directory, File
from webdav.ranges import ByteRange, parse_ranges
from webdav.request import Request
from webdav.response import BodyPiece, Headers, Response, empty, generated, http_date
from webdav.splices import SPLICE_TYPE

EXTENTS = "extents"
"""The query that asks which ranges of which chunks a file consists of."""
EXTENTS_TYPE = "application/vnd.helenite.extents"
EXTENT_LINES = 1024
"""Extents written at once."""
FILE_METHODS = "OPTIONS, GET, HEAD, PUT, PATCH, DELETE, COPY, MOVE, PROPFIND, PROPPATCH, LOCK, UNLOCK"
DIRECTORY_METHODS = "OPTIONS, GET, HEAD, DELETE, COPY, MOVE, PROPFIND, PROPPATCH, LOCK, UNLOCK, REPORT, POST"
FREE_NAME_METHODS = "OPTIONS, PUT, MKCOL, LOCK"
SCRIPTED = re.compile(r"text/html|text/xml|[a-z]+/([a-z0-9.-]+\+)?xml")
"""What may bring scripts: in a browser they would do with the drive whatever the user who opens the file may do."""


def options(request: Request) -> Response:
    """What can be done here (RFC 9110 section 9.3.7, RFC 4918 section 10.1)."""
    headers: Headers = [("MS-Author-Via", "DAV"), ("Accept-Ranges", "bytes")]
    if request.environ["REQUEST_URI"] == "*":
        return empty(200, [("Allow", f"{FILE_METHODS}, MKCOL, REPORT, POST"), *headers])
    resource = request.find()
    if resource is None:
        return empty(200, [("Allow", FREE_NAME_METHODS), *headers])
    if resource.is_collection:
        return empty(200, [("Allow", DIRECTORY_METHODS), *headers])
    return empty(200, [("Allow", FILE_METHODS), ("Accept-Patch", SPLICE_TYPE), *headers])


def get(request: Request) -> Response:
    """GET and HEAD of a file or a directory."""
    is_digest_wanted = wants_sha256(request.header("Want-Repr-Digest"))
    with_locations = request.method == "GET" or is_digest_wanted
    evaluated = evaluate_request(request, is_read=True, with_locations=with_locations)
    resource = found(evaluated.resource, request.path)
    headers: Headers = [
        ("ETag", f'"{resource.get_etag()}"'),
        ("Last-Modified", http_date(resource.get_last_modified())),
        ("Cache-Control", "no-cache"),
    ]
    if evaluated.is_unmodified:
        return Response(304, headers)
    if isinstance(resource, Directory):
        return _get_directory(request, resource, headers)
    if request.has_slash:
        raise EntryNotFoundError(f"{format_path(request.path)} is a file; its link has no slash at the end")
    if request.environ["QUERY_STRING"] == EXTENTS:
        return generated(200, _write_extents(resource.entry), EXTENTS_TYPE, headers)
    sha256 = resource.entry.sha256
    if is_digest_wanted and request.method == "HEAD":
        sha256 = sha256 or _compute_digest(request, resource)
    if sha256:  # of the whole file, whatever part of it is sent (RFC 9530 section 3)
        headers.append(("Repr-Digest", format_repr_digest(sha256)))
    return _get_file(request, resource, headers)


def _write_extents(entry: Entry) -> Iterator[bytes]:
    """`HANDLE OFFSET LENGTH` for each extent, in the order of the file."""
    for start in range(0, len(entry.extents), EXTENT_LINES):
        group = entry.extents[start : start + EXTENT_LINES]
        yield "".join(f"{extent.handle:x} {extent.offset} {extent.length}\n" for extent in group).encode()


def _compute_digest(request: Request, file: File) -> bytes:
    """Read the whole file for who wants its digest and not its content, and keep the digest with the revision."""
    state = hashlib.sha256()
    with file.get_content() as reader:
        for piece in reader.iterate():
            state.update(piece)
    with contextlib.suppress(PreconditionFailedError, EntryNotFoundError):  # what was read is not there any more
        request.file_system.set_digest(request.path, sha256=state.digest(), condition=Condition.exactly(file.entry))
    return state.digest()


def _get_directory(request: Request, directory: Directory, headers: Headers) -> Response:
    if request.method == "HEAD":
        return Response(200, [("Content-Type", "text/html; charset=utf-8"), *headers])
    try:
        members = directory.members()
    except WrongKindError as error:  # exchanged for a file a moment ago
        raise EntryNotFoundError(str(error)) from error
    return generated(200, render_listing(directory.names, members), "text/html; charset=utf-8", headers)


def _get_file(request: Request, file: File, headers: Headers) -> Response:
    size = file.get_content_length()
    headers += [("Accept-Ranges", "bytes"), ("X-Content-Type-Options", "nosniff")]
    if SCRIPTED.match(file.get_content_type()):
        headers.append(("Content-Security-Policy", "sandbox"))
    ranges = _ranges_to_send(request, file, size)
    if ranges is None:
        described = [("Content-Type", file.get_content_type()), ("Content-Length", str(size))]
        return Response(200, described + headers, _pieces(file, (ByteRange(0, size),), {}))
    if not ranges:
        raise refusal(416, "no range lies inside the file", headers=[("Content-Range", f"bytes */{size}")])
    if len(ranges) > 1:
        return _multipart(file, ranges, headers)
    described = [
        ("Content-Type", file.get_content_type()),
        ("Content-Length", str(ranges[0].length)),
        ("Content-Range", ranges[0].content_range(size)),
    ]
    return Response(206, described + headers, _pieces(file, ranges, {}))


def _ranges_to_send(request: Request, file: File, size: int) -> tuple[ByteRange, ...] | None:
    """The ranges to honour, None for the whole file. Ranges are defined for GET alone (RFC 9110 section 14.2)."""
    wanted, condition = request.header("Range"), request.header("If-Range")
    if wanted is None or request.method != "GET":
        return None
    if condition is not None and not if_range_holds(condition, state_of_view(file.view)):
        return None
    return parse_ranges(wanted, size)


def _pieces(file: File, parts: tuple[ByteRange, ...], heads: dict[ByteRange, bytes]) -> Iterator[BodyPiece]:
    with file.get_content() as reader:
        for part in parts:
            if part in heads:
                yield heads[part]
            yield from reader.iterate(part.start, part.length)


def _multipart(file: File, ranges: tuple[ByteRange, ...], headers: Headers) -> Response:
    """Several ranges as multipart/byteranges (RFC 9110 section 14.6), with a length known beforehand."""
    boundary = secrets.token_hex(16)
    size = file.get_content_length()
    heads = {
        part: (
            f"\r\n--{boundary}\r\nContent-Type: {file.get_content_type()}\r\n"
            f"Content-Range: {part.content_range(size)}\r\n\r\n"
        ).encode()
        for part in ranges
    }
    end = f"\r\n--{boundary}--\r\n".encode()
    length = sum(len(heads[part]) + part.length for part in ranges) + len(end)
    described = [("Content-Type", f"multipart/byteranges; boundary={boundary}"), ("Content-Length", str(length))]

    def body() -> Iterator[BodyPiece]:
        yield from _pieces(file, ranges, heads)
        yield end

    return Response(206, described + headers, body())
