"""Evaluating a request's conditions against the cluster, and turning them into what the commit must still find.

Used by the handlers before they act. The comparing is `preconditions`', the looking up is here. The Condition that
comes out carries the submitted lock tokens, so that the mutation's script has the last word about locks and state.
"""

from __future__ import annotations

from dataclasses import dataclass

from helenite.core.errors import (
    EntryNotFoundError,
    InsufficientStorageError,
    InvalidRequestError,
    LockedError,
    ParentNotFoundError,
    PreconditionFailedError,
)
from helenite.core.model import Condition, EntryId, EntryView, Expect, Lock, Sequence
from helenite.core.paths import ROOT, Path, format_path
from webdav.preconditions import (
    State,
    Verdict,
    choose_expect,
    evaluate,
    has_etags,
    if_holds,
    submitted_tokens,
)
from webdav.provider import Resource
from webdav.request import Request
from webdav.rights import Verb
from webdav.urls import parse_local_url

TAGS_MAX = 16
"""Resources that one `If` header may name: each costs a look-up, and clients name two."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A request that may go on (or need not, when the reader has it already)."""

    resource: Resource | None
    condition: Condition
    is_unmodified: bool = False


def has_conditions(request: Request) -> bool:
    """Whether the target must be looked up before anything is done."""
    return request.conditionals.any() or request.header("If") is not None


def unconditional(request: Request) -> Condition:
    """The condition of a request without conditions: who asks."""
    return Condition(principal=request.principal)


def evaluate_request(
    request: Request, *, is_read: bool = False, with_locks: bool = False, with_locations: bool = False
) -> Evaluated:
    """Look the target up and apply every condition; PreconditionFailedError when one does not hold."""
    verb = Verb.READ if is_read else Verb.WRITE
    lists = request.if_lists
    resource = request.find(verb=verb, with_locks=with_locks or bool(lists), with_locations=with_locations)
    state = _state_of(request, request.path, resource)
    verdict = evaluate(request.conditionals, state, is_read=is_read)
    if verdict is Verdict.FAILED:
        raise PreconditionFailedError("a condition of the request does not hold")
    if lists and not if_holds(lists, _States(request, state)):
        raise PreconditionFailedError("the If header does not hold")
    expect = choose_expect(request.conditionals, state, has_etag_conditions=has_etags(lists))
    return Evaluated(resource, _condition(request, expect, resource), verdict is Verdict.NOT_MODIFIED)


def evaluate_if_any(request: Request) -> Condition:
    """The condition of a mutation; looks nothing up when the request sets none."""
    request.demand_right(Verb.WRITE)
    if not has_conditions(request):
        return unconditional(request)
    return evaluate_request(request).condition


def evaluate_if_header(request: Request, resource: Resource | None) -> None:
    """Apply only the `If` header to a target that was looked up already (PROPFIND)."""
    lists = request.if_lists
    if lists and not if_holds(lists, _States(request, _state_of(request, request.path, resource))):
        raise PreconditionFailedError("the If header does not hold")


def refuse_upload(request: Request, evaluated: Evaluated, announced: int | None) -> None:
    """Raise now what the commit would raise after the upload; `evaluated` was looked up with its locks."""
    resource, tokens = evaluated.resource, evaluated.condition.tokens
    if resource is not None:
        _refuse_barred(resource.view.locks, tokens, request.principal)
    else:
        parent = request.find(request.path[:-1], with_locks=True) if request.path else None
        if parent is None or not parent.is_collection:
            raise ParentNotFoundError(f"{format_path(request.path[:-1])} is no directory")
        _refuse_barred(parent.view.locks, tokens, request.principal)
    if announced is not None and announced > request.provider.usage().free_bytes:
        raise InsufficientStorageError(f"there is no room for {announced} bytes")


def _refuse_barred(locks: tuple[Lock, ...], tokens: tuple[str, ...], principal: str) -> None:
    if locks and not any(lock.token in tokens and lock.principal == principal for lock in locks):
        raise LockedError(f"{locks[0].path} is locked")


def _condition(request: Request, expect: Expect, resource: Resource | None) -> Condition:
    entry = resource.entry if resource is not None else None
    return Condition(
        expect,
        entry.id if entry else EntryId(0),
        entry.revision if entry else Sequence(0),
        submitted_tokens(request.if_lists),
        request.principal,
    )


def _state_of(request: Request, path: Path, resource: Resource | None) -> State:
    if resource is not None:
        return state_of_view(resource.view)
    if not request.if_lists or path == ROOT:
        return State(None)
    # A name that is free lies in the scope of its parent's deep locks (RFC 4918 section 10.4.4).
    parent = request.find(path[:-1], with_locks=True)
    locks = parent.view.locks if parent is not None else ()
    return State(None, tokens=frozenset(lock.token for lock in locks if lock.is_infinite))


def state_of_view(view: EntryView) -> State:
    """What conditions compare an entry by."""
    tokens = frozenset(lock.token for lock in view.locks)
    return State(view.entry.etag, view.entry.modified_at_ms // 1000, tokens)


class _States:
    """States of the resources that an If header names, each looked up once."""

    def __init__(self, request: Request, own: State) -> None:
        self._request = request
        self._known: dict[str | None, State] = {None: own}

    def __call__(self, tag: str | None) -> State:
        if tag not in self._known:
            if len(self._known) > TAGS_MAX:
                raise InvalidRequestError(f"an If header names at most {TAGS_MAX} resources")
            path = parse_local_url(tag or "")
            resource = None if path is None else self._request.find(path, with_locks=True)
            self._known[tag] = State(None) if path is None else _state_of(self._request, path, resource)
        return self._known[tag]


def found(resource: Resource | None, path: Path) -> Resource:
    """The resource, or EntryNotFoundError."""
    if resource is None:
        raise EntryNotFoundError(f"there is no {format_path(path)}")
    return resource
