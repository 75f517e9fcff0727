"""REPORT sync-collection (RFC 6578): what became different beneath a collection since the client asked last.

Used by `requests`. Changes come from the feed, `collapse` puts them together, and what is there now is looked up and
written out as PROPFIND would. An empty token lists everything, under a token that was taken before. With
`Prefer: wait=N` an answer without changes is held back (`waiting`). Reports without a limit are streamed; those with
one are truncated where the next report goes on. Threading: one request, one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import cast

from helenite.client.coherence import Observed
from helenite.core.model import Change, EntryView, Kind, Sequence
from helenite.core.paths import Path, parse_path
from webdav.bodies import XML_BYTES_MAX, Mode, PropfindQuery, SyncQuery, parse_report
from webdav.collapse import Fate, Place, Stretch, collapse, is_relevant
from webdav.conditions import evaluate_if_header, found
from webdav.errors import refusal
from webdav.finding import find_many, walk, walk_in_order
from webdav.markup import DECLARATION, text
from webdav.propfind import compile_query, facts_of, wanted_of_cluster, wants_brief
from webdav.request import Request
from webdav.response import XML_TYPE, Headers, Response, generated
from webdav.tokens import Token, Walk, format_token, parse_token
from webdav.urls import format_href
from webdav.waiting import parse_wait

CHANGES_MAX = 10_000
"""Changes that one report puts together; with more of them it is truncated."""
RESULTS_MAX = 10_000
"""Results of a report with a limit: they are collected before they are sent."""
FEED_PAGE = 2_000
"""Changes asked of a master at once."""
PIECE_RESULTS = 100
"""Results written together."""
IS_GONE_KEY = "helenite.is_gone"
"""In the environ: waits for some seconds, or until the client has hung up or the server stops, and tells which."""

GONE = "<D:status>HTTP/1.1 404 Not Found</D:status>"
TRUNCATED = (
    "<D:status>HTTP/1.1 507 Insufficient Storage</D:status><D:error><D:number-of-matches-within-limits/></D:error>"
)
"""Of the collection itself, when there is more to tell (RFC 6578 section 3.6)."""

Result = tuple[Path, EntryView | Place]
"""Where, and what is there, or what was there and is gone."""


def report(request: Request) -> Response:
    """The one report there is (RFC 3253 section 3.6, RFC 6578 section 3)."""
    query = parse_report(request.body.read_all(XML_BYTES_MAX))
    is_deep = _is_deep(request, query)
    resource = request.find(with_locks=bool(request.if_lists))
    evaluate_if_header(request, resource)
    resource = found(resource, request.path)
    if not resource.is_collection:
        raise refusal(403, "only collections can tell what changed", condition="supported-report")
    syncing = _Syncing(request, query, is_deep=is_deep)
    if not query.token:
        return syncing.list_everything()
    token = parse_token(query.token, request.provider.cluster_id)
    if token.walk is not None:
        return syncing.go_on_walking(token, token.walk)
    return syncing.tell_changes(token)


def _is_deep(request: Request, query: SyncQuery) -> bool:
    """The level; clients of old drafts say it with `Depth` (RFC 6578 appendix A)."""
    depth = request.depth("0")
    if query.is_deep is None:
        return depth == "infinity"
    if depth != "0":
        raise refusal(400, "sync-collection is asked for with Depth 0 (RFC 6578 section 3.2)")
    return query.is_deep


@dataclass(slots=True)
class _News:
    """Relevant changes after a token, up to `position`; `is_whole` when that is all there are."""

    changes: list[Change]
    position: Sequence
    is_whole: bool = True


class _Syncing:
    """One report."""

    def __init__(self, request: Request, query: SyncQuery, *, is_deep: bool) -> None:
        self._request = request
        self._fs = request.file_system
        self._home = request.path
        self._is_deep = is_deep
        self._limit = None if query.limit is None else min(query.limit, RESULTS_MAX)
        self._headers: Headers = []
        properties = PropfindQuery(Mode.NAMED, query.names)
        self._wanted = wanted_of_cluster(properties)
        self._render = compile_query(properties, facts_of(request, properties), is_brief=wants_brief(request))

    # The three kinds of reports

    def list_everything(self) -> Response:
        """The first report: all members, under a token from before they were listed."""
        token = self._request.provider.present_token()
        if self._limit is not None:
            return self._walk_some(token, Walk((), 0), self._limit, [])
        return self._answer(walk(self._fs, self._home, is_deep=self._is_deep, **self._wanted), token)

    def go_on_walking(self, token: Token, place: Walk) -> Response:
        """A tree that the last report did not get to the end of."""
        self._fs.read_feed(token.sequence, limit=1)  # too old a token is refused now, not at the end of the tree
        return self._walk_some(token, place, self._limit or RESULTS_MAX, [])

    def tell_changes(self, token: Token) -> Response:
        """What changed, perhaps after waiting for it."""
        wait_s = parse_wait(self._request.header("Prefer"))
        observed = self._fs.coherence.observe(self._home)
        news = self._read_news(token)
        room = self._request.provider.waiting
        if wait_s and room.is_fresh():
            is_applied = True
            if not news.changes:
                news, is_applied = self._wait(news, observed, time.monotonic() + wait_s)
            if is_applied:
                self._headers.append(("Preference-Applied", f"wait={wait_s}"))
        if not news.changes:
            return self._answer((), Token(news.position))
        return self._tell(token, news)

    # Changes

    def _read_news(self, token: Token) -> _News:
        """What the feed says of this collection."""
        position = Sequence(token.sequence - 1) if token.is_half else token.sequence
        relevant: list[Change] = []
        is_whole = False
        while not is_whole and len(relevant) < CHANGES_MAX:
            page, last = self._fs.read_feed(position, limit=FEED_PAGE)
            relevant += [change for change in page if is_relevant(change, self._home)]
            position = page[-1].sequence if page else last
            is_whole = position >= last
        # What is looked up now, and what the client asks for next, may not be older than what it is told.
        for path in {path for change in relevant for path in (change.path, change.source) if path}:
            self._fs.coherence.touch(parse_path(path))
        return _News(relevant, position, is_whole)

    def _wait(self, news: _News, observed: Observed, deadline: float) -> tuple[_News, bool]:
        """Wait for a change; also whether that was possible."""
        room = self._request.provider.waiting
        is_gone = cast("Callable[[float], bool]", self._request.environ[IS_GONE_KEY])
        with room.place() as has_place:
            while has_place and not news.changes and room.wait(observed, deadline, is_gone):
                observed = self._fs.coherence.observe(self._home)
                news = self._read_news(Token(news.position))
            return news, has_place and room.is_fresh()

    def _tell(self, token: Token, news: _News) -> Response:
        limit = self._limit
        stretch = self._collapse(token, news, limit or CHANGES_MAX)
        results: Iterable[Result] = self._look(stretch)
        if limit is not None:
            results = list(islice(results, limit + 1))
            if len(results) > limit:
                return self._tell_cautiously(self._collapse(token, news, limit, is_cautious=True), limit)
        is_truncated = stretch.is_cut or not news.is_whole
        return self._answer(results, stretch.end if is_truncated else Token(news.position), is_truncated=is_truncated)

    def _collapse(self, token: Token, news: _News, places_max: int, *, is_cautious: bool = False) -> Stretch:
        return collapse(
            news.changes, self._home, token, is_deep=self._is_deep, places_max=places_max, is_cautious=is_cautious
        )

    def _tell_cautiously(self, stretch: Stretch, limit: int) -> Response:
        """A stretch in which at most one directory has arrived, at its end: it may have more in it than may be told."""
        results = list(self._look(stretch, with_trees=False))
        if len(results) > limit:
            raise refusal(507, f"it takes {len(results)} results", condition="number-of-matches-within-limits")
        for path, what in results:
            is_tree = isinstance(what, EntryView) and what.entry.is_directory
            if is_tree and stretch.places[path].fate is Fate.ARRIVED:
                tree = Walk(path[len(self._home) :], len(path) - len(self._home))
                return self._walk_some(stretch.end, tree, limit - len(results), results)
        return self._answer(results, stretch.end, is_truncated=True)

    # What is there now

    def _look(self, stretch: Stretch, *, with_trees: bool = True) -> Iterator[Result]:
        """The results: what is gone, and what is there now, of what has arrived with everything beneath.

        What is gone is told so even if something has come there since: the next report tells of that.
        """
        places = stretch.tell()
        asked = [path for path, place in places.items() if place.fate is not Fate.GONE]
        views = find_many(self._fs, asked, **self._wanted)
        for path, place in places.items():
            view = views.get(path)
            yield path, view or place
            if with_trees and place.fate is Fate.ARRIVED and view is not None and view.entry.is_directory:
                yield from walk(self._fs, path, is_deep=True, **self._wanted)

    def _walk_some(self, token: Token, place: Walk, room: int, before: list[Result]) -> Response:
        """As much of a tree as there is room for, after what comes `before` it."""
        root, after = (*self._home, *place.root), (*self._home, *place.after)
        more = walk_in_order(self._fs, root, after, room + 1, is_deep=self._is_deep, **self._wanted)
        if len(more) <= room:
            is_all = not place.after  # everything at once; else changes may follow, which the next report tells
            return self._answer([*before, *more], Token(token.sequence), is_truncated=not is_all)
        last = more[room - 1][0] if room else after
        token = Token(token.sequence, walk=Walk(last[len(self._home) :], place.depth))
        return self._answer([*before, *more[:room]], token, is_truncated=True)

    # The answer

    def _answer(self, results: Iterable[Result], token: Token, *, is_truncated: bool = False) -> Response:
        pieces = self._write(iter(results), token, is_truncated=is_truncated)
        return generated(207, pieces, XML_TYPE, self._headers)

    def _write(self, results: Iterator[Result], token: Token, *, is_truncated: bool) -> Iterator[bytes]:
        yield f'{DECLARATION}<D:multistatus xmlns:D="DAV:">'.encode()
        while piece := list(islice(results, PIECE_RESULTS)):
            yield "".join(self._write_result(path, what) for path, what in piece).encode()
        if is_truncated:
            here = text(format_href(self._home, is_directory=True))
            yield f"<D:response><D:href>{here}</D:href>{TRUNCATED}</D:response>".encode()
        uri = text(format_token(token, self._request.provider.cluster_id))
        yield f"<D:sync-token>{uri}</D:sync-token></D:multistatus>".encode()

    def _write_result(self, path: Path, what: EntryView | Place) -> str:
        if isinstance(what, EntryView):
            is_directory, inside = what.entry.is_directory, self._render(what)
        else:
            is_directory, inside = what.kind is Kind.DIRECTORY, GONE
        href = text(format_href(path, is_directory=is_directory))
        return f"<D:response><D:href>{href}</D:href>{inside}</D:response>\n"
