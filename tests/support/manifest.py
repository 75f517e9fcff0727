"""What a client was told, kept so that it can be held against what the drive says afterwards.

A client owns a directory and works in it one operation after the other. Its manifest holds the *worlds* that the
answers allow: an acknowledged operation changes each world, a refused one none, and an operation without an answer
doubles them, for it happened or it did not. At any time the real tree must equal one of the worlds, whole files
included; a tree that equals none has lost, kept or mixed something that it must not.

Contents follow from a number and a size, so that nothing but these two is remembered. A manifest is one thread's.
"""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, unquote
from xml.etree import ElementTree

import httpx
import xxhash

_MARK = struct.Struct(">8sQQ")
_MAGIC = b"MANIFEST"
MARKED_BYTES_MIN = _MARK.size
"""Contents of at least this size say themselves which they are."""
WORLDS_MAX = 64
"""More open questions than these mean that nobody settles them."""


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of a file, by number and size."""

    number: int
    size: int

    def whole(self) -> bytes:
        mark = _MARK.pack(_MAGIC, self.number, self.size)[: self.size]
        return mark + random.Random(self.number).randbytes(self.size - len(mark))

    def digest(self) -> Digest:
        return _digest_of(self)


@dataclass(frozen=True, slots=True)
class Digest:
    """What is compared: size and xxh3-128."""

    size: int
    sum: str

    @classmethod
    def of(cls, content: bytes) -> Digest:
        return cls(len(content), xxhash.xxh3_128_hexdigest(content))


@lru_cache(maxsize=4096)  # what a few clients hold at a time
def _digest_of(content: Content) -> Digest:
    return Digest.of(content.whole())


def identify(content: bytes) -> Content | None:
    """Which marked content these bytes are, in whole; None when they are none: torn, mixed or foreign."""
    if len(content) < MARKED_BYTES_MIN:
        return None
    magic, number, size = _MARK.unpack_from(content)
    if magic != _MAGIC or size != len(content):
        return None
    found = Content(number, size)
    return found if found.whole() == content else None


Tree = dict[str, Content | None]
"""Paths beneath a client's directory, without slash at the start or end; None is a directory."""
Effect = Callable[[Tree], Tree]
"""What an operation does to a tree when it happens. Must not change its argument."""


def put(path: str, content: Content) -> Effect:
    return lambda tree: tree | {path: content}


def make_directory(path: str) -> Effect:
    return lambda tree: tree | {path: None}


def remove(path: str) -> Effect:
    return lambda tree: {at: what for at, what in tree.items() if not _is_within(at, path)}


def copy(source: str, target: str) -> Effect:
    """A copy with everything beneath it; what was at the target is replaced."""
    return lambda tree: (
        remove(target)(tree)
        | {target + at.removeprefix(source): what for at, what in tree.items() if _is_within(at, source)}
    )


def move(source: str, target: str) -> Effect:
    return lambda tree: remove(source)(copy(source, target)(tree))


def _is_within(path: str, top: str) -> bool:
    return path == top or path.startswith(top + "/")


class Manifest:
    """The worlds that one client's answers allow."""

    def __init__(self) -> None:
        self.worlds: list[Tree] = [{}]

    @property
    def tree(self) -> Tree:
        """The one world that is left; settle before asking."""
        assert len(self.worlds) == 1, f"{len(self.worlds)} worlds"
        return self.worlds[0]

    def happened(self, effect: Effect) -> None:
        """It was acknowledged."""
        self.worlds = [effect(world) for world in self.worlds]

    def may_have_happened(self, effect: Effect) -> None:
        """No answer came, or one that leaves it open."""
        for world in list(self.worlds):
            changed = effect(world)
            if changed not in self.worlds:
                self.worlds.append(changed)
        assert len(self.worlds) <= WORLDS_MAX

    def settle(self, actual: dict[str, Digest | None]) -> list[str]:
        """Keep the world that is the real one; the differences to the nearest world when none is."""
        found = [world for world in self.worlds if _digests(world) == actual]
        if found:
            self.worlds = found[:1]
            return []
        return min((differences(world, actual) for world in self.worlds), key=len)


def _digests(tree: Tree) -> dict[str, Digest | None]:
    return {path: None if content is None else content.digest() for path, content in tree.items()}


def differences(expected: Tree, actual: dict[str, Digest | None]) -> list[str]:
    """In sentences, for people who search the reason."""
    wanted = _digests(expected)
    lines = [f"missing: {path} ({expected[path]})" for path in sorted(wanted.keys() - actual.keys())]
    lines += [f"unexpected: {path} ({actual[path]})" for path in sorted(actual.keys() - wanted.keys())]
    lines += [
        f"wrong content: {path} is {actual[path]} and not {expected[path]} ({wanted[path]})"
        for path in sorted(wanted.keys() & actual.keys())
        if wanted[path] != actual[path]
    ]
    return lines


LISTING = '<?xml version="1.0"?><propfind xmlns="DAV:"><prop><resourcetype/><getcontentlength/></prop></propfind>'
LISTING_HEADERS = {"Depth": "1"}


def list_directory(client: httpx.Client, path: str) -> dict[str, int | None]:
    """Members of a directory by name: their sizes, None for directories; raises HTTPStatusError unless it is there."""
    reply = client.request("PROPFIND", quote(path) + "/", headers=LISTING_HEADERS, content=LISTING)
    reply.raise_for_status()
    return parse_listing(reply, path)


def parse_listing(reply: httpx.Response, path: str) -> dict[str, int | None]:
    """What a reply to LISTING says of the members of `path`."""
    found: dict[str, int | None] = {}
    for response in ElementTree.fromstring(reply.content).iterfind("{DAV:}response"):
        href = unquote(re.sub(r"^https?://[^/]+", "", response.findtext("{DAV:}href") or "")).rstrip("/")
        if href != path:
            is_directory = response.find(".//{DAV:}resourcetype/{DAV:}collection") is not None
            found[href.rpartition("/")[2]] = (
                None if is_directory else int(response.findtext(".//{DAV:}getcontentlength") or 0)
            )
    return found


def read_tree(client: httpx.Client, root: str) -> dict[str, Digest | None]:
    """Everything beneath `root` as the drive has it, every byte read."""
    found: dict[str, Digest | None] = {}
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        for name, size in list_directory(client, root + directory).items():
            path = f"{directory}/{name}"
            if size is None:
                found[path[1:]] = None
                waiting.append(path)
            else:
                reply = client.get(quote(root + path))
                reply.raise_for_status()
                found[path[1:]] = Digest.of(reply.content)
    return found
