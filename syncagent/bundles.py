"""Many small files in one request, both ways: our gateway's bundles (webdav/COMPLIANCE.md) as the agent speaks them.

Used by `remote`. A bundle is a tar stream; each member is conditional and verified by its digest, and has an outcome of
its own. No member brings its directory with it: one that is missing was moved or deleted meanwhile. What a stream that
broke off has not told is an UnavailableError of those members: they may have happened. Any thread.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from helenite.core.errors import (
    DigestMismatchError,
    EntryExistsError,
    HeleniteError,
    PreconditionFailedError,
    ProtocolError,
    UnavailableError,
)
from helenite.core.paths import ROOT, Path, format_path
from syncagent.model import RemoteStamp
from syncagent.multistatus import DAV, Answer, format_href, parse_multistatus, resource_of
from syncagent.ports import Fetching, Sending
from syncagent.session import Session, error_of
from syncagent.troubles import translated

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MEMBERS_MAX = 100
"""Enough that the round trip costs little beside them; with more, the other device would begin later."""
PREFIX = "HELENITE."
MISSING_KIND = "missing"
MEMBER_BYTES_MAX = 4 << 20
"""What is fetched in bundles is smaller, and so is the list of what is missing."""
PIECE_BYTES = 64 << 10
TAR_TYPE = {"Content-Type": "application/x-tar"}

Outcome = RemoteStamp | HeleniteError


@dataclass(frozen=True, slots=True)
class _Member:
    """What goes into a tar stream."""

    path: Path
    head: bytes
    content: bytes = b""


class Bundles:
    """Bundles to and from one collection."""

    def __init__(self, session: Session) -> None:
        self._session = session

    # Up

    def store(self, orders: Sequence[Sending]) -> list[Outcome]:
        """Store files; what came of each."""
        packed = [_pack(order) for order in orders]
        told = self._post([member for member in packed if isinstance(member, _Member)])
        outcomes: list[Outcome] = []
        for order, member in zip(orders, packed, strict=True):
            if isinstance(member, HeleniteError):
                outcomes.append(member)
            else:
                outcomes.append(_outcome(told, order.path) or _stamp(order, told[order.path]))
        return outcomes

    def make_directories(self, paths: Sequence[Path]) -> list[Outcome]:
        """Make directories; EntryExistsError of one that was there."""
        told = self._post([_Member(path, _head("/".join(path), is_directory=True)) for path in paths])
        outcomes: list[Outcome] = []
        for path in paths:
            error = _outcome(told, path)
            if error is None and told[path].status != 201:
                error = EntryExistsError(f"something has the name of {format_path(path)} already")
            outcomes.append(error or RemoteStamp(resource_of(told[path])))
        return outcomes

    def _post(self, members: Sequence[_Member]) -> dict[Path, Answer]:
        """Send members; the server's word on each."""
        if not members:
            return {}
        pieces = [piece for member in members for piece in (member.head, member.content, _padding(member.content))]
        end = bytes(2 * tarfile.BLOCKSIZE)
        length = sum(map(len, pieces)) + len(end)

        def stream() -> Iterator[bytes]:
            body = io.BytesIO(b"".join([*pieces, end]))
            while piece := body.read(PIECE_BYTES):
                self._session.throttles.up.take(len(piece))
                yield piece

        url = self._session.url(ROOT, is_directory=True) + "?bundle"
        response, body = self._session.ask("POST", url, TAR_TYPE | {"Content-Length": str(length)}, stream())
        if response.status_code != 207:
            raise ProtocolError(f"{response.status_code} came back for a bundle instead of a multistatus")
        answers = parse_multistatus(body, self._session.home).answers
        return {answer.path: answer for answer in answers if answer.path != ROOT}

    # Down

    def fetch(self, wanted: Sequence[Fetching]) -> list[bytes | HeleniteError]:
        """Write files into their staging files; the digest of each, or why it did not come."""
        by_name = {"/".join(fetching.path): fetching for fetching in wanted}
        links = {format_href(fetching.path).lstrip("/"): fetching for fetching in wanted}
        found: dict[Path, bytes | HeleniteError] = {}
        trouble: HeleniteError = UnavailableError("the bundle broke off")
        try:
            for info, content in self._get(list(links)):
                if info.pax_headers.get(f"{PREFIX}kind") == MISSING_KIND:
                    found |= {links[link].path: error for link, error in _missing(content).items() if link in links}
                elif (fetching := by_name.get(info.name)) is not None:
                    found[fetching.path] = self._take(fetching, info, content)
        except HeleniteError as error:
            if not found:
                raise
            trouble = error
        return [found.get(fetching.path, trouble) for fetching in wanted]

    def _get(self, links: list[str]) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
        """The members of the answer."""
        url = self._session.url(ROOT, is_directory=True) + "?bundle=get"
        with self._session.send("POST", url, {"Content-Type": "application/json"}, json.dumps(links).encode()) as got:
            try:
                with tarfile.open(fileobj=_Stream(got), mode="r|", bufsize=PIECE_BYTES) as tar:
                    for info in tar:
                        yield info, _content(tar, info)
            except (tarfile.TarError, EOFError) as error:
                raise UnavailableError(f"the bundle broke off: {error}") from error

    def _take(self, fetching: Fetching, info: tarfile.TarInfo, content: bytes) -> bytes | HeleniteError:
        expected, place = fetching.expected, format_path(fetching.path)
        told = info.pax_headers
        if told.get(f"{PREFIX}etag") != expected.etag or info.size != expected.size:
            return PreconditionFailedError(f"{place} has another revision by now")
        self._session.throttles.down.take(len(content))
        digest = hashlib.sha256(content).digest()
        if told.get(f"{PREFIX}digest", _format_digest(digest)) != _format_digest(digest):
            return DigestMismatchError(f"{place} did not arrive as the server has it")
        try:
            with translated(fetching.into):
                fetching.into.write_bytes(content)
        except HeleniteError as error:
            return error
        return digest


class _Stream(io.RawIOBase):
    """An answer's body as tarfile reads it."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__()
        self._pieces = response.iter_bytes(PIECE_BYTES)
        self._held = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Part of a piece, nothing at the end."""
        if not self._held:
            self._held = memoryview(next(self._pieces, b""))
        room = memoryview(buffer)
        count = min(len(room), len(self._held))
        room[:count] = self._held[:count]
        self._held = self._held[count:]
        return count


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    """The content of the present member; of one that is larger than anything that was asked for, none."""
    if info.size > MEMBER_BYTES_MAX:
        return b""
    file = tar.extractfile(info)
    content = b"" if file is None else file.read()
    if len(content) != info.size:
        raise UnavailableError("the bundle broke off inside a file")
    return content


def _pack(order: Sending) -> _Member | HeleniteError:
    """A file as a member, or why it cannot be read."""
    upload, replaces = order.upload, order.replaces
    try:
        with translated(upload.file):
            content = upload.file.read_bytes()
    except HeleniteError as error:
        return error
    if len(content) != upload.size:
        return PreconditionFailedError(f"{upload.file.name} was changed before it was sent")
    condition = {"if-none-match": "*"} if replaces is None else {"if-match": replaces.etag}
    wishes = condition | {"digest": _format_digest(upload.digest)}
    attributes = upload.attributes
    head = _head("/".join(order.path), upload.size, attributes.mtime_ms, wishes, is_executable=attributes.executable)
    return _Member(order.path, head, content)


def _head(
    name: str,
    size: int = 0,
    mtime_ms: int | None = None,
    wishes: dict[str, str] | None = None,
    *,
    is_executable: bool | None = False,
    is_directory: bool = False,
) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o755 if is_executable or is_directory else 0o644
    info.type = tarfile.DIRTYPE if is_directory else tarfile.REGTYPE
    info.pax_headers = {f"{PREFIX}if-parent": "*"} | {
        PREFIX + keyword: value for keyword, value in (wishes or {}).items()
    }
    if mtime_ms is not None:  # as a decimal: a float is not exact to the millisecond
        info.pax_headers["mtime"] = f"{max(1, mtime_ms) // 1000}.{max(1, mtime_ms) % 1000:03d}"
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _padding(content: bytes) -> bytes:
    return bytes(-len(content) % tarfile.BLOCKSIZE)


def _outcome(told: dict[Path, Answer], path: Path) -> HeleniteError | None:
    """Why a member was not stored."""
    answer = told.get(path)
    if answer is None:
        return UnavailableError(f"the server does not say what became of {format_path(path)}")
    return error_of(answer.failed, answer.sentence) if answer.failed else None


def _stamp(order: Sending, answer: Answer) -> Outcome:
    etag = answer.text(f"{DAV}getetag")
    if not etag:
        return UnavailableError(f"the server does not say how it has {format_path(order.path)}")
    attributes = order.upload.attributes
    mtime_ms = None if attributes.mtime_ms is None else max(1, attributes.mtime_ms)
    return RemoteStamp(resource_of(answer), etag, order.upload.size, mtime_ms, bool(attributes.executable))


def _missing(body: bytes) -> dict[str, HeleniteError]:
    """Why the server did not send what it did not send, by link."""
    try:
        told: dict[str, dict[str, Any]] = json.loads(body)
        return {link: error_of(int(why["status"]), str(why["reason"])) for link, why in told.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ProtocolError("the end of the bundle makes no sense") from error


def _format_digest(digest: bytes) -> str:
    return f"sha-256=:{base64.b64encode(digest).decode()}:"
