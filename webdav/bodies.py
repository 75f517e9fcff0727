"""XML bodies of requests as values: PROPFIND, PROPPATCH, LOCK, REPORT.

Used by `propfind`, `proppatch`, `locking` and `syncing`. Document types are refused whole, so neither entity bombs nor
external entities exist; sizes and counts are bounded. Unknown elements are ignored (RFC 4918 section 17). Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from lxml import etree

from helenite.core.errors import InvalidRequestError
from helenite.core.model import LockScope

XML_BYTES_MAX = 1024 * 1024
"""Longest XML body: a thousand properties of a kilobyte."""
PROPERTIES_MAX = 1000
"""Properties in one request; the largest clients name 40."""
LANG = "{http://www.w3.org/XML/1998/namespace}lang"


class Mode(Enum):
    """The three kinds of PROPFIND (RFC 4918 section 9.1)."""

    NAMED = auto()
    ALL = auto()
    NAMES = auto()


@dataclass(frozen=True, slots=True)
class PropfindQuery:
    """What a PROPFIND asks for; `names` are those of `prop`, or of `include` beside `allprop`."""

    mode: Mode
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PropertyUpdate:
    """One step of a PROPPATCH: `element` is the serialised property to store, None to remove it."""

    name: str
    element: bytes | None
    value: str


@dataclass(frozen=True, slots=True)
class LockQuery:
    """A LOCK that asks for a new lock. `owner` is the client's `owner` element, serialised."""

    scope: LockScope
    owner: bytes


@dataclass(frozen=True, slots=True)
class SyncQuery:
    """A REPORT sync-collection (RFC 6578 section 6.1); `token` is empty at first, `is_deep` None if it does not say."""

    token: str
    is_deep: bool | None
    limit: int | None
    names: tuple[str, ...]


class UnknownReportError(InvalidRequestError):
    """A report that is not offered (RFC 3253 section 3.6: supported-report)."""

    code = "unknown_report"


def _parse(body: bytes, root: str) -> etree._Element:
    parsed = _parse_any(body)
    if parsed.tag != f"{{DAV:}}{root}":
        raise InvalidRequestError(f"the body is no DAV:{root} element")
    return parsed


def _parse_any(body: bytes) -> etree._Element:
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True
    )
    try:
        parsed = etree.fromstring(body, parser)
    except (etree.XMLSyntaxError, ValueError):
        raise InvalidRequestError("the body is no well-formed XML") from None
    if parsed.getroottree().docinfo.internalDTD is not None:
        raise InvalidRequestError("document types are not accepted")
    return parsed


def _children(element: etree._Element) -> Iterator[etree._Element]:
    return element.iterchildren("*")


def _names(element: etree._Element) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(str(child.tag) for child in _children(element)))
    if len(names) > PROPERTIES_MAX:
        raise InvalidRequestError(f"a request names at most {PROPERTIES_MAX} properties")
    return names


def parse_propfind(body: bytes) -> PropfindQuery:
    """An empty body asks for all properties."""
    if not body:
        return PropfindQuery(Mode.ALL)
    parts = {str(child.tag): child for child in _children(_parse(body, "propfind"))}
    kinds = [kind for kind in ("{DAV:}prop", "{DAV:}allprop", "{DAV:}propname") if kind in parts]
    if len(kinds) != 1:
        raise InvalidRequestError("a PROPFIND asks for one of prop, allprop and propname")
    match kinds[0]:
        case "{DAV:}prop":
            return PropfindQuery(Mode.NAMED, _names(parts["{DAV:}prop"]))
        case "{DAV:}allprop":
            include = parts.get("{DAV:}include")
            return PropfindQuery(Mode.ALL, () if include is None else _names(include))
        case _:
            return PropfindQuery(Mode.NAMES)


def parse_proppatch(body: bytes) -> tuple[PropertyUpdate, ...]:
    """The steps in document order (RFC 4918 section 9.2)."""
    updates: list[PropertyUpdate] = []
    for action in _children(_parse(body, "propertyupdate")):
        if action.tag not in {"{DAV:}set", "{DAV:}remove"}:
            continue
        for prop in _children(action):
            if prop.tag == "{DAV:}prop":
                updates += [_update(element, is_set=action.tag == "{DAV:}set") for element in _children(prop)]
    if not updates:
        raise InvalidRequestError("a PROPPATCH names at least one property")
    if len(updates) > PROPERTIES_MAX:
        raise InvalidRequestError(f"a request names at most {PROPERTIES_MAX} properties")
    return tuple(updates)


def _update(element: etree._Element, *, is_set: bool) -> PropertyUpdate:
    if not is_set:
        return PropertyUpdate(str(element.tag), None, "")
    return PropertyUpdate(str(element.tag), _serialise(element), (element.text or "").strip())


def _serialise(element: etree._Element) -> bytes:
    """The element on its own: with the namespaces and the language that were in scope (RFC 4918 section 4.3)."""
    if LANG not in element.attrib:
        for ancestor in element.iterancestors():
            if LANG in ancestor.attrib:
                element.set(LANG, ancestor.attrib[LANG])
                break
    return etree.tostring(element, encoding="utf-8", with_tail=False).removeprefix(
        b"<?xml version='1.0' encoding='utf-8'?>\n"
    )


def parse_lockinfo(body: bytes) -> LockQuery:
    """What a LOCK with a body asks for (RFC 4918 section 14.11)."""
    parts = {str(child.tag): child for child in _children(_parse(body, "lockinfo"))}
    scopes = [str(child.tag) for child in _children(parts["{DAV:}lockscope"])] if "{DAV:}lockscope" in parts else []
    kinds = [str(child.tag) for child in _children(parts["{DAV:}locktype"])] if "{DAV:}locktype" in parts else []
    if kinds != ["{DAV:}write"]:
        raise InvalidRequestError("the one lock type is write")
    owner = parts.get("{DAV:}owner")
    text = b"" if owner is None else _serialise(owner)
    match scopes:
        case ["{DAV:}exclusive"]:
            return LockQuery(LockScope.EXCLUSIVE, text)
        case ["{DAV:}shared"]:
            return LockQuery(LockScope.SHARED, text)
        case _:
            raise InvalidRequestError("a lock is exclusive or shared")


LEVELS = {"1": False, "infinite": True, "infinity": True}
"""`infinity` is what drafts of the RFC said."""


def parse_report(body: bytes) -> SyncQuery:
    """What a REPORT asks for; UnknownReportError unless it is sync-collection."""
    root = _parse_any(body)
    if root.tag != "{DAV:}sync-collection":
        raise UnknownReportError("the only report is DAV:sync-collection")
    parts = {str(child.tag): child for child in _children(root)}
    if "{DAV:}sync-token" not in parts or "{DAV:}prop" not in parts:
        raise InvalidRequestError("a sync-collection has a sync-token, which may be empty, and a prop")
    token = (parts["{DAV:}sync-token"].text or "").strip()
    return SyncQuery(token, _parse_level(parts), _parse_limit(parts), _names(parts["{DAV:}prop"]))


def _parse_level(parts: dict[str, etree._Element]) -> bool | None:
    if "{DAV:}sync-level" not in parts:
        return None
    level = (parts["{DAV:}sync-level"].text or "").strip()
    if level not in LEVELS:
        raise InvalidRequestError("a sync-level is 1 or infinite")
    return LEVELS[level]


def _parse_limit(parts: dict[str, etree._Element]) -> int | None:
    if "{DAV:}limit" not in parts:
        return None
    count = (parts["{DAV:}limit"].findtext("{DAV:}nresults") or "").strip()
    if not (count.isascii() and count.isdigit() and len(count) <= 9 and int(count) > 0):
        raise InvalidRequestError("a limit has nresults, a number from 1 on")
    return int(count)
