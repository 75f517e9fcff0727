"""Live properties: what each means and how it is written, and which can be set.

Used by `propfind` and `proppatch`. Everything that is not listed here is a dead property, stored with the entry as the
XML element that the client sent. Writing is by hand: an f-string costs a tenth of an element tree. Pure; what only the
cluster knows comes in through Facts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from helenite.core.errors import InvalidRequestError
from helenite.core.model import Entry, EntryView, Lock, Usage
from helenite.core.paths import parse_path
from webdav.bodies import PropertyUpdate
from webdav.markup import text
from webdav.preconditions import parse_http_date
from webdav.provider import BUNDLE_MEMBERS_MAX, content_type
from webdav.response import http_date
from webdav.urls import format_href

WIN32 = "{urn:schemas-microsoft-com:}"
MODIFIED_MS = "{urn:x-helenite:}modified-ms"
"""The time of modification as milliseconds since 1970, for clients that keep it exactly (the sync agent)."""
SHA256 = "{urn:x-helenite:}sha-256"
"""The SHA-256 of a file's content in lower-case hex, where it is known."""
BUNDLE_MEMBERS = "{urn:x-helenite:}bundle-members"
"""Of collections: they take and give bundles of so many members (`POST ?bundle`)."""
SUPPORTED_LOCKS = "".join(
    f"<D:lockentry><D:lockscope><D:{scope}/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>"
    for scope in ("exclusive", "shared")
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What rendering needs beside the entry."""

    now_ms: int
    usage: Callable[[], Usage]
    resource_id: Callable[[Entry], str]
    sync_token: str = ""


Renderer = Callable[[EntryView, Facts], str | None]
"""The property as an element, or None where it is not defined."""


@lru_cache(maxsize=1024)
def _iso_date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _resourcetype(view: EntryView, _: Facts) -> str:
    if view.entry.is_directory:
        return "<D:resourcetype><D:collection/></D:resourcetype>"
    return "<D:resourcetype/>"


def _getcontentlength(view: EntryView, _: Facts) -> str | None:
    if view.entry.is_directory:
        return None
    return f"<D:getcontentlength>{view.entry.size_bytes}</D:getcontentlength>"


def _getcontenttype(view: EntryView, _: Facts) -> str | None:
    if view.entry.is_directory:
        return None
    return f"<D:getcontenttype>{text(content_type(view.entry.name))}</D:getcontenttype>"


def _getetag(view: EntryView, _: Facts) -> str:
    return f'<D:getetag>"{view.entry.etag}"</D:getetag>'


def _getlastmodified(view: EntryView, _: Facts) -> str:
    return f"<D:getlastmodified>{http_date(view.entry.modified_at_ms // 1000)}</D:getlastmodified>"


def _lastmodified(view: EntryView, _: Facts) -> str:
    return f"<D:lastmodified>{view.entry.modified_at_ms // 1000}</D:lastmodified>"


def _modified_ms(view: EntryView, _: Facts) -> str:
    return f'<modified-ms xmlns="urn:x-helenite:">{view.entry.modified_at_ms}</modified-ms>'


def _sha256(view: EntryView, _: Facts) -> str | None:
    if not view.entry.sha256:
        return None
    return f'<sha-256 xmlns="urn:x-helenite:">{view.entry.sha256.hex()}</sha-256>'


def _bundle_members(view: EntryView, _: Facts) -> str | None:
    if not view.entry.is_directory:
        return None
    return f'<bundle-members xmlns="urn:x-helenite:">{BUNDLE_MEMBERS_MAX}</bundle-members>'


def _creationdate(view: EntryView, _: Facts) -> str:
    return f"<D:creationdate>{_iso_date(view.entry.created_at_ms // 1000)}</D:creationdate>"


def _displayname(view: EntryView, _: Facts) -> str:
    return f"<D:displayname>{text(view.entry.name)}</D:displayname>"


def _supportedlock(_: EntryView, __: Facts) -> str:
    return f"<D:supportedlock>{SUPPORTED_LOCKS}</D:supportedlock>"


def _lockdiscovery(view: EntryView, facts: Facts) -> str:
    inside = "".join(render_lock(lock, facts.now_ms) for lock in view.locks)
    return f"<D:lockdiscovery>{inside}</D:lockdiscovery>"


def _quota_available(view: EntryView, facts: Facts) -> str | None:
    if not view.entry.is_directory:
        return None
    return f"<D:quota-available-bytes>{facts.usage().free_bytes}</D:quota-available-bytes>"


def _quota_used(view: EntryView, facts: Facts) -> str | None:
    if not view.entry.is_directory:
        return None
    return f"<D:quota-used-bytes>{facts.usage().file_bytes}</D:quota-used-bytes>"


def _resource_id(view: EntryView, facts: Facts) -> str:
    return f"<D:resource-id><D:href>{facts.resource_id(view.entry)}</D:href></D:resource-id>"


def _sync_token(view: EntryView, facts: Facts) -> str | None:
    if not view.entry.is_directory:
        return None
    return f"<D:sync-token>{text(facts.sync_token)}</D:sync-token>"


def _supported_report_set(view: EntryView, _: Facts) -> str:
    if not view.entry.is_directory:
        return "<D:supported-report-set/>"
    return (
        "<D:supported-report-set><D:supported-report><D:report><D:sync-collection/></D:report></D:supported-report>"
        "</D:supported-report-set>"
    )


def _win32_modified(view: EntryView, _: Facts) -> str:
    date = http_date(view.entry.modified_at_ms // 1000)
    return f'<Win32LastModifiedTime xmlns="urn:schemas-microsoft-com:">{date}</Win32LastModifiedTime>'


def _win32_created(view: EntryView, _: Facts) -> str:
    date = http_date(view.entry.created_at_ms // 1000)
    return f'<Win32CreationTime xmlns="urn:schemas-microsoft-com:">{date}</Win32CreationTime>'


ALLPROP: dict[str, Renderer] = {
    "{DAV:}resourcetype": _resourcetype,
    "{DAV:}getcontentlength": _getcontentlength,
    "{DAV:}getcontenttype": _getcontenttype,
    "{DAV:}getetag": _getetag,
    "{DAV:}getlastmodified": _getlastmodified,
    "{DAV:}creationdate": _creationdate,
    "{DAV:}displayname": _displayname,
    "{DAV:}supportedlock": _supportedlock,
    "{DAV:}lockdiscovery": _lockdiscovery,
}
"""The properties of RFC 4918 section 15: what `allprop` returns."""
LIVE: dict[str, Renderer] = ALLPROP | {
    "{DAV:}lastmodified": _lastmodified,
    "{DAV:}quota-available-bytes": _quota_available,
    "{DAV:}quota-used-bytes": _quota_used,
    "{DAV:}resource-id": _resource_id,
    "{DAV:}sync-token": _sync_token,
    "{DAV:}supported-report-set": _supported_report_set,
    MODIFIED_MS: _modified_ms,
    SHA256: _sha256,
    BUNDLE_MEMBERS: _bundle_members,
    WIN32 + "Win32LastModifiedTime": _win32_modified,
    WIN32 + "Win32CreationTime": _win32_created,
}
"""Every live property; those beyond ALLPROP are rendered only when they are asked for by name."""
NEEDS_LOCKS = frozenset({"{DAV:}lockdiscovery"})
NEEDS_USAGE = frozenset({"{DAV:}quota-available-bytes", "{DAV:}quota-used-bytes"})
NEEDS_TOKEN = frozenset({"{DAV:}sync-token"})


def render_lock(lock: Lock, now_ms: int) -> str:
    """One `activelock` (RFC 4918 section 14.1)."""
    left_s = max(0, (lock.expires_at_ms - now_ms + 999) // 1000)
    depth = "infinity" if lock.is_infinite else "0"
    root = text(format_href(parse_path(lock.path), is_directory=False))
    return (
        f"<D:activelock><D:locktype><D:write/></D:locktype><D:lockscope><D:{lock.scope}/></D:lockscope>"
        f"<D:depth>{depth}</D:depth>{lock.owner.decode('utf-8', 'replace')}<D:timeout>Second-{left_s}</D:timeout>"
        f"<D:locktoken><D:href>{text(lock.token)}</D:href></D:locktoken>"
        f"<D:lockroot><D:href>{root}</D:href></D:lockroot></D:activelock>"
    )


# Setting


class ProtectedPropertyError(InvalidRequestError):
    """A live property that only the server sets (RFC 4918 section 16: cannot-modify-protected-property)."""

    code = "protected_property"


@dataclass(slots=True)
class Changes:
    """What a PROPPATCH comes to: one mutation."""

    set_values: dict[str, bytes]
    remove: set[str]
    modified_at_ms: int = 0
    created_at_ms: int = 0


def _from_seconds(value: str) -> int:
    if value.isascii() and value.isdigit() and len(value) <= 12:
        return 1000 * int(value)
    raise InvalidRequestError("this property is a time in seconds since 1970")


def _from_ms(value: str) -> int:
    if value.isascii() and value.isdigit() and len(value) <= 15:
        return int(value)
    raise InvalidRequestError("this property is a time in milliseconds since 1970")


def _from_http_date(value: str) -> int:
    seconds = parse_http_date(value)
    if seconds is None or seconds < 0:
        raise InvalidRequestError("this property is a date as HTTP writes it")
    return 1000 * seconds


SETTABLE_TIMES: dict[str, tuple[str, Callable[[str], int]]] = {
    "{DAV:}getlastmodified": ("modified_at_ms", _from_http_date),
    "{DAV:}lastmodified": ("modified_at_ms", _from_seconds),
    MODIFIED_MS: ("modified_at_ms", _from_ms),
    WIN32 + "Win32LastModifiedTime": ("modified_at_ms", _from_http_date),
    WIN32 + "Win32CreationTime": ("created_at_ms", _from_http_date),
}
"""Live properties that clients may set: they are the entry's times, and setting them does not change its ETag."""


def apply_update(changes: Changes, update: PropertyUpdate) -> None:
    """Add one step; ProtectedPropertyError or InvalidRequestError when it cannot be."""
    if update.name in SETTABLE_TIMES and update.element is not None:
        field, parse = SETTABLE_TIMES[update.name]
        setattr(changes, field, max(1, parse(update.value)))
    elif update.name in LIVE:
        raise ProtectedPropertyError("only the server sets this property")
    elif update.element is None:
        changes.set_values.pop(update.name, None)
        changes.remove.add(update.name)
    else:
        changes.remove.discard(update.name)
        changes.set_values[update.name] = update.element
