"""Checksums that a client sends along with content: `Content-MD5`, `Repr-Digest` (RFC 9530), `OC-Checksum`.

Used by `writing`, `patching` and `intake`: computed while the content streams through, compared before the commit, so
that content that was damaged on its way never becomes visible. A SHA-256 that held is kept with the revision, and told
as `Repr-Digest` to who reads it (`reading`). Pure.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Callable
from typing import Protocol

from helenite.core.errors import DigestMismatchError, InvalidRequestError


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class _Adler32:
    """zlib's checksum in hashlib's shape; ownCloud clients offer it."""

    def __init__(self) -> None:
        self._value = 1

    def update(self, data: bytes, /) -> None:
        self._value = zlib.adler32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


_FACTORIES: dict[str, Callable[[], _Hash]] = {
    "md5": lambda: hashlib.md5(usedforsecurity=False),
    "sha": lambda: hashlib.sha1(usedforsecurity=False),
    "sha-256": hashlib.sha256,
    "sha-512": hashlib.sha512,
    "adler32": _Adler32,
}
_OC_NAMES = {"md5": "md5", "sha1": "sha", "sha256": "sha-256", "adler32": "adler32"}
_REPR_ITEM = re.compile(r"\s*([a-z0-9*._-]+)=:([A-Za-z0-9+/=]*):(?:;[^,]*)?\s*")


class Digests:
    """What a client expects its content to hash to; unknown algorithms are ignored, as RFC 9530 allows."""

    def __init__(self, content_md5: str | None, repr_digest: str | None, oc_checksum: str | None) -> None:
        expected: list[tuple[str, bytes]] = []
        if content_md5 is not None:
            expected.append(("md5", _from_base64(content_md5)))
        if repr_digest is not None:
            expected += _parse_repr_digest(repr_digest)
        if oc_checksum is not None:
            expected += _parse_oc_checksum(oc_checksum)
        self._expected = [(name, value, _FACTORIES[name]()) for name, value in expected if name in _FACTORIES]

    def update(self, data: bytes) -> None:
        """Take in the next piece of content."""
        for _, _, state in self._expected:
            state.update(data)

    @property
    def sha256(self) -> bytes:
        """The SHA-256 of what came, if the client announced one; to be asked after `verify`."""
        return next((state.digest() for name, _, state in self._expected if name == "sha-256"), b"")

    def verify(self) -> None:
        """DigestMismatchError when the content was not what the client meant to send."""
        for name, value, state in self._expected:
            if state.digest() != value:
                raise DigestMismatchError(f"the {name} of the content that arrived is not what was announced")


def format_repr_digest(sha256: bytes) -> str:
    """The value of `Repr-Digest` for a SHA-256."""
    return f"sha-256=:{base64.b64encode(sha256).decode()}:"


def parse_sha256(header: str | None) -> bytes:
    """The SHA-256 in a header of the form of `Repr-Digest`, empty when there is none."""
    found = {} if header is None else dict(_parse_repr_digest(header))
    digest = found.get("sha-256", b"")
    if len(digest) not in {0, hashlib.sha256().digest_size}:
        raise InvalidRequestError("a SHA-256 has 32 bytes")
    return digest


def wants_sha256(header: str | None) -> bool:
    """Whether a `Want-Repr-Digest` asks for SHA-256: a dictionary of preferences, of which 0 means no (section 4)."""
    items = (item.partition(";")[0].partition("=") for item in (header or "").split(","))
    return any(name.strip() == "sha-256" and preference.strip() != "0" for name, _, preference in items)


def _parse_repr_digest(header: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for item in header.split(","):
        match = _REPR_ITEM.fullmatch(item)
        if match is None:
            raise InvalidRequestError("the Repr-Digest header is malformed")
        found.append((match[1], _from_base64(match[2])))
    return found


def _parse_oc_checksum(header: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for item in header.split():
        name, colon, value = item.partition(":")
        algorithm = _OC_NAMES.get(name.lower())
        if not colon:
            raise InvalidRequestError("the OC-Checksum header is malformed")
        if algorithm is None:
            continue
        try:
            found.append((algorithm, bytes.fromhex(value)))
        except ValueError:
            raise InvalidRequestError("the OC-Checksum header is malformed") from None
    return found


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except ValueError:  # of which binascii.Error is one
        raise InvalidRequestError("a digest is not base64") from None
