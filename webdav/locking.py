"""LOCK and UNLOCK. The locks themselves live with the namespace, the same for every gateway.

Used by `requests`.
"""

from __future__ import annotations

import re
import uuid

from helenite.core.errors import InvalidRequestError
from helenite.core.model import Lock
from webdav.bodies import XML_BYTES_MAX, LockQuery, parse_lockinfo
from webdav.conditions import evaluate_if_any
from webdav.errors import refusal
from webdav.markup import DECLARATION
from webdav.preconditions import submitted_tokens
from webdav.properties import render_lock
from webdav.request import Request
from webdav.response import XML_TYPE, Response, empty, whole
from webdav.rights import Verb

TIMEOUT_MAX_S = 3600
"""Longest grant: Windows and Office ask for an hour and refresh; a crashed client blocks others no longer than this."""
TIMEOUT_USUAL_S = 600
"""Granted when the client names no timeout."""

_TIMEOUT = re.compile(r"second-(\d{1,10})", re.ASCII)


def lock(request: Request) -> Response:
    """Take a lock, or refresh one when there is no body (RFC 4918 section 9.10)."""
    request.demand_right(Verb.WRITE)
    timeout_s = parse_timeout(request.header("Timeout"))
    body = request.body.read_all(XML_BYTES_MAX)
    if not body:
        return _refresh(request, timeout_s)
    return _acquire(request, parse_lockinfo(body), timeout_s)


def _acquire(request: Request, query: LockQuery, timeout_s: int) -> Response:
    depth = request.depth("infinity")
    if depth == "1":
        raise InvalidRequestError("a lock has Depth 0 or infinity")
    taken, _, is_new = request.file_system.lock(
        request.path,
        token=uuid.uuid4().urn,
        scope=query.scope,
        is_infinite=depth == "infinity",
        owner=query.owner,
        timeout_s=timeout_s,
        condition=evaluate_if_any(request),
    )
    return _describe(request, 201 if is_new else 200, taken, [("Lock-Token", f"<{taken.token}>")])


def _refresh(request: Request, timeout_s: int) -> Response:
    tokens = submitted_tokens(request.if_lists)
    if len(tokens) != 1:
        raise InvalidRequestError("a LOCK without a body refreshes the one lock that its If header names")
    refreshed = request.file_system.refresh_lock(
        request.path, token=tokens[0], timeout_s=timeout_s, principal=request.principal
    )
    return _describe(request, 200, refreshed, [])


def _describe(request: Request, status: int, granted: Lock, headers: list[tuple[str, str]]) -> Response:
    active = render_lock(granted, request.provider.clock.now_ms())
    body = f'{DECLARATION}<D:prop xmlns:D="DAV:"><D:lockdiscovery>{active}</D:lockdiscovery></D:prop>'
    return whole(status, body.encode(), XML_TYPE, headers)


def unlock(request: Request) -> Response:
    """Release a lock (RFC 4918 section 9.11). Windows sends the token without its brackets; a body is ignored."""
    request.demand_right(Verb.WRITE)
    header = (request.header("Lock-Token") or "").strip()
    token = header.removeprefix("<").removesuffix(">")
    if not token:
        raise refusal(400, "UNLOCK needs a Lock-Token header")
    request.file_system.unlock(request.path, token=token, principal=request.principal)
    return empty(204)


def parse_timeout(header: str | None) -> int:
    """The first wish that can be granted, cut to TIMEOUT_MAX_S (RFC 4918 section 10.7)."""
    for wish in (header or "").lower().split(","):
        text = wish.strip()
        if text == "infinite":
            return TIMEOUT_MAX_S
        if (match := _TIMEOUT.fullmatch(text)) is not None:
            return max(1, min(int(match[1]), TIMEOUT_MAX_S))
    return TIMEOUT_USUAL_S
