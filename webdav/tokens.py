"""Sync tokens (RFC 6578 section 3.2): a position in the feed as an opaque URI, and what it means.

Used by `syncing` and by the property `sync-token`. A token names the cluster, so that that of another is refused. Where
a report was truncated in the middle of a directory, the token also says where to go on. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from helenite.core.errors import InvalidPathError, SequenceExpiredError
from helenite.core.model import Sequence
from helenite.core.paths import DEPTH_MAX, Path, validate_name

PREFIX = "urn:x-helenite:sync:"
TOKEN_CHARS_MAX = 32 * 1024
"""A path of many long names fits."""

_TOKEN = re.compile(r"([^:]*):([0-9a-f]{1,16})(~?)(?::([0-9]{1,3}):([^:]*))?")


@dataclass(frozen=True, slots=True)
class Walk:
    """In the middle of a tree: `after` is the last path that was told, its first `depth` names lead to the tree."""

    after: Path
    depth: int

    @property
    def root(self) -> Path:
        return self.after[: self.depth]


@dataclass(frozen=True, slots=True)
class Token:
    """What a client knows: all changes up to `sequence`.

    `is_half`: of the last one only that what it replaced is gone. With `walk` not everything in a tree was told yet.
    """

    sequence: Sequence
    is_half: bool = False
    walk: Walk | None = None


def format_token(token: Token, cluster_id: str) -> str:
    """The URI."""
    text = f"{PREFIX}{cluster_id}:{token.sequence:x}{'~' if token.is_half else ''}"
    if token.walk is None:
        return text
    return f"{text}:{token.walk.depth}:{'/'.join(quote(name, safe='') for name in token.walk.after)}"


def parse_token(text: str, cluster_id: str) -> Token:
    """The token of a URI; SequenceExpiredError (the RFC's `valid-sync-token`) when this cluster never gave it out."""
    match = _TOKEN.fullmatch(text.removeprefix(PREFIX)) if text.startswith(PREFIX) else None
    if match is None or len(text) > TOKEN_CHARS_MAX or match[1] != cluster_id:
        raise SequenceExpiredError("this token is not of this cluster; list the collection again")
    return Token(Sequence(int(match[2], 16)), bool(match[3]), _parse_walk(match[4], match[5]))


def _parse_walk(depth: str | None, after: str | None) -> Walk | None:
    if depth is None or after is None:
        return None
    try:
        names = tuple(validate_name(unquote_to_bytes(name).decode()) for name in after.split("/"))
    except (InvalidPathError, UnicodeError):
        names = ()
    if not int(depth) <= len(names) <= DEPTH_MAX or not names:
        raise SequenceExpiredError("this token is damaged; list the collection again")
    return Walk(names, int(depth))
