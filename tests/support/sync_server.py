"""A server in memory behind the agent's port: conditional writes, ids, ETags, changes since a token, walk tags, trash.

What it can do is switchable, because servers differ. `hook` is called before and after each request, to let something
happen in between or to make the request fail, with or without its effect; in a bundle, before and after each member:
what is raised there breaks the bundle off, and of those before nobody is told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path as FilePath
from typing import TypeVar

from helenite.core.errors import (
    DigestMismatchError,
    EntryExistsError,
    EntryNotFoundError,
    HeleniteError,
    HistoryLostError,
    InvalidPathError,
    ParentNotFoundError,
    PreconditionFailedError,
    SequenceExpiredError,
    UnavailableError,
)
from helenite.core.paths import ROOT, Path
from syncagent.model import Kind, RemoteStamp
from syncagent.ports import Attributes, Changes, Fetching, Present, RemoteEntry, Sending, ServerIdentity, Upload

Answer = TypeVar("Answer")
WRITES = {"store", "make_directory", "move", "delete", "set_attributes"}


@dataclass(slots=True)
class Item:
    """An entry of the server."""

    id: int
    kind: Kind
    content: bytes = b""
    revision: int = 0
    mtime_ms: int = 0
    executable: bool = False
    parent: Item | None = None
    children: dict[str, Item] = field(default_factory=dict)

    @property
    def name(self) -> str:
        assert self.parent is not None
        return next(name for name, item in self.parent.children.items() if item is self)

    @property
    def path(self) -> Path:
        return () if self.parent is None else (*self.parent.path, self.name)

    def walk(self) -> Iterator[Item]:
        yield self
        for child in list(self.children.values()):
            yield from child.walk()

    def lineage(self) -> Iterator[Item]:
        """It and the directories around it."""
        item: Item | None = self
        while item is not None:
            yield item
            item = item.parent

    @property
    def is_attached(self) -> bool:
        return list(self.lineage())[-1].id == 1


class MemoryServer:
    """One server for any number of agents. `instance` tells it from others."""

    def __init__(
        self,
        *,
        tells_changes: bool = True,
        has_tags: bool = True,
        has_digests: bool = True,
        answer_max: int = 1000,
        group_max: int = 3,
    ) -> None:
        self.root = Item(1, Kind.DIRECTORY)
        self.tells_changes = tells_changes
        self.has_tags = has_tags
        self.has_digests = has_digests
        self.computes_digests = True
        self.names_all = True
        """As our gateway: changes name what is beneath, and there are walks."""
        self.answer_max = answer_max
        self.group_size = group_max
        self.instance = "server"
        self.fingerprint = "1"
        self.oldest = 0
        self.lost_at: int | None = None
        self.requests: dict[str, int] = {}
        self.trash: list[Item] = []
        self.old_contents: set[bytes] = set()
        self.hook: Callable[[str, str], None] = lambda _phase, _request: None
        self._items: dict[int, Item] = {1: self.root}
        self._sequence = 0
        self._log: list[tuple[int, Item, Item | None, str]] = []  # sequence, item, directory that it left, name there
        self._touched: set[int] = set()  # the sequences at which nothing but properties of a directory changed

    # Looking, for tests

    def listing(self) -> dict[str, bytes | None]:
        return {
            "/".join(item.path): None if item.kind is Kind.DIRECTORY else item.content
            for item in self.root.walk()
            if item is not self.root
        }

    def write_count(self) -> int:
        return sum(self.requests.get(name, 0) for name in WRITES)

    # Changing, as another client does

    def put(self, path: Path, content: bytes, kind: Kind = Kind.FILE) -> Item:
        found = self._find(path)
        if found is None:
            found = self._attach(self._directory(path[:-1]), path[-1], kind)
        else:
            self.old_contents.add(found.content)
        found.content = content
        found.mtime_ms = 1_600_000_000_000 + self._sequence
        self._touch(found)
        return found

    def make(self, path: Path) -> Item:
        return self._attach(self._directory(path[:-1]), path[-1], Kind.DIRECTORY)

    def rename(self, source: Path, target: Path) -> None:
        item = self._need(source)
        parent = self._directory(target[:-1])
        if self._find(target) is not None:
            raise EntryExistsError(str(target))
        if any(above is item for above in parent.lineage()):  # a request that comes late
            raise InvalidPathError(f"{target} is in what is to be moved there")
        assert item.parent is not None
        old_parent, old_name = item.parent, item.name
        del old_parent.children[old_name]
        item.parent = parent
        parent.children[target[-1]] = item
        self._note(item, old_parent, old_name)

    def remove(self, path: Path) -> None:
        item = self._need(path)
        assert item.parent is not None
        parent, name = item.parent, item.name
        del parent.children[name]
        item.parent = None
        self.trash.append(item)
        self._note(item, parent, name)

    def touch(self, path: Path) -> None:
        """Set some property of a directory: nothing has come to its place, and nothing is said of what is in it."""
        item = self._need(path)
        self._touched.add(self._sequence + 1)
        self._note(item, None, "")

    def lose_history(self) -> None:
        """Whoever has read anything so far has read what is lost."""
        self.lost_at = self._sequence
        self._note(self.root, None, "")

    def forget_changes(self) -> None:
        """All tokens so far are too old."""
        self.oldest = self._sequence + 1
        self._note(self.root, None, "")

    # Port

    def identity(self) -> ServerIdentity:
        return self._request("identity", lambda: ServerIdentity(self.instance, "r1", self.fingerprint))

    def token(self) -> str:
        return self._request("token", lambda: str(self._sequence) if self.tells_changes else "")

    def changes(self, since: str) -> Changes:
        return self._request("changes", lambda: self._changes(int(since)))

    def list(self, directory: Path) -> Sequence[RemoteEntry]:
        return self._request(
            "list", lambda: [self._entry(item) for item in self._directory(directory).children.values()]
        )

    def walk(self) -> Iterator[Sequence[RemoteEntry]] | None:
        return self._walk() if self.tells_changes and self.names_all else None

    def _walk(self) -> Iterator[Sequence[RemoteEntry]]:
        after: Path = ()
        while page := self._request("walk", partial(self._page, after)):
            yield page
            after = page[-1].path

    def _page(self, after: Path) -> Sequence[RemoteEntry]:
        placed = sorted((item.path, item.id) for item in self.root.walk() if item.path > after)
        return [self._entry(self._items[number]) for _, number in placed[: self.answer_max]]

    def walk_tag(self, directory: Path) -> str:
        return self._request("walk_tag", lambda: self._tag(self._need(directory)))

    def fetch(
        self,
        path: Path,
        expected: RemoteStamp,
        into: FilePath,
        present: Present | None = None,
        known: bytes | None = None,
    ) -> bytes:
        def fetch() -> bytes:
            item = self._expect(path, expected)
            into.write_bytes(item.content)
            return hashlib.sha256(item.content).digest()

        return self._request("fetch", fetch)

    def study(self, path: Path, stamp: RemoteStamp, digest: bytes, file: FilePath) -> None:
        """There is nothing to learn."""

    def store(self, path: Path, upload: Upload, replaces: RemoteStamp | None) -> RemoteStamp:
        # A link's target and a file's content may change until they are read; as a real server does, we compare.
        try:
            is_link = upload.kind is Kind.LINK
            content = str(upload.file.readlink()).encode() if is_link else upload.file.read_bytes()
        except OSError as error:
            raise EntryNotFoundError(str(error)) from error

        def store() -> RemoteStamp:
            if hashlib.sha256(content).digest() != upload.digest:
                raise DigestMismatchError(f"{path} changed while it was sent")
            if replaces is not None:
                item = self._expect(path, replaces)
                self.old_contents.add(item.content)
            elif self._find(path) is not None:
                raise EntryExistsError(str(path))
            else:
                item = self._attach(self._directory(path[:-1]), path[-1], upload.kind)
            item.content = content
            item.mtime_ms = upload.attributes.mtime_ms or 0
            item.executable = bool(upload.attributes.executable)
            self._touch(item)
            return self._stamp(item)

        return self._request("store", store)

    def group_max(self) -> int:
        return self.group_size

    def store_many(self, orders: Sequence[Sending]) -> Sequence[RemoteStamp | HeleniteError]:
        return self._bundle([partial(self.store, order.path, order.upload, order.replaces) for order in orders])

    def fetch_many(self, wanted: Sequence[Fetching]) -> Sequence[bytes | HeleniteError]:
        return self._bundle([partial(self.fetch, each.path, each.expected, each.into) for each in wanted])

    def make_directories(self, paths: Sequence[Path]) -> Sequence[RemoteStamp | HeleniteError]:
        return self._bundle([partial(self.make_directory, path) for path in paths])

    def digests(self, wanted: Sequence[tuple[Path, RemoteStamp]]) -> Sequence[bytes | HeleniteError | None]:
        found: list[bytes | HeleniteError | None] = []
        for path, expected in wanted:
            try:
                found.append(self._digest(path, expected))
            except HeleniteError as error:
                found.append(error)
        return found

    def _digest(self, path: Path, expected: RemoteStamp) -> bytes | None:
        def digest() -> bytes | None:
            content = self._expect(path, expected).content
            return hashlib.sha256(content).digest() if self.computes_digests else None

        return self._request("digest", digest)

    def make_directory(self, path: Path) -> RemoteStamp:
        return self._request("make_directory", lambda: self._stamp(self.make(path)))

    def move(self, source: Path, target: Path, expected: RemoteStamp) -> None:
        def move() -> None:
            self._expect(source, expected)
            self.rename(source, target)

        self._request("move", move)

    def delete(self, path: Path, expected: RemoteStamp, beneath: Mapping[Path, RemoteStamp]) -> None:
        def delete() -> None:
            item = self._expect(path, expected)
            if {inner.path: self._stamp(inner) for inner in item.walk() if inner is not item} != dict(beneath):
                raise PreconditionFailedError(f"{path} holds something else")
            self.remove(path)

        self._request("delete", delete)

    def set_attributes(self, path: Path, expected: RemoteStamp, attributes: Attributes) -> RemoteStamp:
        def set_them() -> RemoteStamp:
            item = self._expect(path, expected)
            item.mtime_ms = attributes.mtime_ms if attributes.mtime_ms is not None else item.mtime_ms
            item.executable = attributes.executable if attributes.executable is not None else item.executable
            self._note(item, None, "")
            return self._stamp(item)

        return self._request("set_attributes", set_them)

    # Inside

    def _request(self, name: str, act: Callable[[], Answer]) -> Answer:
        self.requests[name] = self.requests.get(name, 0) + 1
        self.hook("before", name)
        answer = act()
        self.hook("after", name)
        return answer

    def _bundle(self, acts: Sequence[Callable[[], Answer]]) -> list[Answer | HeleniteError]:
        """One request of many parts; what a part is refused for is its own, a lost connection is everybody's."""
        assert 1 <= len(acts) <= self.group_size

        def act_on_all() -> list[Answer | HeleniteError]:
            outcomes: list[Answer | HeleniteError] = []
            for act in acts:
                try:
                    outcomes.append(act())
                except UnavailableError:
                    raise
                except HeleniteError as error:
                    outcomes.append(error)
            return outcomes

        return self._request("bundle", act_on_all)

    def _changes(self, since: int) -> Changes:
        if self.lost_at is not None and since <= self.lost_at:
            raise HistoryLostError("restored")
        if since < self.oldest:
            raise SequenceExpiredError("too old")
        events = [event for event in self._log if event[0] > since][: self.answer_max]
        if any(self._is_back(item, left, name) for _, item, left, name in events):
            raise SequenceExpiredError("a directory went away and came back: our gateway takes two answers for that")
        token = events[-1][0] if events else since
        # As our gateway: what is beneath a directory that has arrived is named, so what is not named is not there.
        come = {
            item.id for number, item, left, _ in events if number not in self._touched and self._has_come(item, left)
        }
        told = [inner for _, item, _, _ in events for inner in (item.walk() if item.id in come else [item])]
        changed = {item.id: item for item in told if item.is_attached and item is not self.root}
        arrived = {item for item in come if self._items[item].is_attached}
        removed = []
        for _, _, parent, name in events:
            if parent is None or not parent.is_attached or name in parent.children:
                continue
            if not any(item.id in arrived for item in parent.lineage()):
                removed.append((*parent.path, name))
        entries = [self._entry(item) for item in changed.values()]
        return Changes(
            str(token), entries, removed, is_complete=token == self._sequence or not events, names_all=self.names_all
        )

    def _is_back(self, item: Item, left: Item | None, name: str) -> bool:
        """Whether a directory is where it has left."""
        if left is None or not self.names_all:
            return False
        return item.kind is Kind.DIRECTORY and left.children.get(name) is item

    def _has_come(self, item: Item, left: Item | None) -> bool:
        """Whether an event brings something to its place: of a directory the only others are those of the root."""
        is_new_directory = item.kind is Kind.DIRECTORY and item is not self.root
        return self.names_all and (left is not None or is_new_directory)

    def _entry(self, item: Item) -> RemoteEntry:
        is_directory = item.kind is Kind.DIRECTORY
        digest = hashlib.sha256(item.content).digest() if self.has_digests and not is_directory else None
        return RemoteEntry(item.path, item.kind, self._stamp(item), digest, self._tag(item) if is_directory else "")

    def _tag(self, item: Item) -> str:
        if not self.has_tags:
            return ""
        inside = {inner.id for inner in item.walk()}
        last = [
            event for event in self._log if event[1].id in inside or (event[2] is not None and event[2].id in inside)
        ]
        return f"t{last[-1][0]}" if last else "t0"

    def _stamp(self, item: Item) -> RemoteStamp:
        if item.kind is Kind.DIRECTORY:
            return RemoteStamp(f"r{item.id}")
        return RemoteStamp(f"r{item.id}", f"e{item.revision}", len(item.content), item.mtime_ms, item.executable)

    def _find(self, path: Path) -> Item | None:
        item: Item | None = self.root
        for name in path:
            item = None if item is None else item.children.get(name)
        return item

    def _need(self, path: Path) -> Item:
        found = self._find(path)
        if found is None:
            raise EntryNotFoundError(str(path))
        return found

    def _directory(self, path: Path) -> Item:
        found = self._find(path)
        if found is None or found.kind is not Kind.DIRECTORY:
            raise ParentNotFoundError(str(path)) if path != ROOT else AssertionError
        return found

    def _expect(self, path: Path, expected: RemoteStamp) -> Item:
        item = self._need(path)
        found = self._stamp(item)
        if (found.resource, found.etag) != (expected.resource, expected.etag):
            raise PreconditionFailedError(f"{path} is another revision")
        return item

    def _attach(self, parent: Item, name: str, kind: Kind) -> Item:
        if name in parent.children:
            raise EntryExistsError(name)
        item = Item(max(self._items) + 1, kind, parent=parent)
        self._items[item.id] = item
        parent.children[name] = item
        self._note(item, None, "")
        return item

    def _touch(self, item: Item) -> None:
        self._note(item, None, "")
        item.revision = self._sequence

    def _note(self, item: Item, left: Item | None, name: str) -> None:
        self._sequence += 1
        self._log.append((self._sequence, item, left, name))
