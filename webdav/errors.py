"""The gateway's border for errors: from `core.errors` to DAV statuses, with the XML that RFC 4918 section 16 wants.

Used by `requests`, which turns everything that a handler raises into an answer here. What only HTTP knows (405, 416, a
missing header) is raised as WsgiDAV's DAVError; everything else is a HeleniteError. Sentences of errors are for people
and hold no traces. Pure.
"""

from __future__ import annotations

from wsgidav.dav_error import DAVError

from helenite.core import errors
from helenite.core.errors import HeleniteError
from webdav.bodies import UnknownReportError
from webdav.body import BodyTooLargeError
from webdav.markup import DECLARATION, text
from webdav.response import XML_TYPE, Headers, Response, whole
from webdav.urls import ForeignHostError

RETRY_AFTER_S = {503: 2, 507: 30}
"""What is suggested: an election or a restart takes about 2 s; making room, or bringing servers back, takes longer."""

STATUS: dict[type[HeleniteError], int] = {
    errors.InvalidRequestError: 400,
    errors.EntryNotFoundError: 404,
    errors.EntryExistsError: 405,
    errors.ParentNotFoundError: 409,
    errors.WrongKindError: 409,
    errors.CycleError: 403,
    errors.PreconditionFailedError: 412,
    errors.LockedError: 423,
    errors.LockNotFoundError: 409,
    errors.PermissionDeniedError: 403,
    errors.QuotaExceededError: 507,
    errors.InsufficientStorageError: 507,
    errors.UnavailableError: 503,
    errors.StaleEpochError: 503,
    errors.SequenceExpiredError: 403,
    errors.UploadExpiredError: 408,
    errors.ContentLostError: 500,
    errors.ChunkNotFoundError: 500,
    errors.ChunkExistsError: 500,
    errors.ChunkCorruptError: 500,
    errors.BadCapabilityError: 500,
    errors.ForeignClusterError: 500,
    errors.ProtocolError: 500,
    errors.ConfigurationError: 500,
    HeleniteError: 500,
    BodyTooLargeError: 413,
    ForeignHostError: 502,
    UnknownReportError: 403,
}
"""An error's status is that of its nearest listed base class."""

BY_METHOD: dict[tuple[str, type[HeleniteError]], int] = {
    ("PUT", errors.WrongKindError): 405,
    ("PATCH", errors.WrongKindError): 405,
    ("LOCK", errors.LockNotFoundError): 412,
}
"""Where the method gives an error another meaning (RFC 4918 sections 9.7.2 and 9.10.2)."""

CONDITIONS: dict[tuple[str, type[HeleniteError]], str] = {
    ("LOCK", errors.LockedError): "no-conflicting-lock",
    ("*", errors.LockedError): "lock-token-submitted",
    ("*", errors.LockNotFoundError): "lock-token-matches-request-uri",
    ("*", errors.SequenceExpiredError): "valid-sync-token",
    ("*", UnknownReportError): "supported-report",
    ("*", errors.QuotaExceededError): "quota-not-exceeded",
    ("*", errors.InsufficientStorageError): "sufficient-disk-space",
}
"""Precondition elements (RFC 4918 section 16, RFC 4331 section 6, RFC 6578 section 3.2, RFC 3253 section 3.6)."""
ALLOWED = "OPTIONS, GET, HEAD, PROPFIND, PROPPATCH, PUT, PATCH, DELETE, COPY, MOVE, LOCK, UNLOCK, REPORT, POST"
"""What 405 offers instead; OPTIONS tells it for each kind of resource."""
HISTORY_LOST = '<H:history-lost xmlns:H="urn:x-helenite:"/>'
"""In `valid-sync-token`: what this client knows is newer than what is here, so what is missing here was not deleted."""
WITH_HREF = frozenset({"no-conflicting-lock", "lock-token-submitted"})


def status_of(error: HeleniteError, method: str) -> int:
    """The HTTP status of an error that `method` ran into."""
    for cls in type(error).__mro__:
        if (method, cls) in BY_METHOD:
            return BY_METHOD[method, cls]
        if cls in STATUS:
            return STATUS[cls]
    raise AssertionError(f"{type(error).__name__} is no HeleniteError")


def refusal(status: int, sentence: str, *, condition: str | None = None, headers: Headers | None = None) -> DAVError:
    """What only HTTP knows, to be raised: `condition` is the name of a precondition element in `DAV:`."""
    named = None if condition is None else f"{{DAV:}}{condition}"
    return DAVError(status, sentence, err_condition=named, add_headers=headers)


def answer(error: HeleniteError | DAVError, method: str, href: str) -> Response:
    """The response for an error; `href` is the link of the request's target, in the XML of lock errors."""
    if isinstance(error, DAVError):
        condition = error.err_condition.condition_code.removeprefix("{DAV:}") if error.err_condition else None
        return _page(error.value, error.context_info or "", condition, href, list(error.add_headers or []))
    status = status_of(error, method)
    headers: Headers = [("Retry-After", str(RETRY_AFTER_S[status]))] if status in RETRY_AFTER_S else []
    inside = HISTORY_LOST if isinstance(error, errors.HistoryLostError) else ""
    return _page(status, str(error), condition_of(error, method), href, headers, inside)


def condition_of(error: HeleniteError, method: str) -> str | None:
    """The precondition element of an error, if it has one."""
    for cls in type(error).__mro__:
        for key in ((method, cls), ("*", cls)):
            if key in CONDITIONS:
                return CONDITIONS[key]
    return None


def _page(status: int, sentence: str, condition: str | None, href: str, headers: Headers, inside: str = "") -> Response:
    if status == 405:
        headers = [("Allow", ALLOWED), *headers]
    if condition is None:
        return whole(status, f"{sentence}\n".encode("utf-8", "replace"), "text/plain; charset=utf-8", headers)
    inside = f"<D:href>{text(href)}</D:href>" if condition in WITH_HREF else inside
    body = (
        f'{DECLARATION}<D:error xmlns:D="DAV:"><D:{condition}>{inside}</D:{condition}>'
        f"<D:responsedescription>{text(sentence)}</D:responsedescription></D:error>"
    )
    return whole(status, body.encode(), XML_TYPE, headers)
