"""The XML of WebDAV as the agent speaks it: the bodies it asks with, and what the answers say.

Used by `remote`. An answer that is not a whole multistatus, or speaks of other places than those that were asked about,
is a ProtocolError: from half a listing nobody may conclude that the rest is gone. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes, urlsplit
from xml.sax.saxutils import escape

from lxml import etree

from helenite.core.errors import InvalidPathError, ProtocolError
from helenite.core.paths import ROOT, Path, validate_name
from syncagent.model import Kind, RemoteStamp
from syncagent.ports import RemoteEntry

DAV = "{DAV:}"
EXECUTABLE = "{http://apache.org/dav/props/}executable"
"""The executable bit, as mod_dav, davfs2 and cadaver know it."""
LINK = "{urn:x-helenite:}link"
"""On a file whose content is the target of a symbolic link."""
MODIFIED_MS = "{urn:x-helenite:}modified-ms"
SHA256 = "{urn:x-helenite:}sha-256"
BUNDLE_MEMBERS = "{urn:x-helenite:}bundle-members"
"""On collections that take and give bundles: how many members one may have."""
FILE_ID = "{http://owncloud.org/ns}id"
"""The stable id of servers that have no DAV:resource-id."""
FINGERPRINT = "{http://owncloud.org/ns}data-fingerprint"

ENTRY_PROPERTIES = (
    *(DAV + name for name in ("resourcetype", "getetag", "getcontentlength", "resource-id")),
    *(MODIFIED_MS, SHA256, EXECUTABLE, LINK, FILE_ID),
)
IDENTITY_PROPERTIES = (
    *ENTRY_PROPERTIES,
    *(DAV + "sync-token", DAV + "supported-report-set", FINGERPRINT, BUNDLE_MEMBERS),
)
SHA256_BYTES = 32
_PLAIN = frozenset("?#;:\\\t\r\n")
"""Without any of these an absolute path is all that there is to a link."""
HREF_SAFE = "!*'(),$-_.~@:+;="


@dataclass(frozen=True, slots=True)
class Answer:
    """One `response` of a multistatus: a place, and its properties or the status that stands for all of it.

    `failed` is the first status of a property, or of the whole, that is neither 2xx nor "there is no such property".
    `status` 201: it is new (of a bundle's member). `sentence` says why, where the server does.
    """

    path: Path
    properties: dict[str, etree._Element]
    status: int = 200
    failed: int = 0
    sentence: str = ""

    @property
    def is_directory(self) -> bool:
        kinds = self.properties.get(f"{DAV}resourcetype")
        return kinds is not None and kinds.find(f"{DAV}collection") is not None

    def text(self, name: str) -> str | None:
        """The text of a property; of DAV:resource-id, of the link in it."""
        element = self.properties.get(name)
        if element is None:
            return None
        text = "".join(str(piece) for piece in element.itertext()) if len(element) else element.text or ""
        return text.strip()


@dataclass(frozen=True, slots=True)
class Multistatus:
    """A whole answer. `token` is that of sync-collection."""

    answers: list[Answer]
    token: str = ""


def propfind_body(names: Iterable[str]) -> bytes:
    """Ask for properties by name."""
    return f'<D:propfind xmlns:D="DAV:"><D:prop>{_elements(names)}</D:prop></D:propfind>'.encode()


def report_body(token: str, results_max: int, names: Iterable[str]) -> bytes:
    """Ask what has changed since a token (RFC 6578 section 3.2)."""
    return (
        f'<D:sync-collection xmlns:D="DAV:"><D:sync-token>{escape(token)}</D:sync-token>'
        f"<D:sync-level>infinite</D:sync-level><D:limit><D:nresults>{results_max}</D:nresults></D:limit>"
        f"<D:prop>{_elements(names)}</D:prop></D:sync-collection>"
    ).encode()


def proppatch_body(values: dict[str, str | None]) -> bytes:
    """Set properties to texts; None removes one."""
    pieces = []
    for name, value in values.items():
        namespace, local = _split(name)
        element = f'<{local} xmlns="{namespace}">{escape(value or "")}</{local}>'
        verb = "remove" if value is None else "set"
        pieces.append(f"<D:{verb}><D:prop>{element}</D:prop></D:{verb}>")
    return f'<D:propertyupdate xmlns:D="DAV:">{"".join(pieces)}</D:propertyupdate>'.encode()


def _elements(names: Iterable[str]) -> str:
    return "".join(f'<{local} xmlns="{namespace}"/>' for namespace, local in map(_split, names))


def _split(name: str) -> tuple[str, str]:
    namespace, _, local = name[1:].partition("}")
    return namespace, local


def parse_multistatus(body: bytes, base: Path) -> Multistatus:
    """What an answer says of places beneath `base`, a path on the server.

    Paths in it begin at `base`. Names that no path can have are left out, with everything beneath.
    """
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        root = etree.fromstring(body, parser)
    except etree.XMLSyntaxError as error:
        raise ProtocolError(f"the server's answer is no XML, or only a part of it: {error}") from error
    if root.tag != f"{DAV}multistatus":
        raise ProtocolError(f"the server answered with {root.tag} instead of a multistatus")
    answers = [_parse_answer(element, path) for element, path in _placed(root, base)]
    return Multistatus(answers, root.findtext(f"{DAV}sync-token") or "")


def _placed(root: etree._Element, base: Path) -> Iterator[tuple[etree._Element, Path]]:
    for element in root.iterfind(f"{DAV}response"):
        for href in element.iterfind(f"{DAV}href"):
            try:
                path = parse_href(href.text or "")
            except InvalidPathError:
                continue
            if path[: len(base)] != base:
                raise ProtocolError(f"the server speaks of {href.text}, which was not asked about")
            yield element, path[len(base) :]


def _parse_answer(element: etree._Element, path: Path) -> Answer:
    status = element.findtext(f"{DAV}status")
    if status is not None:
        code = _code(status)
        sentence = element.findtext(f"{DAV}responsedescription") or ""
        return Answer(path, {}, code, 0 if code < 300 else code, sentence)
    found: dict[str, etree._Element] = {}
    failed, is_new = 0, False
    for propstat in element.iterfind(f"{DAV}propstat"):
        code = _code(propstat.findtext(f"{DAV}status") or "")
        is_new = is_new or code == 201
        if code in {200, 201}:
            found |= {str(value.tag): value for value in propstat.iterfind(f"{DAV}prop/*")}
        elif code != 404:
            failed = failed or code
    return Answer(path, found, 201 if is_new else 200, failed)


def _code(status_line: str) -> int:
    parts = status_line.split()
    if len(parts) < 2 or not (parts[1].isascii() and parts[1].isdigit()):
        raise ProtocolError(f"the server's answer has the status {status_line[:80]!r}")
    return int(parts[1])


def parse_href(href: str) -> Path:
    """The path of a link; InvalidPathError when it has none."""
    try:
        is_plain = href.startswith("/") and not href.startswith("//") and _PLAIN.isdisjoint(href)
        text = href if is_plain else urlsplit(href).path
        return tuple(validate_name(unquote_to_bytes(name).decode()) for name in text.split("/") if name)
    except (UnicodeError, ValueError) as error:
        raise InvalidPathError(f"{href[:200]!r} is no link that can be followed") from error


def format_href(path: Path, *, is_directory: bool = False) -> str:
    """The absolute path of a link."""
    if path == ROOT:
        return "/"
    return "/" + "/".join(quote(name, safe=HREF_SAFE) for name in path) + ("/" if is_directory else "")


def resource_of(answer: Answer) -> str:
    """The id that an entry keeps for ever; ProtocolError from a server that has none."""
    resource = answer.text(f"{DAV}resource-id") or answer.text(FILE_ID)
    if not resource:
        raise ProtocolError("the server does not tell DAV:resource-id, without which files cannot be followed")
    return resource


def entry_of(answer: Answer, *, has_tags: bool) -> RemoteEntry:
    """An answer as the engine wants it; `has_tags`: the ETag of a directory changes with anything beneath."""
    etag = answer.text(f"{DAV}getetag") or ""
    resource = resource_of(answer)
    if answer.is_directory:
        return RemoteEntry(answer.path, Kind.DIRECTORY, RemoteStamp(resource), walk_tag=etag if has_tags else "")
    size = answer.text(f"{DAV}getcontentlength") or ""
    if not etag or etag.startswith("W/") or not (size.isascii() and size.isdigit()):
        raise ProtocolError(f"the server tells no strong ETag and size of {answer.path[-1:]}")
    kind = Kind.LINK if LINK in answer.properties else Kind.FILE
    mtime = answer.text(MODIFIED_MS)
    executable = answer.text(EXECUTABLE) == "T"
    mtime_ms = int(mtime) if mtime and mtime.isascii() and mtime.isdigit() else None
    stamp = RemoteStamp(resource, etag, int(size), mtime_ms, executable)
    return RemoteEntry(answer.path, kind, stamp, _digest(answer.text(SHA256)))


def _digest(text: str | None) -> bytes | None:
    """A digest in hex; what is none says nothing."""
    try:
        digest = bytes.fromhex(text or "")
    except ValueError:
        return None
    return digest if len(digest) == SHA256_BYTES else None
