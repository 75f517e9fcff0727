"""A bundle coming in: a tar stream whose files are stored beneath a collection, each as by a PUT of its own.

Used by `bundles`. Each file is as atomic, conditional and durable as by a PUT; what a bundle spares is the round trips
of its sender, and most of ours: small files are held in memory and stored in groups (`FileSystem.create_small`), one by
a thread of the provider while the next comes in, directories are made side by side; large files stream through. One
bundle serves one thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice
from urllib.parse import quote

from helenite.client.filesystem import SMALL_FILES_MAX
from helenite.client.smallfiles import SmallFile, Stored
from helenite.core.errors import (
    EntryExistsError,
    HeleniteError,
    InvalidRequestError,
    ParentNotFoundError,
    PreconditionFailedError,
    UnavailableError,
)
from helenite.core.model import Condition, Entry, EntryId, Expect, Sequence
from helenite.core.paths import DEPTH_MAX, Path, validate_name
from webdav.body import BodyTooLargeError
from webdav.bundling import (
    BYTES_MAX,
    EXECUTABLE,
    EXECUTABLE_ELEMENT,
    GROUP_BYTES_MAX,
    HELD_MAX,
    SMALL_BYTES,
    check_target,
)
from webdav.digests import Digests
from webdav.errors import refusal
from webdav.outcomes import Outcome, write_outcomes
from webdav.preconditions import parse_etags, submitted_tokens
from webdav.provider import BUNDLE_MEMBERS_MAX
from webdav.request import Request
from webdav.response import XML_TYPE, Response, generated
from webdav.rights import Verb
from webdav.tars import BrokenTarError, Member, TarReader
from webdav.urls import HREF_SAFE, format_href

END_PIECES_MAX = 16
"""Pieces read after the end mark: tar pads its end to some 10 KiB."""
HEADERS_BYTES = 4096
"""Roughly what the headers of a member take."""


def put_bundle(request: Request) -> Response:
    """Store every file of a tar stream beneath the collection; the answer tells what became of each."""
    request.demand_right(Verb.WRITE)
    if (request.header("Content-Encoding") or "identity").strip().lower() != "identity":
        raise refusal(415, "send the tar stream without Content-Encoding")
    check_target(request)
    if (request.body.announced or 0) > BYTES_MAX + HEADERS_BYTES * BUNDLE_MEMBERS_MAX:
        raise BodyTooLargeError(f"a bundle has at most {BYTES_MAX} bytes of content")
    intake = _Intake(request)
    trouble: InvalidRequestError | None = None
    try:
        intake.take_all()
    except (BrokenTarError, BodyTooLargeError) as error:
        trouble = error
    finally:
        intake.finish()
    outcomes = intake.outcomes
    if trouble is not None:
        outcomes.append(Outcome(format_href(request.path, is_directory=True), error=trouble))
    return generated(207, write_outcomes(request.provider, outcomes), XML_TYPE)


@dataclass(frozen=True, slots=True)
class _Order:
    """A member that is to be stored."""

    path: Path
    member: Member
    condition: Condition
    digests: Digests
    makes_parents: bool


@dataclass(slots=True)
class _Group:
    """Small files that are stored together."""

    orders: list[_Order] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    size_bytes: int = 0
    _places: set[Path] = field(default_factory=set)
    _above: set[Path] = field(default_factory=set)

    def add(self, order: _Order, content: bytes, outcome: Outcome) -> None:
        self.orders.append(order)
        self.contents.append(content)
        self.outcomes.append(outcome)
        self.size_bytes += len(content)
        self._places.add(order.path)
        self._above.update(order.path[:end] for end in range(len(order.path)))

    def concerns(self, path: Path) -> bool:
        """Whether one of them is at this path, beneath it, or a file above it."""
        return (
            path in self._places
            or path in self._above
            or any(path[:end] in self._places for end in range(1, len(path)))
        )


@dataclass(slots=True)
class _Intake:
    """Takes one bundle in: members in order, small ones a group at a time by another thread."""

    request: Request
    outcomes: list[Outcome] = field(default_factory=list)
    _group: _Group = field(default_factory=_Group)
    _storing: tuple[_Group, Future[list[Stored]]] | None = None
    _making: dict[Path, tuple[Outcome, Future[tuple[Entry, bool]]]] = field(default_factory=dict)
    _known: set[Path] = field(default_factory=set)
    _down: UnavailableError | None = None

    def take_all(self) -> None:
        """BrokenTarError or BodyTooLargeError at the member where it must end."""
        reader = TarReader(self.request.body.read)
        left = BYTES_MAX
        for member in reader:
            if member.is_directory and member.name in {".", "./"}:
                continue
            left -= member.size_bytes
            if left < 0 or len(self.outcomes) == BUNDLE_MEMBERS_MAX:
                raise BodyTooLargeError(
                    f"a bundle has at most {BUNDLE_MEMBERS_MAX} members and {BYTES_MAX} bytes of content"
                )
            outcome = Outcome(self._href(member))
            self.outcomes.append(outcome)
            try:
                self._take(reader, member, outcome)
            except HeleniteError as error:
                self._fail(outcome, error)
                if isinstance(error, BrokenTarError) or self.request.body.is_broken:
                    raise
        for _ in islice(self.request.body.pieces(), END_PIECES_MAX):
            pass

    def finish(self) -> None:
        """Have everything stored, and wait for it."""
        self._collect_directories()
        self._send_group()
        self._collect()

    def _href(self, member: Member) -> str:
        """The link of a member; a name that can be none is written as one segment."""
        home = format_href(self.request.path, is_directory=True)
        name = member.name.removeprefix("./").removesuffix("/")
        is_plain = not any(part in {"", ".", ".."} for part in name.split("/"))
        link = quote(name.encode("utf-8", "surrogateescape"), safe=HREF_SAFE + "/" if is_plain else "")
        return f"{home}{link}{'/' if member.is_directory else ''}"

    def _take(self, reader: TarReader, member: Member, outcome: Outcome) -> None:
        if self._down is not None:
            raise self._down
        if member.strange:
            raise InvalidRequestError(f"{member.strange} is not kept here")
        path = self._place(member)
        self.request.demand_right(Verb.WRITE, path)
        self._wait_for(path)
        makes_parents = _makes_parents(member)
        if member.is_directory:
            if makes_parents:
                self._make_directories(path[:-1])
            self._begin_directory(path, outcome)
            return
        digests = Digests(None, member.wish("digest"), None)
        order = _Order(path, member, self._condition(member), digests, makes_parents)
        if member.size_bytes <= SMALL_BYTES:
            self._hold(order, b"".join(reader.content()), outcome)
        else:
            if makes_parents:
                self._make_directories(path[:-1])
            outcome.entry, outcome.is_new = self._store(order, reader.content())

    def _fail(self, outcome: Outcome, error: HeleniteError) -> None:
        """When the cluster does not answer, what follows is refused at once: it would wait as long, one by one."""
        outcome.error = error
        if isinstance(error, UnavailableError):
            self._down = error

    def _place(self, member: Member) -> Path:
        if member.name.startswith("/"):
            raise InvalidRequestError("a member's name is relative to the collection")
        name = member.name.removeprefix("./").removesuffix("/")
        path = (*self.request.path, *map(validate_name, name.split("/")))
        if len(path) > DEPTH_MAX:
            raise InvalidRequestError(f"a path has at most {DEPTH_MAX} levels, this one {len(path)}")
        return path

    def _condition(self, member: Member) -> Condition:
        """An ETag names id and revision, so nothing needs to be looked up."""
        match, none_match = member.wish("if-match"), member.wish("if-none-match")
        expect, entry_id, revision = Expect.ANY, 0, 0
        if none_match is not None and none_match.strip() != "*":
            raise InvalidRequestError("if-none-match of a member is *")
        if none_match is not None:
            expect = Expect.ABSENT
        elif match is not None and match.strip() == "*":
            expect = Expect.PRESENT
        elif match is not None:
            expect, (entry_id, revision) = Expect.EXACT, _parse_etag(match)
        tokens = submitted_tokens(self.request.if_lists)
        return Condition(expect, EntryId(entry_id), Sequence(revision), tokens, self.request.principal)

    # Directories

    def _begin_directory(self, path: Path, outcome: Outcome) -> None:
        """Have a directory made, with others that come next to one another."""
        if len(self._making) >= HELD_MAX:
            self._collect_directories()
        self._making[path] = outcome, self.request.provider.bundling.submit(self._make_directory, path)

    def _collect_directories(self) -> None:
        """Wait for those that are being made."""
        making, self._making = self._making, {}
        for path, (outcome, future) in making.items():
            try:
                outcome.entry, outcome.is_new = future.result()
                self._known.add(path)
            except HeleniteError as error:
                self._fail(outcome, error)

    def _make_directories(self, path: Path) -> None:
        """The directories down to `path`, where they are missing."""
        for length in range(len(self.request.path) + 1, len(path) + 1):
            directory = path[:length]
            if directory not in self._known and not self.request.file_system.exists(directory):
                self._make_directory(directory)
            self._known.add(directory)

    def _make_directory(self, path: Path) -> tuple[Entry, bool]:
        """The directory, and whether it is new; EntryExistsError when a file is in its place."""
        condition = Condition(tokens=submitted_tokens(self.request.if_lists), principal=self.request.principal)
        try:
            entry, is_new = self.request.file_system.make_directory(path, condition=condition), True
        except EntryExistsError:
            entry, is_new = self.request.file_system.stat(path), False
            if not entry.is_directory:
                raise
        return entry, is_new

    # Files

    def _hold(self, order: _Order, content: bytes, outcome: Outcome) -> None:
        """Keep a small file until there are more of them."""
        order.digests.update(content)
        order.digests.verify()
        if len(self._group.orders) >= SMALL_FILES_MAX or self._group.size_bytes + len(content) > GROUP_BYTES_MAX:
            self._send_group()
        self._group.add(order, content, outcome)

    def _wait_for(self, path: Path) -> None:
        """Members that name the same place, or one above or beneath, are stored one after the other."""
        if not self._making.keys().isdisjoint(path[:end] for end in range(1, len(path) + 1)):
            self._collect_directories()
        if self._group.concerns(path) or (self._storing is not None and self._storing[0].concerns(path)):
            self.finish()

    def _send_group(self) -> None:
        """Have the files that are held stored, while the next ones come."""
        self._collect()
        group, self._group = self._group, _Group()
        if group.orders:
            self._storing = group, self.request.provider.bundling.submit(self._store_group, group)

    def _collect(self) -> None:
        """Wait for the group that is being stored."""
        if self._storing is None:
            return
        (group, future), self._storing = self._storing, None
        for outcome, stored in zip(group.outcomes, future.result(), strict=True):
            if isinstance(stored, HeleniteError):
                self._fail(outcome, stored)
            else:
                outcome.entry, outcome.is_new = stored

    def _store_group(self, group: _Group) -> list[Stored]:
        files = [
            SmallFile(order.path, content, order.condition, order.member.modified_at_ms, order.digests.sha256)
            for order, content in zip(group.orders, group.contents, strict=True)
        ]
        stored = self._create(files)
        self._store_again(group.orders, files, stored)
        return [self._finish_small(order, found) for order, found in zip(group.orders, stored, strict=True)]

    def _store_again(self, orders: list[_Order], files: list[SmallFile], stored: list[Stored]) -> None:
        """Store the files whose directories turned out to be missing, when these are made; few are."""
        homeless = [
            number
            for number, found in enumerate(stored)
            if isinstance(found, ParentNotFoundError) and orders[number].makes_parents
        ]
        housed: list[int] = []
        down: UnavailableError | None = None
        for number in homeless:
            try:
                if down is not None:
                    raise down
                self._make_directories(files[number].path[:-1])
                housed.append(number)
            except HeleniteError as error:
                stored[number] = error
                down = error if isinstance(error, UnavailableError) else down
        for number, found in zip(housed, self._create([files[number] for number in housed]), strict=True):
            stored[number] = found

    def _create(self, files: list[SmallFile]) -> list[Stored]:
        try:
            return list(self.request.file_system.create_small(files)) if files else []
        except HeleniteError as error:
            return [error] * len(files)

    def _finish_small(self, order: _Order, stored: Stored) -> Stored:
        if isinstance(stored, HeleniteError):
            return stored
        try:
            self._keep_executable(order, is_new=stored[1])
        except HeleniteError as error:
            return error
        return stored

    def _store(self, order: _Order, pieces: Iterable[bytes]) -> tuple[Entry, bool]:
        """A whole PUT; nothing is visible before all of it is there and its digest agrees."""
        member, fs = order.member, self.request.file_system
        writing = fs.create(
            order.path, condition=order.condition, size_bytes=member.size_bytes, modified_at_ms=member.modified_at_ms
        )
        with writing as writer:
            for piece in pieces:
                writer.write(piece)
                order.digests.update(piece)
            order.digests.verify()
            entry, is_new = writer.commit(order.digests.sha256)
        self._keep_executable(order, is_new=is_new)
        return entry, is_new

    def _keep_executable(self, order: _Order, *, is_new: bool) -> None:
        """The bit is a property beside the content, which follows the file; it is set right after the commit."""
        fs, is_wanted = self.request.file_system, order.member.is_executable
        has_it = not is_new and EXECUTABLE in fs.lookup(order.path, with_properties=True).properties
        if has_it == is_wanted:
            return
        condition = Condition(tokens=order.condition.tokens, principal=order.condition.principal)
        if is_wanted:
            fs.set_properties(order.path, set_values={EXECUTABLE: EXECUTABLE_ELEMENT}, condition=condition)
        else:
            fs.set_properties(order.path, remove=(EXECUTABLE,), condition=condition)


def _makes_parents(member: Member) -> bool:
    """Whether the directories around a member are made where they are missing."""
    if_parent = member.wish("if-parent")
    if if_parent is not None and if_parent.strip() != "*":
        raise InvalidRequestError("if-parent of a member is *")
    return if_parent is None


def _parse_etag(header: str) -> tuple[int, int]:
    """Id and revision of one of our ETags; PreconditionFailedError when it is none of ours, so that nothing has it."""
    tags = parse_etags(header)
    if len(tags) != 1:
        raise InvalidRequestError("if-match of a member is one entity tag or *")
    is_weak, tag = tags[0]
    entry_id, _, revision = tag.partition("-")
    try:
        identity = int(entry_id, 16), int(revision, 16)
    except ValueError:
        identity = 0, 0
    if is_weak or f"{identity[0]:x}-{identity[1]:x}" != tag or max(identity) >= 1 << 64:
        raise PreconditionFailedError("the entity tag is not that of the file")
    return identity
