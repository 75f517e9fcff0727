"""`--curves`: how Helenite's figures change as things grow, and the memory of its processes beside each.

Used by `__main__`. Grown are the files in the namespace, the entries of one directory, the connections, the gateway's
workers and the size of a file. Each curve has a cluster of its own (the workers one for each point), so that the memory
beside a point is what that point needs. The namespace grows by COPY of directories, which shares chunks: there are as
many records, names and references as files, but fewer chunks.
"""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from tests.bench.http_client import Connection, Reply, drive
from tests.bench.rows import put_small
from tests.bench.servers import Running, helenite
from tests.bench.site import Content, Site, Sizes, WrongBytesError, parse_listing
from tests.support.processes import role_of

MIB = 1 << 20
GIB = 1 << 30
PIECE_BYTES = 8 * MIB
TREE = 1000
"""Files in each directory that the namespace grows by."""
SECONDS = 1.5
"""How long each rate is measured."""
LISTING_BYTES_MAX = 256 * MIB
SAMPLE = 20_000
"""Files that a point's single-file operations are spread over."""
REMEMBERED = 1000
"""Few enough for a worker's cache."""


@dataclass(frozen=True, slots=True)
class Point:
    """One place on a curve."""

    curve: str
    grown: int
    figures: dict[str, float]
    memory: dict[str, tuple[int, int]]
    """Role -> resident bytes of all its processes, now and at their highest."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Where the curves end."""

    files: int = 1_000_000
    gibibytes: int = 16


def run_curves(limits: Limits, directory: Path, console: Console) -> list[Point]:
    points: list[Point] = []
    for curve in (namespace, entries, connections, workers, file_size):
        found: list[Point] = []
        for point in curve(limits, directory / curve.__name__):
            console.print(f"{point.curve} {point.grown:,}: {_line(point.figures)}", highlight=False)
            found.append(point)
        points += found
        console.print(_table(found))
    return points


def as_json(points: list[Point]) -> list[dict[str, object]]:
    return [asdict(point) for point in points]


# The curves


def namespace(limits: Limits, directory: Path) -> Iterator[Point]:
    """Operations on single files, anywhere, against the files there are."""
    with _site(directory) as site:
        source = site.fresh_directory()
        empty_redis = _memory(site.running).get("redis", (0, 0))[0]
        files = site.fill(source, TREE, site.sizes.small_bytes)
        names, places = [path.removeprefix(source) for path in files], [source]
        for wanted in _decades(1000, limits.files):
            while len(places) * TREE < wanted:
                target = site.fresh("/")
                site.require(site.fixtures.connection.exchange(site.copy_head("COPY", source, target)), "COPY")
                places.append(target)
            chosen = _sample(len(places) * TREE, wanted)
            paths = [places[number // TREE] + names[number % TREE] for number in chosen]
            memory = _memory(site.running)
            redis = memory.get("redis", (0, 0))[0] - empty_redis
            figures = _single_file_rates(site, paths, set(files.values()))
            figures["Redis bytes a file"] = redis / (len(places) * TREE)
            yield Point("files in the namespace", len(places) * TREE, figures, memory)


def entries(limits: Limits, directory: Path) -> Iterator[Point]:
    """One directory, listed and used."""
    with _site(directory) as site:
        place = site.fresh_directory()
        paths: list[str] = []
        listing = site.connect(bytearray(LISTING_BYTES_MAX))
        for wanted in _decades(100, limits.files // 10):
            fresh = [f"{place}f{number:07}.bin" for number in range(len(paths), wanted)]
            requests = (site.put_head(path, 0) for path in fresh)
            drive(site.fixtures.eight, requests, lambda reply: _require(site, reply, "PUT"), float("inf"))
            paths += fresh
            began = time.perf_counter()
            reply = site.require(listing.exchange(site.propfind(place, "1")), "PROPFIND")
            listing_ms = (time.perf_counter() - began) * 1000
            if len(parse_listing(bytes(reply.body))) != len(paths) + 1:
                raise WrongBytesError(f"the listing of {len(paths)} entries is not complete")
            chosen = [paths[number] for number in _sample(len(paths), wanted)]
            figures = {"PROPFIND depth 1, ms": listing_ms, "ms for 1,000": listing_ms / len(paths) * 1000}
            figures |= _single_file_rates(site, chosen, {b""})
            yield Point("entries in a directory", wanted, figures, _memory(site.running))


def connections(_limits: Limits, directory: Path) -> Iterator[Point]:
    with _site(directory) as site:
        for wanted in (1, 2, 4, 8, 16, 32, 64):
            figures = _parallel_rates(site, [site.connect() for _ in range(wanted)])
            yield Point("connections", wanted, figures, _memory(site.running))


def workers(_limits: Limits, directory: Path) -> Iterator[Point]:
    for wanted in (1, 2, 4, 8):
        with _site(directory / str(wanted), "--workers", str(wanted)) as site:
            figures = _parallel_rates(site, [site.connect() for _ in range(16)])
            yield Point("workers, 16 connections", wanted, figures, _memory(site.running))


def file_size(limits: Limits, directory: Path) -> Iterator[Point]:
    """Each piece is compared with what was sent when it comes back, while the clock runs: some 5 % of a GET's time."""
    with _site(directory) as site:
        pool = bytearray(site.content.large(PIECE_BYTES))
        for wanted in (gib for gib in (1, 2, 4, 8, 16) if gib <= limits.gibibytes):
            path = site.fresh(".bin")
            connection = site.connect()
            began = time.perf_counter()
            head = site.put_head(path, wanted * GIB)
            status = connection.exchange_stream(head, _pieces(pool, wanted * GIB), lambda _: None)
            put_s = time.perf_counter() - began
            check = Comparison(pool)
            began = time.perf_counter()
            got = connection.exchange_stream(site.head("GET", path), (), check.feed)
            get_s = time.perf_counter() - began
            if status != 201 or got != 200 or check.at != wanted * GIB:
                raise WrongBytesError(f"{wanted} GiB: PUT {status}, GET {got}, {check.at} bytes came back")
            memory = _memory(site.running)
            site.remove(path)
            figures = {"PUT, MB/s": wanted * GIB / put_s / 1e6, "GET, MB/s": wanted * GIB / get_s / 1e6}
            yield Point("GiB of a file", wanted, figures, memory)


class Comparison:
    """Compares a stream with the pool that it was made from, each piece under its own stamp."""

    def __init__(self, pool: bytearray) -> None:
        self._pool = pool
        self.at = 0

    def feed(self, piece: memoryview) -> None:
        while piece:
            number, inside = divmod(self.at, PIECE_BYTES)
            taken = piece[: PIECE_BYTES - inside]
            _stamp(self._pool, number)
            if self._pool[inside : inside + len(taken)] != taken:
                raise WrongBytesError(f"other bytes at {self.at}")
            self.at += len(taken)
            piece = piece[len(taken) :]


def _pieces(pool: bytearray, length: int) -> Iterator[memoryview]:
    for number in range(length // PIECE_BYTES):
        _stamp(pool, number)
        yield memoryview(pool)


def _stamp(pool: bytearray, number: int) -> None:
    pool[:16] = b"%016x" % number


# Measuring


@contextmanager
def _site(directory: Path, *options: str) -> Iterator[Site]:
    with helenite(*options)(directory) as running, Site("helenite", running, Sizes(), Content(2)) as site:
        site.sizes = replace(site.sizes, duration_s=SECONDS)
        yield site


def _sample(count: int, seed: int) -> list[int]:
    """Some of `count` places, each once."""
    return random.Random(seed).sample(range(count), min(count, SAMPLE))


def _single_file_rates(site: Site, paths: list[str], contents: set[bytes]) -> dict[str, float]:
    """Rates on files that nobody has asked for yet, however many there are, and on some that are remembered."""
    one = [site.fixtures.connection]
    half = len(paths) // 2
    again = paths[: min(half, REMEMBERED)]
    return {
        "GET at first, 1/s": _get_rate(site, one, paths[half:], contents),
        "PROPFIND depth 0 at first, 1/s": _propfind_rate(site, one, paths[:half]),
        "and again, 1/s": _propfind_rate(site, one, again * (SAMPLE // len(again))),
        "PUT 4 KiB, 1/s": put_small(site, one),
    }


def _propfind_rate(site: Site, chosen: list[Connection], paths: list[str]) -> float:
    requests = (site.propfind(path, "0") for path in paths)
    count, elapsed = drive(chosen, requests, lambda reply: _require(site, reply, "PROPFIND"), SECONDS)
    return count / elapsed


def _parallel_rates(site: Site, chosen: list[Connection]) -> dict[str, float]:
    files = site.fixtures.small
    paths = [path for _ in range(20) for path in files]
    return {
        "GET 4 KiB, 1/s": _get_rate(site, chosen, paths, set(files.values())),
        "PUT 4 KiB, 1/s": put_small(site, chosen),
    }


def _get_rate(site: Site, chosen: list[Connection], paths: list[str], contents: set[bytes]) -> float:
    """Whatever comes must be the content of one of the files."""
    got: list[bytes] = []
    requests = (site.head("GET", path) for path in paths)
    count, elapsed = drive(chosen, requests, lambda reply: got.append(bytes(reply.body)), SECONDS)
    if strangers := [body for body in got if body not in contents]:
        raise WrongBytesError(f"{len(strangers)} of {count} GET brought other bytes: {strangers[0][:80]!r}")
    return count / elapsed


def _require(site: Site, reply: Reply, what: str) -> None:
    site.require(reply, what)


def _decades(first: int, last: int) -> Iterator[int]:
    """first, 10 x first, ... up to last, which is the final one."""
    while first < last:
        yield first
        first *= 10
    yield last


def _memory(running: Running) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for process in running.processes():
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            status = Path(f"/proc/{process.pid}/status").read_text()
            now, most = found.get(role_of(process), (0, 0))
            found[role_of(process)] = (now + _kibibytes(status, "VmRSS"), most + _kibibytes(status, "VmHWM"))
    return found


def _kibibytes(status: str, name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def _line(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:,.1f}" for name, value in figures.items())


def _table(points: list[Point]) -> Table:
    table = Table(title=points[0].curve, title_justify="left")
    roles = list(dict.fromkeys(role for point in points for role in point.memory))
    table.add_column(points[0].curve, justify="right")
    for name in points[0].figures:
        table.add_column(name, justify="right")
    for role in roles:
        table.add_column(f"{role} MB, highest", justify="right")
    for point in points:
        cells = [f"{value:,.1f}" for value in point.figures.values()]
        for role in roles:
            now, most = point.memory.get(role, (0, 0))
            cells.append(f"{now / 1e6:,.0f}, {most / 1e6:,.0f}")
        table.add_row(f"{point.grown:,}", *cells)
    return table
