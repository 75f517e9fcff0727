"""What became of one file or of many, as a multi-status: for answers that begin before everything is known.

Used by `intake` (bundles) and `patching` (results that take long to verify). The status of each is the one that a PUT
of it would have got. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from helenite.core.errors import HeleniteError, InvalidRequestError
from helenite.core.model import Entry
from webdav.errors import condition_of, status_of
from webdav.markup import DECLARATION, text
from webdav.provider import Provider
from webdav.response import http_date, status_line

NOT_YET = b"\n"
"""Between the elements of a multi-status it means nothing, and the client hears that it is being worked for."""


@dataclass(slots=True)
class Outcome:
    """What became of one file: an entry, or why not."""

    href: str
    entry: Entry | None = None
    is_new: bool = False
    error: HeleniteError | None = None


def write_outcomes(provider: Provider, outcomes: Iterable[Outcome | None]) -> Iterator[bytes]:
    """A multi-status; None is NOT_YET."""
    yield f'{DECLARATION}<D:multistatus xmlns:D="DAV:">'.encode()
    for outcome in outcomes:
        yield NOT_YET if outcome is None else _write_outcome(provider, outcome).encode()
    yield b"</D:multistatus>"


def _write_outcome(provider: Provider, outcome: Outcome) -> str:
    entry = outcome.entry
    if entry is None:
        inside = _write_error(outcome.error or InvalidRequestError("it was not stored"))
    else:
        status = status_line(201 if outcome.is_new else 200)
        inside = (
            f'<D:propstat><D:prop><D:getetag>"{entry.etag}"</D:getetag>'
            f"<D:resource-id><D:href>{provider.resource_id(entry)}</D:href></D:resource-id>"
            f"<D:getlastmodified>{http_date(entry.modified_at_ms // 1000)}</D:getlastmodified></D:prop>"
            f"<D:status>HTTP/1.1 {status}</D:status></D:propstat>"
        )
    return f"<D:response><D:href>{text(outcome.href)}</D:href>{inside}</D:response>\n"


def _write_error(error: HeleniteError) -> str:
    condition = condition_of(error, "PUT")
    named = f"<D:error><D:{condition}/></D:error>" if condition else ""
    return (
        f"<D:status>HTTP/1.1 {status_line(status_of(error, 'PUT'))}</D:status>{named}"
        f"<D:responsedescription>{text(str(error))}</D:responsedescription>"
    )
