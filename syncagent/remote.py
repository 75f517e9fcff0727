"""The server's side of a pair over WebDAV: `ports.Remote`.

What it needs of a server: strong ETags, conditional PUT and DELETE, and an id that an entry keeps (DAV:resource-id, or
ownCloud's). What it uses where offered: sync-collection (RFC 6578), held back until something changes (`wait`); ETags
of directories that follow everything beneath; times to the millisecond. Every anomaly is an error (`multistatus`,
`session`), never an empty listing. Any thread.
"""

from __future__ import annotations

import itertools
import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path as FilePath

import httpx

from helenite.core.errors import (
    EntryNotFoundError,
    HeleniteError,
    InsufficientStorageError,
    PermissionDeniedError,
    PreconditionFailedError,
    ProtocolError,
)
from helenite.core.paths import ROOT, Path, format_path
from syncagent.bases import Bases
from syncagent.bundles import MEMBERS_MAX, Bundles
from syncagent.deliveries import Deliveries
from syncagent.downloads import Downloads
from syncagent.drafts import Drafts
from syncagent.hashes import ask_digest
from syncagent.learning import Learner
from syncagent.model import Kind, RemoteStamp
from syncagent.multistatus import (
    BUNDLE_MEMBERS,
    DAV,
    ENTRY_PROPERTIES,
    EXECUTABLE,
    FILE_ID,
    FINGERPRINT,
    IDENTITY_PROPERTIES,
    LINK,
    MODIFIED_MS,
    Answer,
    Multistatus,
    entry_of,
    parse_multistatus,
    propfind_body,
    proppatch_body,
    report_body,
    resource_of,
)
from syncagent.names import aside_name
from syncagent.ports import Attributes, Changes, Fetching, Present, RemoteEntry, Sending, ServerIdentity, Upload
from syncagent.session import SILENCE_S, Session

log = logging.getLogger(__name__)

DIGESTS_AT_ONCE = 4
RESULTS_MAX = 5_000
"""Of one report of changes: bounds the memory for it."""
WALK_RESULTS = 1_000
"""Of one page of a whole tree."""
PAGES_MAX = 10_000
DELETE_ATTEMPTS = 3
"""A directory in which others work gets another ETag all the time."""
XML = {"Content-Type": "application/xml; charset=utf-8"}


@dataclass(frozen=True, slots=True)
class _Abilities:
    """What this server offers."""

    has_tags: bool
    tells_changes: bool
    keeps_times: bool
    group_max: int
    is_ours: bool
    """Our gateway: what it does beyond the standards is known."""


class WebDavRemote:
    """One collection on a server."""

    def __init__(self, session: Session, memory: FilePath | None = None) -> None:
        """`memory`: a directory for what is remembered of large files; without, they always travel whole."""
        self._session = session
        self._learner = Learner(session, Bases(memory and memory / "large"))
        self._downloads = Downloads(session, self._learner)
        self._deliveries = Deliveries(session, self._learner, Drafts(memory and memory / "drafts"), self._stamp)
        self._bundles = Bundles(session)
        self._known: _Abilities | None = None

    # Looking

    def identity(self) -> ServerIdentity:
        answer = self._look(ROOT, IDENTITY_PROPERTIES)
        if not answer.is_directory:
            raise ProtocolError("the address leads to a file, not to a folder")
        reports = answer.properties.get(f"{DAV}supported-report-set")
        tells_changes = reports is not None and reports.find(f".//{DAV}sync-collection") is not None
        keeps_times = MODIFIED_MS in answer.properties
        members = answer.text(BUNDLE_MEMBERS) or ""
        group_max = min(int(members), MEMBERS_MAX) if members.isascii() and members.isdigit() else 1
        self._known = _Abilities(
            keeps_times or FILE_ID in answer.properties, tells_changes, keeps_times, group_max, group_max > 1
        )
        self._deliveries.tidy()
        return ServerIdentity("", resource_of(answer), answer.text(FINGERPRINT) or "")

    def token(self) -> str:
        if not self._abilities.tells_changes:
            return ""
        return self._look(ROOT, (f"{DAV}sync-token",)).text(f"{DAV}sync-token") or ""

    def changes(self, since: str) -> Changes:
        return self._report(ROOT, since)

    def wait(self, since: str, wait_s: int) -> bool | None:
        """Wait until something may have changed since a token, at most so long; None from a server that cannot wait."""
        headers = XML | {"Depth": "0", "Prefer": f"wait={wait_s}"}
        url, body = self._session.url(ROOT, is_directory=True), report_body(since, 1, (f"{DAV}getetag",))
        try:
            response, answer = self._session.ask("REPORT", url, headers, body, wait_s + SILENCE_S)
        except InsufficientStorageError:
            return True  # more has changed than this report may tell
        found = self._parse(response, answer)
        if found.answers:
            return True
        return False if f"wait={wait_s}" in response.headers.get("Preference-Applied", "") else None

    def list(self, directory: Path) -> Sequence[RemoteEntry]:
        answers = self._propfind(directory, ENTRY_PROPERTIES, depth="1")
        own = [answer for answer in answers if answer.path == directory]
        if len(own) != 1 or not own[0].is_directory:
            raise ProtocolError(f"the server's listing of {format_path(directory)} is not of that directory")
        entries = []
        for answer in answers:
            if answer.path == directory:
                continue
            if answer.path[:-1] != directory or answer.failed:
                raise ProtocolError(f"the server's listing of {format_path(directory)} is not complete")
            entries.append(entry_of(answer, has_tags=self._abilities.has_tags))
        return entries

    def walk(self) -> Iterator[Sequence[RemoteEntry]] | None:
        if not (self._abilities.is_ours and self._abilities.tells_changes):
            return None
        return (page.changed for page in self._pages(ROOT, WALK_RESULTS))

    def walk_tag(self, directory: Path) -> str:
        if not self._abilities.has_tags:
            return ""
        return self._look(directory, (f"{DAV}getetag",)).text(f"{DAV}getetag") or ""

    # Content

    def group_max(self) -> int:
        return self._abilities.group_max

    def store_many(self, orders: Sequence[Sending]) -> Sequence[RemoteStamp | HeleniteError]:
        return self._bundles.store(orders)

    def fetch_many(self, wanted: Sequence[Fetching]) -> Sequence[bytes | HeleniteError]:
        return self._bundles.fetch(wanted)

    def make_directories(self, paths: Sequence[Path]) -> Sequence[RemoteStamp | HeleniteError]:
        return self._bundles.make_directories(paths)

    def digests(self, wanted: Sequence[tuple[Path, RemoteStamp]]) -> Sequence[bytes | HeleniteError | None]:
        with ThreadPoolExecutor(min(len(wanted), DIGESTS_AT_ONCE), "digests") as asking:
            return list(asking.map(self._digest_or_error, *zip(*wanted, strict=True)))

    def _digest_or_error(self, path: Path, expected: RemoteStamp) -> bytes | HeleniteError | None:
        try:
            return ask_digest(self._session, path, expected)
        except HeleniteError as error:
            return error

    def fetch(
        self,
        path: Path,
        expected: RemoteStamp,
        into: FilePath,
        present: Present | None = None,
        known: bytes | None = None,
    ) -> bytes:
        return self._downloads.fetch(path, expected, into, present, known)

    def study(self, path: Path, stamp: RemoteStamp, digest: bytes, file: FilePath) -> None:
        self._learner.study(path, stamp, digest, file)

    def store(self, path: Path, upload: Upload, replaces: RemoteStamp | None) -> RemoteStamp:
        if upload.kind is Kind.LINK and replaces is None:
            return self._store_link(path, upload)
        stamp = self._deliveries.deliver(path, upload, replaces, keeps_times=self._abilities.keeps_times)
        wanted = upload.attributes
        mtime_ms = None if wanted.mtime_ms == stamp.mtime_ms else wanted.mtime_ms
        return self.set_attributes(path, stamp, Attributes(mtime_ms, wanted.executable))

    def _store_link(self, path: Path, upload: Upload) -> RemoteStamp:
        """A link is seen as one from its first moment: it gets its name when it has its property."""
        draft = (*path[:-1], aside_name(f"link{secrets.token_hex(8)}", 1))
        stamp = self._deliveries.deliver(draft, upload, None, keeps_times=self._abilities.keeps_times)
        self._proppatch(draft, {LINK: "T"}, stamp.etag)
        self.move(draft, path, stamp)
        return stamp

    # Changing

    def make_directory(self, path: Path) -> RemoteStamp:
        response, _ = self._session.ask("MKCOL", self._session.url(path, is_directory=True), {})
        return RemoteStamp(response.headers.get("Resource-Id") or self._stamp(path).resource)

    def move(self, source: Path, target: Path, expected: RemoteStamp) -> None:
        is_directory = not expected.etag
        headers = {"Destination": self._session.url(target, is_directory=is_directory), "Overwrite": "F"}
        for attempt in itertools.count(1):
            tag = self._confirm(source, expected) if is_directory else expected.etag
            condition = {"If-Match": tag} if tag else {}
            try:
                self._session.ask("MOVE", self._session.url(source, is_directory=is_directory), headers | condition)
            except PreconditionFailedError:
                if not is_directory or attempt >= DELETE_ATTEMPTS or self._exists(target):
                    raise
            else:
                return

    def delete(self, path: Path, expected: RemoteStamp, beneath: Mapping[Path, RemoteStamp]) -> None:
        if expected.etag:
            self._session.ask("DELETE", self._session.url(path), {"If-Match": expected.etag})
            return
        tag = self._confirm(path, expected)
        found = {entry.path: entry.stamp for entry in self._walk(path)}
        if {place: (stamp.resource, stamp.etag) for place, stamp in found.items()} != {
            place: (stamp.resource, stamp.etag) for place, stamp in beneath.items()
        }:
            raise PreconditionFailedError(f"{format_path(path)} has other things in it than were seen")
        if tag:
            self._session.ask("DELETE", self._session.url(path, is_directory=True), {"If-Match": tag})
        else:
            self._delete_one_by_one(path, found)

    def _delete_one_by_one(self, top: Path, found: Mapping[Path, RemoteStamp]) -> None:
        """From a server whose directories have no ETag: files first, each as it was seen; then what is empty."""
        for place, stamp in found.items():
            if stamp.etag:
                self._session.ask("DELETE", self._session.url(place), {"If-Match": stamp.etag})
        directories = [place for place, stamp in found.items() if not stamp.etag]
        for place in [*sorted(directories, key=len, reverse=True), top]:
            if self.list(place):
                raise PreconditionFailedError(f"{format_path(place)} is not empty any more")
            self._session.ask("DELETE", self._session.url(place, is_directory=True), {})

    def set_attributes(self, path: Path, expected: RemoteStamp, attributes: Attributes) -> RemoteStamp:
        values: dict[str, str | None] = {}
        stamp = expected
        if attributes.mtime_ms is not None and self._abilities.keeps_times:
            stamp = stamp._replace(mtime_ms=max(1, attributes.mtime_ms))
            values[MODIFIED_MS] = str(stamp.mtime_ms)
        if attributes.executable is not None and attributes.executable is not expected.executable:
            stamp = stamp._replace(executable=attributes.executable)
            values[EXECUTABLE] = "T" if attributes.executable else None
        if values:
            self._proppatch(path, values, expected.etag)
        return stamp

    # The protocol

    @property
    def _abilities(self) -> _Abilities:
        if self._known is None:
            self.identity()
        assert self._known is not None
        return self._known

    def _report(self, directory: Path, since: str, results_max: int = RESULTS_MAX) -> Changes:
        headers = XML | {"Depth": "0"}
        url = self._session.url(directory, is_directory=True)
        response, body = self._session.ask("REPORT", url, headers, report_body(since, results_max, ENTRY_PROPERTIES))
        found = self._parse(response, body)
        if not found.token:
            raise ProtocolError("the server's list of changes has no token")
        own = [answer for answer in found.answers if answer.path == directory and answer.status == 507]
        others = [answer for answer in found.answers if answer.path != directory]
        strange = [answer.failed or answer.status for answer in others if answer.status not in {200, 404}]
        if strange or any(answer.failed for answer in others if answer.status == 200):
            raise ProtocolError(f"the server's list of changes has a status of {strange or 'an entry'} in it")
        return Changes(
            found.token,
            [entry_of(answer, has_tags=self._abilities.has_tags) for answer in others if answer.status == 200],
            [answer.path for answer in others if answer.status == 404],
            is_complete=not own,
            names_all=self._abilities.is_ours,
        )

    def _walk(self, directory: Path) -> Iterator[RemoteEntry]:
        """Everything beneath a directory."""
        if not self._abilities.tells_changes:
            for entry in self.list(directory):
                yield entry
                if entry.kind is Kind.DIRECTORY:
                    yield from self._walk(entry.path)
            return
        for page in self._pages(directory, RESULTS_MAX):
            yield from page.changed

    def _pages(self, directory: Path, results_max: int) -> Iterator[Changes]:
        """Reports from the beginning on; the server makes the next one while its reader is busy with the last."""
        with ThreadPoolExecutor(1, "pages") as ahead:
            coming = ahead.submit(self._report, directory, "", results_max)
            for _ in range(PAGES_MAX):
                page = coming.result()
                if page.is_complete:
                    yield page
                    return
                coming = ahead.submit(self._report, directory, page.token, results_max)
                yield page
        raise ProtocolError(f"the server's listing of {format_path(directory)} has no end")

    def _confirm(self, directory: Path, expected: RemoteStamp) -> str:
        """That a directory is who it was; its ETag, if that follows everything beneath."""
        answer = self._look(directory, ENTRY_PROPERTIES)
        if not answer.is_directory or resource_of(answer) != expected.resource:
            raise PreconditionFailedError(f"{format_path(directory)} is another directory by now")
        return entry_of(answer, has_tags=self._abilities.has_tags).walk_tag

    def _exists(self, path: Path) -> bool:
        try:
            self._look(path, (f"{DAV}resourcetype",))
        except EntryNotFoundError:
            return False
        return True

    def _stamp(self, path: Path) -> RemoteStamp:
        return entry_of(self._look(path, ENTRY_PROPERTIES), has_tags=False).stamp

    def close(self) -> None:
        """Let go of the connections."""
        self._learner.close()
        self._session.close()

    def _look(self, path: Path, names: Sequence[str]) -> Answer:
        answers = self._propfind(path, names, depth="0")
        if len(answers) != 1 or answers[0].path != path or answers[0].failed:
            raise ProtocolError(f"the server does not say what {format_path(path)} is")
        return answers[0]

    def _propfind(self, path: Path, names: Sequence[str], *, depth: str) -> Sequence[Answer]:
        headers = XML | {"Depth": depth, "Prefer": "return=minimal"}
        return self._parse(
            *self._session.ask("PROPFIND", self._session.url(path), headers, propfind_body(names))
        ).answers

    def _proppatch(self, path: Path, values: dict[str, str | None], etag: str) -> None:
        headers = XML | ({"If-Match": etag} if etag else {})
        response, body = self._session.ask("PROPPATCH", self._session.url(path), headers, proppatch_body(values))
        answers = self._parse(response, body).answers
        refused = [answer.failed for answer in answers if answer.failed]
        if len(answers) != 1 or refused:
            raise PermissionDeniedError(f"the server does not keep the properties of {format_path(path)}: {refused}")

    def _parse(self, response: httpx.Response, body: bytes) -> Multistatus:
        if response.status_code != 207:
            raise ProtocolError(f"{response.status_code} came back instead of a multistatus: is this the server?")
        return parse_multistatus(body, self._session.home)
