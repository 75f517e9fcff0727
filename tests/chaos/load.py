"""Random work of several clients through WebDAV, each answer held against the client's manifest.

Each client is a thread with a directory of its own, where it knows what must be; besides, all of them write shared
files (whoever reads one must find one whole content) and raise a shared counter under If-Match (no two may win).
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

from tests.chaos.findings import Failure, Findings
from tests.support.manifest import (
    LISTING,
    LISTING_HEADERS,
    MARKED_BYTES_MIN,
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
SHARED_FILES = 4
REQUEST_S = 60.0
SETTLE_S = 180.0
"""Longest wait for the drive to answer again after a request without an answer."""
PAUSE_S = 0.2
LOCK_S = 20
LOCK_BODY = (
    '<?xml version="1.0"?><lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype>'
    "</lockinfo>"
)


class NotAnsweredError(Exception):
    """The request failed; it has been noted."""


class Load:
    """One client."""

    def __init__(self, url: str, number: int, seed: int, findings: Findings) -> None:
        self.root = f"/client {number}"
        self.manifest = Manifest()
        self._rng = random.Random(f"{seed} {number}")
        self._findings = findings
        self._numbers = iter(range(number << 40, (number + 1) << 40))
        self._made = 0
        self._url = url
        self._client = httpx.Client(base_url=url, timeout=REQUEST_S)
        self._perhaps_locked_until = 0.0

    def run(self, stopping: threading.Event) -> None:
        """Work until told to stop; leaves no open question."""
        self._change("MKCOL", "", lambda tree: tree)
        while not stopping.is_set():
            work = self._rng.choices(list(WORK), [weight for weight, _ in WORK.values()])[0]
            with contextlib.suppress(NotAnsweredError):
                WORK[work][1](self)
            if len(self.manifest.worlds) > 1:
                self.settle()

    def close(self) -> None:
        self._client.close()

    def settle(self) -> None:
        """Read everything, as soon as the drive answers, and keep the world that is the real one."""
        deadline = time.monotonic() + SETTLE_S
        while True:
            try:
                actual = read_tree(self._client, self.root)
                break
            except httpx.HTTPError as error:
                self._renew()
                if time.monotonic() > deadline:
                    self._findings.violation(f"{self.root}: no answer for {SETTLE_S:.0f} s: {error!r}")
                    return
            threading.Event().wait(PAUSE_S)
        for line in self.manifest.settle(actual):
            self._findings.violation(f"{self.root}: {line}")
        if len(self.manifest.worlds) > 1:
            self.manifest.worlds = self.manifest.worlds[:1]

    # The parts of an operation

    def _renew(self) -> None:
        self._client.close()
        self._client = httpx.Client(base_url=self._url, timeout=REQUEST_S)

    def _ask(self, method: str, path: str, **options: object) -> httpx.Response:
        """One request; NotAnsweredError when it failed, which is noted."""
        began = time.monotonic()
        try:
            reply = self._client.request(method, quote(path), **options)  # type: ignore[arg-type]
            why = f"{reply.status_code} {reply.text.strip()[:300]}" if reply.status_code >= 500 else ""
        except httpx.HTTPError as error:
            self._renew()
            why = repr(error)
        ended = time.monotonic()
        if why:
            self._findings.failed(Failure(began, ended, f"{method} {path}", why))
            raise NotAnsweredError
        self._findings.done(method, ended - began)
        return reply

    def _change(self, method: str, path: str, effect: Effect, *, refusal: int = 0, **options: object) -> httpx.Response:
        """A request that changes the tree; `refusal` is the status that must come instead of a success."""
        try:
            reply = self._ask(method, self._at(path), **options)
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
        return {"Destination": self._url.rstrip("/") + quote(self._at(path))}

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
        tag = self._ask("HEAD", self._at(source)).headers.get("ETag", "")
        headers = {"X-Helenite-Source": quote(self._at(source)), "X-Helenite-Source-Match": tag}
        self._patch(path, content, f"take 0 {content.size}\n\n".encode(), headers)

    def _patch(self, path: str, content: Content, body: bytes, headers: dict[str, str]) -> None:
        tag = self._ask("HEAD", self._at(path)).headers.get("ETag", "")
        headers = {"Content-Type": "application/vnd.helenite.splice", "If-Match": tag, **headers}
        self._change("PATCH", path, put(path, content), content=body, headers=headers)

    def break_off(self) -> None:
        """The client goes away in the middle of an upload: what was there stays."""
        path = self._file()

        def half() -> Iterator[bytes]:
            yield self._content(100_000).whole()[: self._rng.randrange(1, 90_000)]
            raise httpx.WriteError("the client goes away")

        with contextlib.suppress(httpx.HTTPError):
            self._client.put(quote(self._at(path)), content=half(), headers={"Content-Length": "100000"})
            self._findings.violation(f"half of {path} was taken for the whole")
        self._renew()
        self._read(path)

    def get(self) -> None:
        self._read(self._file())

    def _read(self, path: str) -> None:
        content = self.manifest.tree[path]
        assert content is not None
        reply = self._ask("GET", self._at(path))
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
        reply = self._ask("GET", self._at(path), headers={"Range": f"bytes={start}-{end}"})
        if reply.status_code != 206 or reply.content != content.whole()[start : end + 1]:
            self._findings.violation(f"range {start}-{end} of {self._at(path)}: {reply.status_code}, wrong bytes")

    def look_around(self) -> None:
        path = self._directory()
        prefix = f"{path}/".lstrip("/")
        reply = self._ask("PROPFIND", f"{self._at(path)}/", headers=LISTING_HEADERS, content=LISTING)
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

    def lock(self) -> None:
        """Nobody writes a locked file without the token; its holder does. On a file of its own, outside the tree."""
        path = f"/locks/{self.root[1:]}"
        try:
            reply = self._ask("LOCK", path, content=LOCK_BODY, headers={"Timeout": f"Second-{LOCK_S}"})
        except NotAnsweredError:
            self._perhaps_locked_until = time.monotonic() + LOCK_S
            raise
        if reply.status_code == 423 and time.monotonic() < self._perhaps_locked_until + 1:
            return
        if not reply.is_success:
            self._findings.violation(f"LOCK {path}: {reply.status_code} {reply.text[:300]}")
            return
        token = reply.headers["Lock-Token"]
        self._perhaps_locked_until = time.monotonic() + LOCK_S
        for headers, status in (({}, 423), ({"If": f"({token})"}, 204)):
            reply = self._ask("PUT", path, content=b"locked", headers=headers)
            if reply.status_code != status and time.monotonic() < self._perhaps_locked_until - 1:
                self._findings.violation(f"PUT {path} {headers}: {reply.status_code}, not {status}")
        self._ask("UNLOCK", path, headers={"Lock-Token": token})
        self._perhaps_locked_until = 0.0

    # Shared between clients

    def write_shared(self) -> None:
        path = f"/shared/{self._rng.randrange(SHARED_FILES)}"
        reply = self._ask("PUT", path, content=self._content(MARKED_BYTES_MIN).whole())
        if not reply.is_success:
            self._findings.violation(f"PUT {path}: {reply.status_code} {reply.text[:300]}")

    def read_shared(self) -> None:
        path = f"/shared/{self._rng.randrange(SHARED_FILES)}"
        reply = self._ask("GET", path)
        if reply.status_code != 404 and identify(reply.content) is None:
            self._findings.violation(f"GET {path}: {reply.status_code}, {len(reply.content)} bytes, torn")

    def count(self) -> None:
        """Raise the shared counter; of those who found the same number only one may be told that it did."""
        found = self._ask("GET", "/shared/counter")
        value = int(found.content) + 1 if found.is_success else 1
        headers = {"If-Match": found.headers["ETag"]} if found.is_success else {"If-None-Match": "*"}
        try:
            reply = self._ask("PUT", "/shared/counter", content=str(value), headers=headers)
        except NotAnsweredError:
            with self._findings.lock:
                self._findings.open_increments += 1
            raise
        if reply.is_success:
            with self._findings.lock:
                self._findings.increments.append(value)
        elif reply.status_code != 412:
            self._findings.violation(f"counter: {reply.status_code} {reply.text[:300]}")


WORK: dict[str, tuple[int, Callable[[Load], None]]] = {
    "put_new": (12, Load.put_new),
    "overwrite": (10, Load.overwrite),
    "splice": (6, Load.splice),
    "take": (2, Load.take),
    "break_off": (2, Load.break_off),
    "get": (16, Load.get),
    "get_range": (8, Load.get_range),
    "look_around": (8, Load.look_around),
    "make_directory": (3, Load.make_directory),
    "delete": (5, Load.delete),
    "delete_directory": (1, Load.delete_directory),
    "move": (5, Load.move),
    "copy": (5, Load.copy),
    "move_directory": (2, Load.move_directory),
    "copy_directory": (1, Load.copy_directory),
    "lock": (3, Load.lock),
    "write_shared": (4, Load.write_shared),
    "read_shared": (6, Load.read_shared),
    "count": (5, Load.count),
}
"""How often each operation is chosen, against the others."""


def check_shared(client: httpx.Client, findings: Findings) -> None:
    """At the end: shared files are whole, and the counter tells of every acknowledged increment."""
    for number in range(SHARED_FILES):
        reply = client.get(f"/shared/{number}")
        if reply.status_code != 404 and identify(reply.content) is None:
            findings.violation(f"/shared/{number} is torn: {reply.status_code}, {len(reply.content)} bytes")
    reply = client.get("/shared/counter")
    value = int(reply.content) if reply.is_success else 0
    told = findings.increments
    if len(set(told)) != len(told):
        findings.violation(f"two clients were told that they raised the counter to the same number: {sorted(told)}")
    if not len(told) <= value <= len(told) + findings.open_increments:
        findings.violation(f"counter {value}; acknowledged {len(told)}, without answer {findings.open_increments}")
