"""A metadata dump as a file: one line of magic, one line of JSON, Redis' snapshot (RDB), a SHA-256 over all before it.

Written by a master as a stream, kept by chunkservers, read by `helenite load`. The digest tells a truncated or damaged
file before anything of it is used. Nothing is held in memory but one piece.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from helenite.core.errors import InvalidRequestError

MAGIC = b"helenite metadata dump 1\n"
DIGEST_BYTES = 32
HEADER_BYTES_MAX = 4096
PIECE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class DumpHeader:
    """Whose metadata it is and of when."""

    cluster_id: str
    space: str
    sequence: int
    created_at_ms: int
    redis_version: str


def encode_dump(header: DumpHeader, snapshot: Iterable[bytes]) -> Iterator[bytes]:
    """The file, piece by piece."""
    digest = hashlib.sha256()
    head = MAGIC + json.dumps(asdict(header)).encode() + b"\n"
    for piece in itertools.chain((head,), snapshot):
        digest.update(piece)
        yield piece
    yield digest.digest()


def check_dump(path: Path) -> DumpHeader:
    """The header of a whole and undamaged dump; InvalidRequestError says what is wrong with it."""
    digest = hashlib.sha256()
    left = path.stat().st_size - DIGEST_BYTES
    with path.open("rb") as file:
        header = _read_header(file, path)
        file.seek(0)
        while left > 0 and (piece := file.read(min(PIECE_BYTES, left))):
            digest.update(piece)
            left -= len(piece)
        if file.read() != digest.digest():
            raise InvalidRequestError(f"{path} is cut short or damaged: its digest does not fit")
    return header


def extract_snapshot(path: Path, target: Path) -> None:
    """Write the snapshot inside a checked dump to a file of its own."""
    with path.open("rb") as file, target.open("wb") as out:
        _read_header(file, path)
        left = path.stat().st_size - DIGEST_BYTES - file.tell()
        while left > 0 and (piece := file.read(min(PIECE_BYTES, left))):
            out.write(piece)
            left -= len(piece)


def newest_dump(directories: Iterable[Path]) -> tuple[Path, DumpHeader] | None:
    """The youngest undamaged dump in some directories, with its header; names sort by time."""
    found = sorted((path for directory in directories for path in directory.glob("*.dump")), key=lambda p: p.name)
    for path in reversed(found):
        try:
            return path, check_dump(path)
        except InvalidRequestError:
            continue
    return None


def _read_header(file: IO[bytes], path: Path) -> DumpHeader:
    if file.readline(HEADER_BYTES_MAX) != MAGIC:
        raise InvalidRequestError(f"{path} is no metadata dump of this version")
    try:
        return DumpHeader(**json.loads(file.readline(HEADER_BYTES_MAX)))
    except (ValueError, TypeError) as error:
        raise InvalidRequestError(f"{path} has a damaged header: {error}") from error
