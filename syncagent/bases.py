"""What the agent remembers of large files, so that next time only the difference travels.

That is what the server's revision consists of, and the signature of its content. Written by `learning`, read by
`downloads` and `uploads`. One small file for each, named after the resource, replaced as a whole; losing one costs a
whole transfer and nothing else, so none is flushed, and one that cannot be read is none. Any thread.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from base64 import b64decode, b64encode
from dataclasses import dataclass
from pathlib import Path as FilePath

from helenite.core.model import ChunkHandle, Extent
from syncagent.signature import Signature, decode, encode

log = logging.getLogger(__name__)

BASES_MAX = 2000
"""Of one pair of folders; beyond, those that were written longest ago are forgotten."""


@dataclass(frozen=True, slots=True)
class Basis:
    """A revision on the server: its ETag, the SHA-256 of its content, its extents, and, if known, its signature."""

    etag: str
    digest: bytes
    extents: tuple[Extent, ...]
    signature: Signature | None = None


class Bases:
    """The remembered revisions of one pair of folders."""

    def __init__(self, directory: FilePath | None) -> None:
        """Without a directory nothing is remembered."""
        self._directory = directory
        self._lock = threading.Lock()  # guards that of two writers of one file the later wins

    def load(self, resource: str) -> Basis | None:
        """What is known of a resource."""
        if self._directory is None:
            return None
        try:
            return _from_json(json.loads(_file(self._directory, resource).read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.info("what was remembered of a large file cannot be used: %s", error)
            return None

    def save(self, resource: str, basis: Basis) -> None:
        """Remember a revision, instead of an earlier one of its resource."""
        with self._lock:
            self._write(resource, basis)

    def add_signature(self, resource: str, etag: str, signature: Signature) -> None:
        """Add to what is remembered of this very revision."""
        with self._lock:
            basis = self.load(resource)
            if basis is not None and basis.etag == etag:
                self._write(resource, Basis(etag, basis.digest, basis.extents, signature))

    def forget(self, resource: str) -> None:
        """What is remembered of it proved wrong."""
        with self._lock:
            if self._directory is not None:
                _file(self._directory, resource).unlink(missing_ok=True)

    def _write(self, resource: str, basis: Basis) -> None:
        if self._directory is None:
            return
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = _file(self._directory, resource)
            if not file.exists():
                _make_room(self._directory)
            fresh = file.with_suffix(".new")
            fresh.write_text(json.dumps(_to_json(basis)), encoding="ascii")
            fresh.replace(file)
        except OSError as error:
            log.warning("what a large file consists of cannot be remembered: %s", error)

    @property
    def have_room(self) -> bool:
        """Whether one more would push none out."""
        if self._directory is None:
            return False
        return not self._directory.exists() or sum(1 for _ in self._directory.iterdir()) < BASES_MAX

    @property
    def are_kept(self) -> bool:
        """Whether anything is remembered at all."""
        return self._directory is not None


def _make_room(directory: FilePath) -> None:
    files = list(directory.iterdir())
    if len(files) >= BASES_MAX:
        ages = sorted((file.stat().st_mtime_ns, file) for file in files)
        for _, file in ages[: len(files) - BASES_MAX + 1]:
            file.unlink(missing_ok=True)


def _file(directory: FilePath, resource: str) -> FilePath:
    return directory / hashlib.sha256(resource.encode()).hexdigest()[:32]


def _to_json(basis: Basis) -> dict[str, object]:
    signature = basis.signature
    return {
        "etag": basis.etag,
        "digest": basis.digest.hex(),
        "extents": [[extent.handle, extent.offset, extent.length] for extent in basis.extents],
        "average": None if signature is None else signature.average_bytes,
        "pieces": "" if signature is None else b64encode(encode(signature)).decode(),
    }


def _from_json(values: dict[str, object]) -> Basis:
    extents = values["extents"]
    average, pieces = values["average"], values["pieces"]
    if not isinstance(extents, list) or not isinstance(pieces, str):
        raise ValueError("it is no list of extents")
    return Basis(
        str(values["etag"]),
        bytes.fromhex(str(values["digest"])),
        tuple(Extent(ChunkHandle(int(h)), int(o), int(n)) for h, o, n in extents),
        decode(average, b64decode(pieces, validate=True)) if isinstance(average, int) else None,
    )
