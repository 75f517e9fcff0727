"""One WebDAV request as the handlers see it: its target, its headers as values, its body, who asks.

Made by `requests` for each request from WSGI's environ. Headers are parsed here when a handler asks for them; what is
malformed raises InvalidRequestError.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any, cast

from helenite.client.caching import CachingFileSystem
from helenite.core.errors import InvalidRequestError
from helenite.core.paths import Path
from webdav.body import Body
from webdav.errors import refusal
from webdav.preconditions import TIME_SECONDS_MAX, Conditionals, IfList, parse_if
from webdav.probes import FINDER
from webdav.provider import Provider, Resource
from webdav.rights import Verb, demand
from webdav.urls import format_href, normalize_host, parse_destination

PATH_KEY = "helenite.path"
"""In the environ: the parsed target and whether it ended with a slash."""
PRINCIPAL_KEY = "helenite.principal"
"""In the environ: who asks; empty where the gateway is open."""


class Request:
    """One request."""

    def __init__(self, environ: dict[str, Any], provider: Provider, allowed_hosts: tuple[str, ...]) -> None:
        self.environ = environ
        self.provider = provider
        self.file_system: CachingFileSystem = provider.file_system
        self.method: str = environ["REQUEST_METHOD"]
        self.body: Body = environ["wsgi.input"]
        self.principal: str = environ.get(PRINCIPAL_KEY, "")
        self.path, self.has_slash = cast("tuple[Path, bool]", environ[PATH_KEY])
        self._allowed_hosts = allowed_hosts
        self._if: tuple[IfList, ...] | None = None

    def header(self, name: str) -> str | None:
        """A header's value by its usual name."""
        value: str | None = self.environ.get("HTTP_" + name.upper().replace("-", "_"))
        return value

    @property
    def media_type(self) -> str:
        """The type of the body without its parameters, empty when it is not told."""
        return str(self.environ.get("CONTENT_TYPE", "")).partition(";")[0].strip().lower()

    @property
    def href(self) -> str:
        """The target's link, as it was asked for."""
        return format_href(self.path, is_directory=self.has_slash)

    def find(self, path: Path | None = None, *, verb: Verb = Verb.READ, **wanted: bool) -> Resource | None:
        """The resource at `path`, or at the target, with the caller's right to it checked."""
        names = self.path if path is None else path
        demand(self.principal, verb, names)
        return self.provider.find(names, self.environ, **wanted)

    def demand_right(self, verb: Verb, path: Path | None = None) -> None:
        """PermissionDeniedError unless the caller may do this to `path` or the target."""
        demand(self.principal, verb, self.path if path is None else path)

    @property
    def is_from_finder(self) -> bool:
        """Whether macOS asks, which probes for names that nobody has (see `probes`)."""
        return (self.header("User-Agent") or "").startswith(FINDER)

    # Headers

    @property
    def conditionals(self) -> Conditionals:
        """The conditional headers of RFC 9110."""
        return Conditionals(
            self.header("If-Match"),
            self.header("If-None-Match"),
            self.header("If-Modified-Since"),
            self.header("If-Unmodified-Since"),
        )

    @property
    def if_lists(self) -> tuple[IfList, ...]:
        """The parsed `If` header, empty when there is none."""
        if self._if is None:
            text = self.header("If")
            self._if = () if text is None else parse_if(text)
        return self._if

    def depth(self, default: str) -> str:
        """`0`, `1` or `infinity` (RFC 4918 section 10.2)."""
        text = (self.header("Depth") or default).strip().lower()
        if text not in {"0", "1", "infinity"}:
            raise InvalidRequestError(f"Depth is 0, 1 or infinity, not {text[:40]!r}")
        return text

    @property
    def may_overwrite(self) -> bool:
        """The `Overwrite` header; absent means yes (RFC 4918 section 10.6)."""
        text = (self.header("Overwrite") or "T").strip().upper()
        if text not in {"T", "F"}:
            raise InvalidRequestError(f"Overwrite is T or F, not {text[:40]!r}")
        return text == "T"

    @property
    def destination(self) -> Path:
        """Where COPY and MOVE lead."""
        text = self.header("Destination")
        if text is None:
            raise InvalidRequestError(f"{self.method} needs a Destination header")
        own = (self.header("Host"), *(self.header("X-Forwarded-Host") or "").split(","), *self._allowed_hosts)
        hosts = frozenset(normalize_host(host) for host in own if host)
        return parse_destination(text, hosts)

    @property
    def announced_bytes(self) -> int | None:
        """The size that the client announced: Content-Length, or what Finder adds to a chunked body."""
        if self.body.announced is not None:
            return self.body.announced
        text = self.header("X-Expected-Entity-Length")
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise InvalidRequestError("X-Expected-Entity-Length is no length")
        return int(text)

    @property
    def modified_at_ms(self) -> int:
        """The time that the client wants its file to have (`X-OC-Mtime`, seconds), 0 when it does not care."""
        text = self.header("X-OC-Mtime")
        if text is None:
            return 0
        try:
            seconds = Decimal(text)
            if not 0 <= seconds <= TIME_SECONDS_MAX:
                raise InvalidOperation
        except InvalidOperation:
            raise InvalidRequestError("X-OC-Mtime is no time in seconds since 1970") from None
        return max(1, int(seconds * 1000))

    def refuse_body(self) -> None:
        """415 when there is a body where none means anything (RFC 4918 section 9.3)."""
        if not self.body.is_complete and self.body.read():
            raise refusal(415, f"{self.method} takes no body here")
