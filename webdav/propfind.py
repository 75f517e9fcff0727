"""PROPFIND: one listing of the cluster, written out entry by entry while its pages arrive.

Used by `requests`. The request is compiled once into a list of renderers; properties and locks are asked of the cluster
only when the request needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from helenite.client.coherence import Observed
from helenite.core.errors import WrongKindError
from helenite.core.model import EntryView
from webdav.bodies import XML_BYTES_MAX, Mode, PropfindQuery, parse_propfind
from webdav.conditions import evaluate_if_header, found
from webdav.errors import refusal
from webdav.markup import DECLARATION, empty_element, text
from webdav.properties import ALLPROP, LIVE, NEEDS_LOCKS, NEEDS_TOKEN, NEEDS_USAGE, Facts, Renderer
from webdav.provider import Directory
from webdav.request import Request
from webdav.response import XML_TYPE, Response, generated, whole
from webdav.rights import Verb
from webdav.urls import format_href, quote_name

PIECE_ENTRIES = 100
"""Entries written together: large enough for one send, small enough that the first arrives early."""

NEVER_KEPT = NEEDS_USAGE | NEEDS_TOKEN
"""Properties that change without a change of what they are asked of."""

Propstats = Callable[[EntryView], str]


def propfind(request: Request) -> Response:
    """Properties of the target, and with Depth 1 of its members (RFC 4918 section 9.1)."""
    depth = request.depth("infinity")
    if depth == "infinity":
        raise refusal(
            403, "listing a whole tree at once is not offered; use Depth 0 or 1", condition="propfind-finite-depth"
        )
    query = parse_propfind(request.body.read_all(XML_BYTES_MAX))
    wanted = wanted_of_cluster(query)
    is_brief = wants_brief(request)
    renderings = request.provider.renderings
    key = (request.path, depth, query, is_brief)
    may_keep = not wanted["with_locks"] and not request.if_lists and NEVER_KEPT.isdisjoint(query.names)
    if may_keep:
        request.demand_right(Verb.READ)
        if (kept := renderings.find(key)) is not None:
            return whole(207, kept, XML_TYPE)
    observed = request.file_system.coherence.observe(request.path)
    facts = facts_of(request, query)
    view, members = _fetch(request, wanted, observed, with_members=depth == "1")
    render = compile_query(query, facts, is_brief=is_brief)
    pieces = _write(request, view, members, render)
    return generated(207, renderings.keep(key, observed, pieces) if may_keep else pieces, XML_TYPE)


def wants_brief(request: Request) -> bool:
    """Whether properties that are missing need not be told (RFC 8144 section 2.1, and Microsoft's way to say it)."""
    return (request.header("Brief") or "").lower() == "t" or "return=minimal" in (request.header("Prefer") or "")


def wanted_of_cluster(query: PropfindQuery) -> dict[str, bool]:
    """What look-ups and listings must bring along for a query."""
    has_dead = query.mode is not Mode.NAMED or any(name not in LIVE for name in query.names)
    has_locks = query.mode is Mode.ALL or not NEEDS_LOCKS.isdisjoint(query.names)
    return {"with_properties": has_dead, "with_locks": has_locks}


def _fetch(
    request: Request, wanted: dict[str, bool], observed: Observed, *, with_members: bool
) -> tuple[EntryView, Iterator[EntryView] | None]:
    """The target and, of a directory, its members: one round trip for a directory, two for a file with Depth 1."""
    if with_members and not request.if_lists:
        request.demand_right(Verb.READ)
        try:
            return _list(request, wanted, observed)
        except WrongKindError:
            pass  # a file has no members; Depth 1 means the file alone
    resource = request.find(
        with_properties=wanted["with_properties"], with_locks=wanted["with_locks"] or bool(request.if_lists)
    )
    evaluate_if_header(request, resource)
    resource = found(resource, request.path)
    if with_members and isinstance(resource, Directory):
        return _list(request, wanted, observed)
    return resource.view, None


def _list(request: Request, wanted: dict[str, bool], observed: Observed) -> tuple[EntryView, Iterator[EntryView]]:
    view, members = request.file_system.list(request.path, **wanted)
    if request.is_from_finder:
        members = request.provider.probes.observe(request.path, members, observed)
    return view, members


def facts_of(request: Request, query: PropfindQuery) -> Facts:
    """What rendering needs beside entries, to be taken before these are fetched: a sync token may not be newer."""
    provider = request.provider
    token = "" if NEEDS_TOKEN.isdisjoint(query.names) else provider.sync_token()
    return Facts(provider.clock.now_ms(), provider.usage, provider.resource_id, token)


def _write(
    request: Request, view: EntryView, members: Iterator[EntryView] | None, render: Propstats
) -> Iterator[bytes]:
    here = format_href(request.path, is_directory=view.entry.is_directory)
    yield f'{DECLARATION}<D:multistatus xmlns:D="DAV:">{_response(here, render(view))}'.encode()
    piece: list[str] = []
    for member in members or ():
        slash = "/" if member.entry.is_directory else ""
        piece.append(_response(f"{here}{quote_name(member.entry.name)}{slash}", render(member)))
        if len(piece) == PIECE_ENTRIES:
            yield "".join(piece).encode()
            piece.clear()
    piece.append("</D:multistatus>")
    yield "".join(piece).encode()


def _response(href: str, propstats: str) -> str:
    return f"<D:response><D:href>{text(href)}</D:href>{propstats}</D:response>\n"


# Compiling a query


def compile_query(query: PropfindQuery, facts: Facts, *, is_brief: bool) -> Propstats:
    """A function that writes the `propstat` elements of an entry."""
    match query.mode:
        case Mode.NAMED:
            return _compile_named(query.names, facts, is_brief=is_brief)
        case Mode.ALL:
            return _compile_all(query.names, facts)
        case Mode.NAMES:
            return lambda view: _found(_names_of(view, facts))


def _compile_named(names: tuple[str, ...], facts: Facts, *, is_brief: bool) -> Propstats:
    live: list[tuple[str, Renderer]] = [(name, LIVE[name]) for name in names if name in LIVE]
    dead = [name for name in names if name not in LIVE]

    def render(view: EntryView) -> str:
        present: list[str] = []
        missing: list[str] = []
        for name, renderer in live:
            element = renderer(view, facts)
            if element is None:
                missing.append(name)
            else:
                present.append(element)
        for name in dead:
            stored = view.properties.get(name)
            if stored is None:
                missing.append(name)
            else:
                present.append(stored.decode())
        return _propstats(present, [] if is_brief and present else missing)

    return render


def _compile_all(include: tuple[str, ...], facts: Facts) -> Propstats:
    renderers = dict(ALLPROP) | {name: LIVE[name] for name in include if name in LIVE}
    missing_candidates = [name for name in include if name not in LIVE]

    def render(view: EntryView) -> str:
        elements = (renderer(view, facts) for renderer in renderers.values())
        present = [element for element in elements if element is not None]
        present += [stored.decode() for stored in view.properties.values()]
        return _propstats(present, [name for name in missing_candidates if name not in view.properties])

    return render


def _names_of(view: EntryView, facts: Facts) -> list[str]:
    live = [name for name, renderer in ALLPROP.items() if renderer(view, facts) is not None]
    return [empty_element(name) for name in (*live, *view.properties)]


def _propstats(present: list[str], missing: list[str]) -> str:
    if not missing:
        return _found(present)
    absent = "".join(map(empty_element, missing))
    not_found = f"<D:propstat><D:prop>{absent}</D:prop><D:status>HTTP/1.1 404 Not Found</D:status></D:propstat>"
    return (_found(present) if present else "") + not_found


def _found(elements: list[str]) -> str:
    return f"<D:propstat><D:prop>{''.join(elements)}</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>"
