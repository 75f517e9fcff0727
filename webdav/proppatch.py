"""PROPPATCH: all properties of a request in one mutation, or none.

Used by `requests`.
"""

from __future__ import annotations

from helenite.core.errors import HeleniteError, InvalidRequestError, LockedError
from helenite.core.model import Condition, Entry
from webdav.bodies import XML_BYTES_MAX, PropertyUpdate, parse_proppatch
from webdav.conditions import evaluate_if_any, found
from webdav.markup import DECLARATION, empty_element, text
from webdav.properties import WIN32, Changes, ProtectedPropertyError, apply_update
from webdav.request import Request
from webdav.response import XML_TYPE, Response, status_line, whole
from webdav.urls import format_href

Refused = dict[str, HeleniteError]


def proppatch(request: Request) -> Response:
    """Set and remove properties (RFC 4918 section 9.2)."""
    if request.depth("0") == "1":
        raise InvalidRequestError("PROPPATCH changes one resource: Depth is 0")
    updates = parse_proppatch(request.body.read_all(XML_BYTES_MAX))
    condition = evaluate_if_any(request)
    changes, refused = _collect(updates)
    if refused:
        entry = found(request.find(), request.path).entry
    else:
        entry = _apply(request, changes, condition, is_win32_only=all(u.name.startswith(WIN32) for u in updates))
    return _report(request, entry, updates, refused)


def _collect(updates: tuple[PropertyUpdate, ...]) -> tuple[Changes, Refused]:
    changes, refused = Changes({}, set()), Refused()
    for update in updates:
        try:
            apply_update(changes, update)
        except InvalidRequestError as error:
            refused[update.name] = error
    return changes, refused


def _apply(request: Request, changes: Changes, condition: Condition, *, is_win32_only: bool) -> Entry:
    """One mutation. Windows sets its properties under its lock without naming it; the lock's owner may."""
    try:
        return _set(request, changes, condition)
    except LockedError:
        if not is_win32_only:
            raise
    locks = found(request.find(with_locks=True), request.path).view.locks
    own = tuple(lock.token for lock in locks if lock.principal == request.principal)
    return _set(request, changes, Condition(condition.expect, condition.id, condition.revision, own, request.principal))


def _set(request: Request, changes: Changes, condition: Condition) -> Entry:
    return request.file_system.set_properties(
        request.path,
        set_values=changes.set_values,
        remove=tuple(changes.remove),
        modified_at_ms=changes.modified_at_ms,
        created_at_ms=changes.created_at_ms,
        condition=condition,
    )


def _report(request: Request, entry: Entry, updates: tuple[PropertyUpdate, ...], refused: Refused) -> Response:
    """207 with one status for all, or the refused ones and 424 for those that would have been possible."""
    names = tuple(dict.fromkeys(update.name for update in updates))
    href = text(format_href(request.path, is_directory=entry.is_directory))
    propstats = [_propstat([name], error) for name, error in refused.items()]
    others = [name for name in names if name not in refused]
    if others:
        propstats.append(_propstat(others, None, is_dependent=bool(refused)))
    body = (
        f'{DECLARATION}<D:multistatus xmlns:D="DAV:"><D:response><D:href>{href}</D:href>'
        f"{''.join(propstats)}</D:response></D:multistatus>"
    )
    return whole(207, body.encode(), XML_TYPE)


def _propstat(names: list[str], error: HeleniteError | None, *, is_dependent: bool = False) -> str:
    condition = said = ""
    status = 424 if is_dependent else 200
    if error is not None:
        status = 403 if isinstance(error, ProtectedPropertyError) else 409
        said = f"<D:responsedescription>{text(str(error))}</D:responsedescription>"
        if status == 403:
            condition = "<D:error><D:cannot-modify-protected-property/></D:error>"
    inside = "".join(map(empty_element, names))
    return (
        f"<D:propstat><D:prop>{inside}</D:prop><D:status>HTTP/1.1 {status_line(status)}</D:status>"
        f"{condition}{said}</D:propstat>"
    )
