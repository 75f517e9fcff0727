"""COPY and MOVE: one atomic mutation each, in constant time whatever lies beneath.

Used by `requests`.
"""

from __future__ import annotations

from helenite.core.errors import InvalidRequestError
from helenite.core.model import Condition
from helenite.core.paths import ROOT
from webdav.conditions import evaluate_if_any, found
from webdav.errors import refusal
from webdav.request import Request
from webdav.response import Response, empty
from webdav.rights import Verb


def copy(request: Request) -> Response:
    """COPY (RFC 4918 section 9.8). Depth 0 copies a collection without its members."""
    depth = request.depth("infinity")
    if depth == "1":
        raise InvalidRequestError("COPY knows Depth 0 and infinity")
    target = request.destination
    if target == ROOT:
        raise refusal(403, "the root cannot be replaced")
    request.demand_right(Verb.READ)
    request.demand_right(Verb.WRITE, target)
    condition = evaluate_if_any(request)
    entry, is_new = request.file_system.copy(
        request.path,
        target,
        overwrite=request.may_overwrite,
        is_shallow=depth == "0",
        condition=condition,
        target_condition=_for_target(condition),
    )
    return empty(201 if is_new else 204, request.provider.describe(entry))


def move(request: Request) -> Response:
    """MOVE (RFC 4918 section 9.9)."""
    target = request.destination
    if ROOT in {target, request.path}:
        raise refusal(403, "the root can neither be moved nor replaced")
    request.demand_right(Verb.WRITE, target)
    condition = evaluate_if_any(request)
    depth = request.depth("infinity")
    if depth != "infinity" and (depth == "1" or found(request.find(), request.path).is_collection):
        raise InvalidRequestError("MOVE of a collection takes everything beneath it: Depth is infinity")
    _, is_new = request.file_system.move(
        request.path,
        target,
        overwrite=request.may_overwrite,
        condition=condition,
        target_condition=_for_target(condition),
    )
    return empty(201 if is_new else 204)


def _for_target(condition: Condition) -> Condition:
    """The target may be in any state; locks and asker are the request's."""
    return Condition(tokens=condition.tokens, principal=condition.principal)
