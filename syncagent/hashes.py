"""Asks a server which SHA-256 a revision has: ours knows it, or reads the file and keeps it (RFC 9530 section 4).

Used by `remote`, so that equal files need not travel, and by `downloads`, so that what nobody else vouched for is
verified. Any thread.
"""

from __future__ import annotations

import base64
import re

from helenite.core.errors import PreconditionFailedError
from helenite.core.paths import Path, format_path
from syncagent.model import RemoteStamp
from syncagent.session import HASHED_BYTES_PER_S, SILENCE_S, Session

REPR_DIGEST = re.compile(r"\bsha-256=:([A-Za-z0-9+/]{43}=):")


def ask_digest(session: Session, path: Path, expected: RemoteStamp) -> bytes | None:
    """The digest of exactly this revision; None from a server that does not tell."""
    headers = {"If-Match": expected.etag, "Want-Repr-Digest": "sha-256=10"}
    silence_s = SILENCE_S + expected.size / HASHED_BYTES_PER_S
    response, _ = session.ask("HEAD", session.url(path), headers, silence_s=silence_s)
    if response.headers.get("ETag", "") != expected.etag:
        raise PreconditionFailedError(f"{format_path(path)} has another revision by now")
    return parse_digest(response.headers.get("Repr-Digest", ""))


def parse_digest(header: str) -> bytes | None:
    """The SHA-256 in a `Repr-Digest`."""
    told = REPR_DIGEST.search(header)
    return None if told is None else base64.b64decode(told[1])
