"""What is measured on a pair of devices: seconds from the first byte written on one until all is right on the other.

Used by `__main__`. Every row checks the bytes that arrive; it begins when both devices are quiet, and leaves them so.
The wait looks at one file at a time, so that looking costs next to nothing. To add a row, write a function from a Bench
to a list of figures and enter it in ROWS.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.bench.sync.pairs import Pair

ARRIVES_S = 300.0
LOOK_S = 0.002
"""Between two looks: what a figure is exact to."""


class WrongBytesError(Exception):
    """What arrived is not what was written."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is written."""

    small_files: int = 1_000
    small_directories: int = 20
    saves: int = 200
    large_bytes: int = 256 << 20
    changed_bytes: int = 4 << 10


QUICK = Sizes(small_files=40, small_directories=4, saves=2, large_bytes=8 << 20)


@dataclass(slots=True)
class Bench:
    """One pair, and what its rows share."""

    pair: Pair
    sizes: Sizes
    random: Random = field(default_factory=lambda: Random(5))
    _count: int = 0

    def fresh(self) -> str:
        """A name that was never used."""
        self._count += 1
        return f"{self._count:05}"

    def small_content(self) -> bytes:
        """0.5 to 16 KB, as settings, notes and source files have."""
        return self.random.randbytes(int(512 * 2 ** (5 * self.random.random())))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; its figures are seconds, of which the median and, of many, the 99th percentile is told."""

    key: str
    title: str
    measure: Callable[[Bench], list[float]]


def wait_for(folder: Path, contents: Mapping[str, bytes]) -> float:
    """Wait until all files are there with these contents; the time (monotonic) when they were."""
    deadline = time.monotonic() + ARRIVES_S
    pause = threading.Event()
    for name, content in contents.items():
        while not _has(folder / name, content):
            if time.monotonic() > deadline:
                raise WrongBytesError(f"{name} has not arrived within {ARRIVES_S:.0f} s")
            pause.wait(LOOK_S)
    arrived = time.monotonic()
    for name, content in contents.items():
        if (folder / name).read_bytes() != content:
            raise WrongBytesError(f"{name} arrived with other bytes")
    return arrived


def _has(file: Path, content: bytes) -> bool:
    """Small files are compared; a large one is whole when it has its name, its size and its end."""
    try:
        if file.stat().st_size != len(content):
            return False
        with file.open("rb") as opened:
            if len(content) > 1 << 20:
                opened.seek(-4096, os.SEEK_END)
                return opened.read() == content[-4096:]
            return opened.read() == content
    except FileNotFoundError:
        return False


def measure_small_files(bench: Bench) -> list[float]:
    """Many small files in some new directories."""
    top, sizes = bench.fresh(), bench.sizes
    contents = {
        f"{top}/d{number % sizes.small_directories:02}/f{number:05}": bench.small_content()
        for number in range(sizes.small_files)
    }
    began = time.monotonic()
    for directory in sorted({str(Path(name).parent) for name in contents}):
        (bench.pair.near / directory).mkdir(parents=True)
    for name, content in contents.items():
        (bench.pair.near / name).write_bytes(content)
    return [wait_for(bench.pair.far, contents) - began]


def measure_saves(bench: Bench) -> list[float]:
    """One small file is saved, again and again, when all is quiet."""
    figures = []
    name = f"saves-{bench.fresh()}.txt"
    for _ in range(bench.sizes.saves):
        bench.pair.wait_until_quiet()
        threading.Event().wait(bench.random.random() / 5)  # not in step with anybody's timer
        content = bench.small_content()
        began = time.monotonic()
        (bench.pair.near / name).write_bytes(content)
        figures.append(wait_for(bench.pair.far, {name: content}) - began)
    return figures


def measure_large(bench: Bench) -> list[float]:
    """One large file of random bytes."""
    name, content = f"large-{bench.fresh()}.bin", os.urandom(bench.sizes.large_bytes)
    began = time.monotonic()
    (bench.pair.near / name).write_bytes(content)
    return [wait_for(bench.pair.far, {name: content}) - began]


def measure_changed(bench: Bench) -> list[float]:
    """Some bytes in the middle of a large file that both have are overwritten; also when its size stays the same."""
    name, content = f"changed-{bench.fresh()}.bin", bytearray(os.urandom(bench.sizes.large_bytes))
    (bench.pair.near / name).write_bytes(content)
    wait_for(bench.pair.far, {name: bytes(content)})
    bench.pair.wait_until_quiet()
    at, fresh = len(content) // 2 + 12_345, os.urandom(bench.sizes.changed_bytes)
    began = time.monotonic()
    with (bench.pair.near / name).open("r+b") as file:
        file.seek(at)
        file.write(fresh)
    content[at : at + len(fresh)] = fresh
    far = bench.pair.far / name
    deadline, pause = began + ARRIVES_S, threading.Event()
    while _read_at(far, at, len(fresh)) != fresh:
        if time.monotonic() > deadline:
            raise WrongBytesError(f"the change of {name} has not arrived within {ARRIVES_S:.0f} s")
        pause.wait(LOOK_S)
    took = time.monotonic() - began
    wait_for(bench.pair.far, {name: bytes(content)})
    return [took]


def _read_at(file: Path, at: int, count: int) -> bytes:
    """A piece of a file, which may be gone for a moment while it is replaced."""
    try:
        with file.open("rb") as opened:
            opened.seek(at)
            return opened.read(count)
    except FileNotFoundError:
        return b""


ROWS = (
    Row("small-files", "small files, new, until all are there", measure_small_files),
    Row("saves", "one small save", measure_saves),
    Row("large", "a large file, new", measure_large),
    Row("changed", "a few KiB changed in a large file", measure_changed),
)
