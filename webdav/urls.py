"""URLs and paths: what a request target or a `Destination` names, and how a path is written as a link.

Used by every handler. Each segment is decoded once, after the path was split, so an encoded slash can never become a
separator; whatever cannot be a name (`..`, NUL, invalid UTF-8) is an InvalidPathError, which clients see as 400. Pure.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes, urlsplit

from helenite.core.errors import InvalidPathError, InvalidRequestError
from helenite.core.paths import DEPTH_MAX, ROOT, Path, validate_name

HREF_SAFE = "!*'(),$-_.~@:+;="
"""Left bare in links: what RFC 3986 allows in a segment, but `&` (XML). GNOME Files wants bare parentheses."""
DESTINATION_SCHEMES = frozenset({"", "http", "https", "dav", "davs", "webdav", "webdavs"})
"""A proxy may end TLS and KDE writes `webdavs:`, so the scheme of a Destination says nothing about where it leads."""
DEFAULT_PORTS = (":80", ":443")

_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")


class ForeignHostError(InvalidRequestError):
    """A Destination names a host that this gateway does not serve (502)."""

    code = "foreign_host"


def parse_url_path(text: str) -> tuple[Path, bool]:
    """The path that the path of a URL names, and whether it ended with a slash; repeated slashes count as one."""
    if not text.startswith("/"):
        raise InvalidPathError(f"the path of a URL starts with '/': {text[:80]!r}")
    if _BAD_ESCAPE.search(text):
        raise InvalidPathError(f"'%' stands without two hexadecimal digits: {text[:80]!r}")
    names = tuple(_decode(segment) for segment in text.split("/") if segment)
    if len(names) > DEPTH_MAX:
        raise InvalidPathError(f"a path has at most {DEPTH_MAX} levels, this one {len(names)}")
    return names, text.endswith("/")


def _decode(segment: str) -> str:
    try:
        raw = unquote_to_bytes(segment.encode("latin-1"))
        return validate_name(raw.decode())
    except UnicodeError:
        raise InvalidPathError(f"a name must be valid UTF-8: {segment[:80]!r}") from None


def parse_destination(header: str, own_hosts: frozenset[str]) -> Path:
    """The path that a `Destination` header names (RFC 4918 section 10.3); it counts by its path.

    `own_hosts` are the hosts that lead here, in lower case; `*` accepts all. ForeignHostError for any other.
    """
    try:
        parts = urlsplit(header.strip())
    except ValueError:
        raise InvalidRequestError("the Destination header is no URL") from None
    if parts.query or parts.fragment or "#" in header or "?" in header:
        raise InvalidRequestError("a Destination has no query and no fragment; encode '?' as %3F and '#' as %23")
    if parts.scheme.lower() not in DESTINATION_SCHEMES:
        raise ForeignHostError(f"a Destination of scheme {parts.scheme!r} is not here")
    if parts.netloc and "*" not in own_hosts and normalize_host(parts.netloc) not in own_hosts:
        raise ForeignHostError(f"the Destination lies on another host: {parts.netloc!r}")
    if not parts.path.startswith("/"):
        raise InvalidRequestError("a Destination is an absolute URL or an absolute path")
    return parse_url_path(parts.path)[0]


def normalize_host(netloc: str) -> str:
    """A host for comparison: lower case, without user and default port."""
    host = netloc.rpartition("@")[2].strip().lower()
    for port in DEFAULT_PORTS:
        host = host.removesuffix(port)
    return host


def parse_local_url(text: str) -> Path | None:
    """The path that a URL in an `If` header names, or None when it is none of ours to know."""
    try:
        parts = urlsplit(text)
        return parse_url_path(parts.path or "/")[0]
    except (ValueError, InvalidPathError):
        return None


def quote_name(name: str) -> str:
    """A name as one segment of a link."""
    return quote(name, safe=HREF_SAFE)


def format_href(path: Path, *, is_directory: bool) -> str:
    """The absolute path of a link; that of a directory ends with a slash."""
    if path == ROOT:
        return "/"
    return "/" + "/".join(map(quote_name, path)) + ("/" if is_directory else "")
