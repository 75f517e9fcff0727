"""Random work of several clients through WebDAV, each answer held against the client's manifest.

Each client is a thread with a directory of its own, where it knows what must be; besides, all of them work in one
place (`shared`): whoever reads a file there must find one whole content, and no two may raise a counter to one number.
What goes wrong is either a *failure*, a request that got no answer or a 5xx, which some faults excuse, or a
*violation*, which nothing excuses.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from urllib.parse import quote

import httpx

from tests.chaos.drive import Drive, NotAnsweredError
from tests.chaos.findings import Findings
from tests.chaos.shared import Shared
from tests.support.manifest import (
    LISTING,
    LISTING_HEADERS,
    Content,
    Effect,
    Manifest,
    copy,
    identify,
    make_directory,
    move,
    parse_listing,
    put,
    read_tree,
    remove,
)

SIZES = (0, 1, 100, 4_096, 4_097, 65_536, 70_000, 1_000_000, 1_048_577, 3_000_000, 9_000_000)
FILES_MAX = 40
"""A client with more deletes before it writes, so that a long run stays on a small disk."""
DIRECTORIES_MAX = 12
SETTLE_S = 180.0
"""Longest wait for the drive to answer again after a request without an answer."""
PAUSE_S = 0.2


class Load:
    """One client."""

    def __init__(self, url: str, number: int, seed: int, findings: Findings) -> None:
        self.root = f"/client {number}"
        self.manifest = Manifest()
        self._rng = random.Random(f"{seed} {number}")
        self._findings = findings
        self._numbers = iter(range(number << 40, (number + 1) << 40))
        self._made = 0
        self._drive = Drive(url, findings)
        self.shared = Shared(self._drive, self.root[1:], self._rng, findings, self._content)

    def run(self, stopping: threading.Event) -> None:
        """Work until told to stop; leaves no open question."""
        self._change("MKCOL", "", lambda tree: tree)
        while not stopping.is_set():
            [(_, work)] = self._rng.choices(WORK, [weight for weight, _ in WORK])
            with contextlib.suppress(NotAnsweredError):
                work(self)
            if len(self.manifest.worlds) > 1:
                self.settle()

    def close(self) -> None:
        self._drive.close()

    def settle(self) -> None:
        """Read everything, as soon as the drive answers, and keep the world that is the real one."""
        deadline = time.monotonic() + SETTLE_S
        while True:
            try:
                actual = read_tree(self._drive.client, self.root)
                break
            except httpx.HTTPError as error:
                self._drive.renew()
                if time.monotonic() > deadline:
                    self._findings.violation(f"{self.root}: no answer for {SETTLE_S:.0f} s: {error!r}")
                    return
            threading.Event().wait(PAUSE_S)
        for line in self.manifest.settle(actual):
            self._findings.violation(f"{self.root}: {line}")
        if len(self.manifest.worlds) > 1:
            self.manifest.worlds = self.manifest.worlds[:1]

    # The parts of an operation

    def _change(self, method: str, path: str, effect: Effect, *, refusal: int = 0, **options: object) -> httpx.Response:
        """A request that changes the tree; `refusal` is the status that must come instead of a success."""
        try:
            reply = self._drive.ask(method, self._at(path), **options)
        except NotAnsweredError:
            self.manifest.may_have_happened(effect)
            raise
        if refusal and reply.status_code == refusal:
            return reply
        if refusal or not reply.is_success:
            self._findings.violation(f"{method} {self._at(path)}: {reply.status_code} {reply.text[:300]}")
        if reply.is_success:
            self.manifest.happened(effect)
        return reply

    def _at(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root

    def _destination(self, path: str) -> dict[str, str]:
        return {"Destination": self._drive.url + quote(self._at(path))}

    # What there is, what there is not

    def _content(self, smallest: int = 0) -> Content:
        size = self._rng.choice(SIZES)
        return Content(next(self._numbers), max(size, smallest))

    def _paths(self, *, directories: bool) -> list[str]:
        return [path for path, what in self.manifest.tree.items() if (what is None) == directories]

    def _file(self) -> str:
        files = self._paths(directories=False)
        if not files:
            raise NotAnsweredError  # nothing to do this with
        return self._rng.choice(files)

    def _directory(self) -> str:
        return self._rng.choice(["", *self._paths(directories=True)])

    def _fresh(self) -> str:
        self._made += 1
        parent = self._directory()
        if parent.count("/") > 3:
            parent = ""
        return f"{parent}/new {self._made}".lstrip("/")

    def _make_room(self) -> None:
        while len(self._paths(directories=False)) > FILES_MAX:
            self.delete()

    # The operations

    def put_new(self) -> None:
        self._make_room()
        path, content = self._fresh(), self._content()
        headers = {"If-None-Match": "*"} if self._rng.random() < 0.3 else {}
        self._put(path, content, headers)

    def overwrite(self) -> None:
        path, content = self._file(), self._content()
        reply = self._put(path, content, {})
        if "ETag" in reply.headers and self._rng.random() < 0.5:
            again = self._content()
            self._put(path, again, {"If-Match": reply.headers["ETag"]})
            self._put(path, self._content(), {"If-Match": reply.headers["ETag"]}, refusal=412)
            self._put(path, self._content(), {"If-None-Match": "*"}, refusal=412)

    def _put(self, path: str, content: Content, headers: dict[str, str], refusal: int = 0) -> httpx.Response:
        return self._change("PUT", path, put(path, content), refusal=refusal, content=content.whole(), headers=headers)

    def splice(self) -> None:
        """Put a file together anew, from ranges that it has and from the same bytes sent: it stays what it is."""
        path = self._file()
        content = self.manifest.tree[path]
        assert content is not None
        whole = content.whole()
        cuts = sorted(self._rng.randrange(content.size + 1) for _ in range(self._rng.randrange(8)))
        lines, sent = [], b""
        for start, end in pairwise([0, *cuts, content.size]):
            if self._rng.random() < 0.5:
                lines.append(f"keep {start} {end - start}\n")
            else:
                lines.append(f"new {end - start}\n")
                sent += whole[start:end]
        self._patch(path, content, "".join(lines).encode() + b"\n" + sent, {})

    def take(self) -> None:
        """A file becomes what another one is."""
        path, source = self._file(), self._file()
        content = self.manifest.tree[source]
        assert content is not None
        tag = self._drive.ask("HEAD", self._at(source)).headers.get("ETag", "")
        headers = {"X-Helenite-Source": quote(self._at(source)), "X-Helenite-Source-Match": tag}
        self._patch(path, content, f"take 0 {content.size}\n\n".encode(), headers)

    def _patch(self, path: str, content: Content, body: bytes, headers: dict[str, str]) -> None:
        tag = self._drive.ask("HEAD", self._at(path)).headers.get("ETag", "")
        headers = {"Content-Type": "application/vnd.helenite.splice", "If-Match": tag, **headers}
        self._change("PATCH", path, put(path, content), content=body, headers=headers)

    def break_off(self) -> None:
        """The client goes away in the middle of an upload: what was there stays."""
        path = self._file()

        def half() -> Iterator[bytes]:
            yield self._content(100_000).whole()[: self._rng.randrange(1, 90_000)]
            raise httpx.WriteError("the client goes away")

        with contextlib.suppress(httpx.HTTPError):
            self._drive.client.put(quote(self._at(path)), content=half(), headers={"Content-Length": "100000"})
            self._findings.violation(f"half of {path} was taken for the whole")
        self._drive.renew()
        self._read(path)

    def get(self) -> None:
        self._read(self._file())

    def _read(self, path: str) -> None:
        content = self.manifest.tree[path]
        assert content is not None
        reply = self._drive.ask("GET", self._at(path))
        if not reply.is_success or reply.content != content.whole():
            self._findings.violation(self._wrong(path, content, reply))

    def _wrong(self, path: str, content: Content, reply: httpx.Response) -> str:
        found = identify(reply.content) if reply.is_success else None
        return (
            f"GET {self._at(path)}: {reply.status_code}, {len(reply.content)} bytes, which are {found}, not {content}"
        )

    def get_range(self) -> None:
        path = self._file()
        content = self.manifest.tree[path]
        assert content is not None
        if content.size < 2:
            return
        start = self._rng.randrange(content.size)
        end = self._rng.randrange(start, content.size)
        reply = self._drive.ask("GET", self._at(path), headers={"Range": f"bytes={start}-{end}"})
        if reply.status_code != 206 or reply.content != content.whole()[start : end + 1]:
            self._findings.violation(f"range {start}-{end} of {self._at(path)}: {reply.status_code}, wrong bytes")

    def look_around(self) -> None:
        path = self._directory()
        prefix = f"{path}/".lstrip("/")
        reply = self._drive.ask("PROPFIND", f"{self._at(path)}/", headers=LISTING_HEADERS, content=LISTING)
        if reply.status_code != 207:
            self._findings.violation(f"listing of {self._at(path)}: {reply.status_code} {reply.text[:300]}")
            return
        found = parse_listing(reply, self._at(path))
        expected = {
            at.removeprefix(prefix): None if what is None else what.size
            for at, what in self.manifest.tree.items()
            if at.startswith(prefix) and "/" not in at.removeprefix(prefix)
        }
        if found != expected:
            self._findings.violation(f"listing of {self._at(path)} is {found}, not {expected}")

    def make_directory(self) -> None:
        if len(self._paths(directories=True)) < DIRECTORIES_MAX:
            path = self._fresh()
            self._change("MKCOL", path, make_directory(path))

    def delete(self) -> None:
        path = self._file()
        self._change("DELETE", path, remove(path))

    def delete_directory(self) -> None:
        paths = self._paths(directories=True)
        if paths:
            path = self._rng.choice(paths)
            self._change("DELETE", path, remove(path))

    def move(self) -> None:
        self._relocate("MOVE", self._file(), move)

    def copy(self) -> None:
        self._make_room()
        self._relocate("COPY", self._file(), copy)

    def move_directory(self) -> None:
        paths = self._paths(directories=True)
        if paths:
            self._relocate("MOVE", self._rng.choice(paths), move)

    def copy_directory(self) -> None:
        self._make_room()
        paths = self._paths(directories=True)
        if paths and len(paths) < DIRECTORIES_MAX:
            self._relocate("COPY", self._rng.choice(paths), copy)

    def _relocate(self, method: str, source: str, effect: Callable[[str, str], Effect]) -> None:
        """To a free name, or over a file."""
        target = self._fresh()
        if self.manifest.tree[source] is not None and self._rng.random() < 0.3:
            target = self._file()
        if target == source or target.startswith(source + "/"):
            return
        self._change(method, source, effect(source, target), headers=self._destination(target))


WORK: tuple[tuple[int, Callable[[Load], None]], ...] = (
    (12, Load.put_new),
    (10, Load.overwrite),
    (6, Load.splice),
    (2, Load.take),
    (2, Load.break_off),
    (16, Load.get),
    (8, Load.get_range),
    (8, Load.look_around),
    (3, Load.make_directory),
    (5, Load.delete),
    (1, Load.delete_directory),
    (5, Load.move),
    (5, Load.copy),
    (2, Load.move_directory),
    (1, Load.copy_directory),
    (3, lambda load: load.shared.lock()),
    (4, lambda load: load.shared.write()),
    (6, lambda load: load.shared.read()),
    (5, lambda load: load.shared.count()),
)
"""How often each operation is chosen, against the others."""
