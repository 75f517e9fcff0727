"""People who each work in a directory of their own, and a server of which nobody knows for certain what it has done.

Nobody changes what is another's, so at the end each file must have the name and the content that its person gave it
last, and nothing else may be there. `UnsureServer` stands between one agent and a `MemoryServer` and loses answers as
a cluster does whose processes die: what was asked for is done and nobody is told, or it is not done, or it is done some
time later, when the agent has been told that nobody knows and has looked again; of a bundle each member by itself.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path as FilePath
from random import Random
from typing import Any, TypeVar

from helenite.core.errors import HeleniteError, UnavailableError
from helenite.core.paths import Path
from syncagent.model import RemoteStamp
from syncagent.ports import Attributes, Sending, Upload
from tests.support.sync_server import MemoryServer
from tests.support.sync_world import Listing

Answer = TypeVar("Answer")


class UnsureServer:
    """A server whose answers get lost, as one agent sees it. The rest of the port is the server's own."""

    def __init__(self, server: MemoryServer, random: Random, scratch: FilePath) -> None:
        self._server = server
        self._random = random
        self._scratch = scratch
        self._sent = 0
        self.share = 0.0
        """Of requests that are not answered."""
        self.pending: list[Callable[[], object]] = []
        """What is done later, in any order."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    def do_some(self, count: int) -> None:
        """Some of what is pending is done now; whoever asked for it is not told."""
        while self.pending and count:
            count -= 1
            act = self.pending.pop(self._random.randrange(len(self.pending)))
            with contextlib.suppress(HeleniteError):
                act()

    def store(self, path: Path, upload: Upload, replaces: RemoteStamp | None) -> RemoteStamp:
        upload = self._as_it_is(upload)
        return self._ask(lambda: self._server.store(path, upload, replaces))

    def store_many(self, orders: Sequence[Sending]) -> Sequence[RemoteStamp | HeleniteError]:
        sent = [replace(order, upload=self._as_it_is(order.upload)) for order in orders]
        return self._ask_many([partial(self._server.store, order.path, order.upload, order.replaces) for order in sent])

    def make_directory(self, path: Path) -> RemoteStamp:
        return self._ask(lambda: self._server.make_directory(path))

    def make_directories(self, paths: Sequence[Path]) -> Sequence[RemoteStamp | HeleniteError]:
        return self._ask_many([partial(self._server.make_directory, path) for path in paths])

    def move(self, source: Path, target: Path, expected: RemoteStamp) -> None:
        self._ask(lambda: self._server.move(source, target, expected))

    def delete(self, path: Path, expected: RemoteStamp, beneath: Any) -> None:
        self._ask(lambda: self._server.delete(path, expected, beneath))

    def set_attributes(self, path: Path, expected: RemoteStamp, attributes: Attributes) -> RemoteStamp:
        return self._ask(lambda: self._server.set_attributes(path, expected, attributes))

    def _ask(self, act: Callable[[], Answer]) -> Answer:
        if self._random.random() >= self.share:
            return act()
        match self._random.choice(("done", "not done", "done later")):
            case "done":
                act()
            case "done later":
                self.pending.append(act)
        raise UnavailableError("nobody knows what came of it")

    def _ask_many(self, acts: Sequence[Callable[[], Answer]]) -> Sequence[Answer | HeleniteError]:
        """What befalls one befalls most of those that follow, too."""
        outcomes: list[Answer | HeleniteError] = []
        for act in acts:
            try:
                outcomes.append(self._ask(act))
            except HeleniteError as error:
                outcomes.append(error)
        if self._random.random() < self.share:
            raise UnavailableError("nobody knows what came of any of them")
        return outcomes

    def _as_it_is(self, upload: Upload) -> Upload:
        """What was sent is what the file was then, however late it arrives."""
        self._sent += 1
        copy = self._scratch / f"sent {self._sent}"
        with contextlib.suppress(OSError):
            shutil.copyfile(upload.file, copy)
        return replace(upload, file=copy)


class Person:
    """Works in one directory of one agent's folder."""

    def __init__(self, folder: FilePath, name: str, random: Random) -> None:
        self._folder = folder
        self._name = name
        self._random = random
        self._top = name
        self._tree: Listing = {}
        self._count = 0
        self.hints: set[Path] = set()
        """The directories in which something was changed, as a watcher tells them."""
        self._new_directory(name)

    @property
    def tree(self) -> Listing:
        """What the person has."""
        return dict(self._tree)

    def work(self, count: int) -> None:
        """Do some things, at once."""
        verbs = (self._write, self._write, self._edit, self._rename, self._move, self._remove)
        places = (self._make, self._rename_directory, self._rename_all, self._replace_directory)
        for _ in range(count):
            self._random.choice((*verbs, *places))()

    def _files(self) -> list[str]:
        return sorted(path for path, content in self._tree.items() if content is not None)

    def _directories(self) -> list[str]:
        return sorted(path for path, content in self._tree.items() if content is None)

    def _free(self, directory: str) -> str | None:
        """A name that nobody has; there are few, so that they are used again."""
        names = [f"{directory}/{name}" for name in "abcdef"]
        free = [name for name in names if not (self._folder / name).exists()]
        return self._random.choice(free) if free else None

    def _somewhere(self) -> str | None:
        return self._free(self._random.choice(self._directories()))

    def _content(self) -> bytes:
        self._count += 1
        return f"{self._name} {self._count} ".encode() * self._random.randrange(1, 4)

    def _put(self, path: str) -> None:
        self._hint(path)
        content = self._tree[path] = self._content()
        (self._folder / path).write_bytes(content)

    def _hint(self, path: str) -> None:
        self.hints.add(tuple(path.split("/")[:-1]))

    def _rename_to(self, old: str, new: str) -> None:
        self._hint(old)
        self._hint(new)
        (self._folder / old).rename(self._folder / new)
        for path in [path for path in self._tree if path == old or path.startswith(f"{old}/")]:
            self._tree[new + path[len(old) :]] = self._tree.pop(path)

    def _write(self) -> None:
        if path := self._somewhere():
            self._put(path)

    def _edit(self) -> None:
        if files := self._files():
            self._put(self._random.choice(files))

    def _rename(self) -> None:
        """Another name in its directory."""
        if files := self._files():
            old = self._random.choice(files)
            if new := self._free(old.rpartition("/")[0]):
                self._rename_to(old, new)

    def _move(self) -> None:
        files, new = self._files(), self._somewhere()
        if files and new:
            self._rename_to(self._random.choice(files), new)

    def _remove(self) -> None:
        if files := self._files():
            path = self._random.choice(files)
            self._hint(path)
            del self._tree[path]
            (self._folder / path).unlink()

    def _make(self) -> None:
        if (path := self._somewhere()) and path.count("/") < 3:
            self._new_directory(path)

    def _new_directory(self, path: str) -> None:
        self._hint(path)
        self._tree[path] = None
        (self._folder / path).mkdir()

    def _rename_directory(self) -> str:
        """Another name for one of them; the old one, or none."""
        inner = [path for path in self._directories() if path != self._top]
        if not inner:
            return ""
        old = self._random.choice(inner)
        new = self._somewhere()
        if new is None or f"{new}/".startswith(f"{old}/"):
            return ""
        self._rename_to(old, new)
        return old

    def _rename_all(self) -> None:
        self._count += 1
        new = f"{self._name} {self._random.choice((1, 2, self._count))}"
        if not (self._folder / new).exists():
            self._rename_to(self._top, new)
            self._top = new

    def _replace_directory(self) -> None:
        """Make another one of the name that one has just had."""
        old = self._rename_directory()
        if old and not (self._folder / old).exists() and old.rpartition("/")[0] in self._tree:
            self._new_directory(old)
