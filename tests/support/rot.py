"""Damage to what lies on a chunkserver's disk: bits flipped, files cut short, files gone."""

from __future__ import annotations

import contextlib
import os
import random
from dataclasses import dataclass
from pathlib import Path

from helenite.chunkserver.layout import HEADER_BYTES, ChunkHeader, parse_header, size_of
from helenite.core.errors import ChunkCorruptError

WAYS = ("flip", "truncate", "delete")


@dataclass(frozen=True, slots=True)
class Replica:
    """One chunk's record on one chunkserver's disk."""

    handle: int
    path: Path
    offset: int
    length: int

    @property
    def is_file(self) -> bool:
        """Whether the whole file is this record."""
        return self.path.suffix != ".seg"


def find_replicas(directory: Path) -> list[Replica]:
    """All records that a data directory holds, deleted ones in segments included, in a fixed order."""
    found: list[Replica] = []
    for path in sorted(directory.glob("chunks/??/*")):
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            found.append(Replica(int(path.name, 16), path, 0, path.stat().st_size))
    for path in sorted(directory.glob("segments/*.seg")):
        with contextlib.suppress(FileNotFoundError):  # compacted meanwhile
            found += _in_segment(path)
    return found


def _in_segment(path: Path) -> list[Replica]:
    found: list[Replica] = []
    at = 0
    with path.open("rb") as file:
        while len(packed := file.read(HEADER_BYTES)) == HEADER_BYTES:
            try:
                header = parse_header(packed)
            except ChunkCorruptError:
                break  # the free space at the end, or damage
            if isinstance(header, ChunkHeader):
                found.append(Replica(header.handle, path, at, size_of(header)))
            at += size_of(header)
            file.seek(at)
    return found


def damage(replica: Replica, rng: random.Random, way: str = "") -> str:
    """Damage one replica and say how; inside a segment, where many chunks share a file, always by flipping bits."""
    way = (way or rng.choice(WAYS)) if replica.is_file else "flip"
    match way:
        case "delete":
            replica.path.unlink()
        case "truncate":
            os.truncate(replica.path, rng.randrange(replica.length))
        case _:
            _flip(replica, rng)
    return way


def _flip(replica: Replica, rng: random.Random) -> None:
    """One bit anywhere in the record: in its data, its checksums or its header."""
    at = replica.offset + rng.randrange(replica.length)
    with replica.path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << rng.randrange(8)]))
