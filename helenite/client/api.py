"""The HTTP API: the cluster's verbs as JSON and plain content, with OpenAPI pages at /docs.

For programs that want neither WebDAV nor gRPC. It adds nothing to `FileSystem` but the translation; content streams
in both directions. FastAPI runs these functions in its thread pool.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Body, FastAPI, Header, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from helenite.client.filesystem import FileSystem
from helenite.client.names import entry_values
from helenite.core import errors
from helenite.core.errors import HeleniteError, PreconditionFailedError, WrongKindError
from helenite.core.model import Condition, Expect, Sequence
from helenite.core.paths import Path, parse_path

STATUS: dict[type[HeleniteError], int] = {
    errors.InvalidRequestError: 400,
    errors.PermissionDeniedError: 403,
    errors.EntryNotFoundError: 404,
    errors.EntryExistsError: 409,
    errors.ParentNotFoundError: 409,
    errors.WrongKindError: 409,
    errors.CycleError: 409,
    errors.SequenceExpiredError: 410,
    errors.PreconditionFailedError: 412,
    errors.LockedError: 423,
    errors.QuotaExceededError: 507,
    errors.InsufficientStorageError: 507,
    errors.UnavailableError: 503,
    errors.HeleniteError: 500,
}
FEED_WAIT_MAX_S = 25.0
"""Below the idle timeout of common proxies."""


def status_of(error: HeleniteError) -> int:
    """The HTTP status of an error, that of its nearest listed base class."""
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def make_app(cluster: FileSystem) -> FastAPI:
    """The ASGI application over one cluster."""
    app = FastAPI(title="Helenite", summary="One network drive from the disks of a few machines.")

    @app.exception_handler(HeleniteError)
    def refuse(_request: Request, error: HeleniteError) -> JSONResponse:
        headers = {"Retry-After": "2"} if error.retryable else {}
        return JSONResponse({"code": error.code, "message": str(error)}, status_of(error), headers)

    _add_entries(app, cluster)
    _add_content(app, cluster)
    _add_cluster(app, cluster)
    return app


def _path(text: str) -> Path:
    return parse_path(f"/{text}")


def _add_entries(app: FastAPI, cluster: FileSystem) -> None:
    @app.get("/entries/{path:path}", tags=["entries"])
    def stat(path: str) -> dict[str, Any]:
        """One entry; of a directory also its members."""
        entry = cluster.stat(_path(path))
        values = entry_values(entry)
        if entry.is_directory:
            _, members = cluster.list(_path(path))
            found = sorted((view.entry for view in members), key=lambda member: member.name)
            values["members"] = [entry_values(member) for member in found]
        return values

    @app.post("/directories/{path:path}", status_code=201, tags=["entries"])
    def make_directory(path: str) -> dict[str, Any]:
        """Make a directory."""
        return entry_values(cluster.make_directory(_path(path)))

    @app.delete("/entries/{path:path}", status_code=204, tags=["entries"])
    def remove(path: str) -> None:
        """Delete an entry with everything beneath it, into the trash."""
        cluster.remove(_path(path))

    @app.post("/move", tags=["entries"])
    def move(
        source: Annotated[str, Body()], target: Annotated[str, Body()], overwrite: Annotated[bool, Body()] = False
    ) -> dict[str, Any]:
        """Rename, in constant time."""
        entry, _ = cluster.move(parse_path(source), parse_path(target), overwrite=overwrite)
        return entry_values(entry)

    @app.post("/copy", tags=["entries"])
    def copy(
        source: Annotated[str, Body()], target: Annotated[str, Body()], overwrite: Annotated[bool, Body()] = False
    ) -> dict[str, Any]:
        """Copy without moving content."""
        entry, _ = cluster.copy(parse_path(source), parse_path(target), overwrite=overwrite)
        return entry_values(entry)


def _condition(cluster: FileSystem, path: Path, if_match: str | None, if_none_match: str | None) -> Condition:
    """The condition that the headers state; the commit checks it again."""
    if if_none_match == "*":
        return Condition(Expect.ABSENT)
    if if_match == "*":
        return Condition(Expect.PRESENT)
    if if_match is None:
        return Condition()
    try:
        entry = cluster.stat(path)
    except errors.EntryNotFoundError:
        raise PreconditionFailedError("there is no such file") from None
    if f'"{entry.etag}"' not in [tag.strip() for tag in if_match.split(",")]:
        raise PreconditionFailedError(f'the file is at "{entry.etag}"')
    return Condition.exactly(entry)


def _add_content(app: FastAPI, cluster: FileSystem) -> None:
    @app.get("/content/{path:path}", tags=["content"], response_class=StreamingResponse)
    def read(
        path: str, offset: Annotated[int, Query(ge=0)] = 0, length: Annotated[int | None, Query(ge=0)] = None
    ) -> Response:
        """The content of a file, or a range of it."""
        reader = cluster.open(_path(path))
        left = max(0, reader.size_bytes - offset)
        size = left if length is None else min(length, left)
        headers = {"Content-Length": str(size), "ETag": f'"{reader.entry.etag}"'}

        def pieces() -> Iterator[bytes]:
            yield from map(bytes, reader.iterate(offset, size))

        return StreamingResponse(pieces(), media_type="application/octet-stream", headers=headers)

    @app.put("/content/{path:path}", status_code=201, tags=["content"])
    async def write(
        path: str,
        request: Request,
        if_match: Annotated[str | None, Header()] = None,
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> dict[str, Any]:
        """Create or replace a file with the request's body, atomically."""
        where = _path(path)
        if not where:
            raise WrongKindError("/ is a directory")
        condition = await run_in_threadpool(_condition, cluster, where, if_match, if_none_match)
        length = request.headers.get("content-length")
        with cluster.create(where, condition=condition, size_bytes=int(length) if length else None) as writer:
            async for piece in request.stream():
                await run_in_threadpool(writer.write, piece)
            entry, _ = await run_in_threadpool(writer.commit)
        return entry_values(entry)


def _add_cluster(app: FastAPI, cluster: FileSystem) -> None:
    @app.get("/usage", tags=["cluster"])
    def usage() -> dict[str, Any]:
        """Files, bytes and room."""
        return asdict(cluster.usage())

    @app.get("/feed", tags=["cluster"])
    def feed(after: int = 0, wait_s: Annotated[float, Query(ge=0, le=FEED_WAIT_MAX_S)] = 0.0) -> dict[str, Any]:
        """Changes after a sequence, in commit order; waits for the first if asked to."""
        changes, last = cluster.read_feed(Sequence(after), wait_s=wait_s)
        return {"changes": [asdict(change) for change in changes], "last": last}
