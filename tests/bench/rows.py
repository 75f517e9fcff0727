"""The rows of the table: what is done to a server and measured. Every row is the same code for every server.

Used by `__main__` and `profiles`. A row is a function from a site to one number, the figure of one round. What it
needs is made before the clock starts; what it got is compared, byte by byte, after the clock has stopped. Of the
measured requests themselves nothing is left out: bodies are kept and compared, uploads are read back. Where a row is
measured in milliseconds, its figure is the median of the round's repetitions.
"""

from __future__ import annotations

import itertools
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.bench.http_client import Connection, Reply, drive
from tests.bench.site import Fixtures, RefusedError, Site, WrongBytesError, check_equal, sizes_of

MEGABYTE = 1e6
REQUESTS_MAX = 20_000
"""Most requests that a rate is measured with; more would only fill memory with bodies to compare."""
DISK_PIECE_BYTES = 8 << 20
WARM_PASSES = 3
"""After so many passes each of two processes has seen seven of eight files."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    key: str
    title: str
    unit: str
    measure: Callable[[Site], float]
    needs: Callable[[Fixtures], object] = lambda fixtures: fixtures
    """Makes what the row stands on, before its first round, so that no round has writes of its own making behind it."""

    @property
    def is_time(self) -> bool:
        """Less is better."""
        return self.unit == "ms"


# Large files


def put_large(site: Site) -> float:
    """Read back and compared afterwards."""
    length = site.sizes.large_bytes
    body = site.content.large(length)
    if site.running.address is None:
        return _disk_three_copies(site.running.directory, body)
    path = site.fresh(".bin")
    elapsed, _ = _time(site, "PUT", site.put_head(path, length), body)
    site.check_large(path, body)
    site.remove(path)
    return length / elapsed / MEGABYTE


def get_large(site: Site) -> float:
    return _get_large(site, site.fixtures.wide[:1])


def get_large_4(site: Site) -> float:
    return _get_large(site, site.fixtures.wide)


def _get_large(site: Site, connections: list[Connection]) -> float:
    """Each connection gets the whole file into a buffer of its own; all of it is compared afterwards."""
    path, body = site.fixtures.large
    replies: list[Reply] = []
    requests = iter([site.head("GET", path)] * len(connections))
    count, elapsed = drive(connections, requests, replies.append, float("inf"))
    for reply in replies:
        check_equal(site.require(reply, "GET").body, body, path)
    return count * len(body) / elapsed / MEGABYTE


def ranges(site: Site) -> float:
    """Ranges of 64 KiB that begin anywhere in the large file; the same ones for every server in a round."""
    path, body = site.fixtures.large
    rng = random.Random(len(body))
    length = site.sizes.range_bytes
    starts = [rng.randrange(len(body) - length) for _ in range(REQUESTS_MAX // 4)]
    requests = (site.head("GET", path, {"Range": f"bytes={at}-{at + length - 1}"}) for at in starts)
    got: list[tuple[int, bytes]] = []
    count, elapsed = drive(
        [site.fixtures.connection], requests, lambda r: got.append((r.status, bytes(r.body))), site.sizes.duration_s
    )
    for at, (status, piece) in zip(starts, got, strict=False):
        if status != 206 or piece != body[at : at + length]:
            raise WrongBytesError(f"{site.key} {path} from {at}: status {status}, {len(piece)} bytes")
    return count / elapsed


def copy_large(site: Site) -> float:
    """The copy is read and compared afterwards."""
    path, body = site.fixtures.large

    def once() -> float:
        target = site.fresh(".bin")
        elapsed, _ = _time(site, "COPY", site.copy_head("COPY", path, target))
        site.check_large(target, body)
        site.remove(target)
        return elapsed

    return _median_ms(once, min(site.sizes.repeats, 3))


# Small files


def put_small_1(site: Site) -> float:
    return put_small(site, [site.fixtures.connection])


def put_small_8(site: Site) -> float:
    return put_small(site, site.fixtures.eight)


def put_small(site: Site, connections: list[Connection]) -> float:
    """New files in a new directory. All are read back and compared afterwards."""
    directory = site.fresh_directory()
    made: dict[str, bytes] = {}

    def requests() -> Iterator[bytes]:
        for number in range(REQUESTS_MAX):
            path, body = f"{directory}f{number:07}.bin", site.content.small(site.sizes.small_bytes)
            made[path] = body
            yield site.put_head(path, len(body)) + body

    replies: list[int] = []
    count, elapsed = drive(connections, requests(), lambda r: replies.append(r.status), site.sizes.duration_s)
    if refused := [status for status in replies if status not in {200, 201, 204}]:
        raise RefusedError(f"PUT: {refused[0]}, {len(refused)} of {count}")
    site.check_files(made)
    site.remove(directory)
    return count / elapsed


def get_small_1(site: Site) -> float:
    return _get_small(site, [site.fixtures.connection])


def get_small_8(site: Site) -> float:
    return _get_small(site, site.fixtures.eight)


def _get_small(site: Site, connections: list[Connection]) -> float:
    """Files in random order. A body says by its stamp which file it is, so all are compared whatever their order."""
    files = site.fixtures.small
    paths = list(files)
    random.Random(len(paths)).shuffle(paths)
    _warm(connections, [site.head("GET", path) for path in paths])
    requests = (site.head("GET", paths[number % len(paths)]) for number in range(REQUESTS_MAX))
    got: list[bytes] = []
    count, elapsed = drive(connections, requests, lambda r: got.append(bytes(r.body)), site.sizes.duration_s)
    expected = [files[paths[number % len(paths)]] for number in range(count)]
    if (len(connections) == 1 and got != expected) or sorted(got) != sorted(expected):
        raise WrongBytesError(f"{site.key}: GET of small files brought other bytes")
    return count / elapsed


# Listings


def propfind_1000(site: Site) -> float:
    """Every listing is parsed and compared afterwards."""
    directory, files = site.fixtures.tree
    request = site.propfind(directory, "1")

    def once() -> float:
        elapsed, reply = _time(site, "PROPFIND", request)
        site.check_listing(reply, directory, sizes_of(files.items()))
        return elapsed

    return _median_ms(once, site.sizes.repeats)


def propfind_changed(site: Site) -> float:
    """One file is written anew, with another length, over another connection; the next listing must show it."""
    directory, files = site.fixtures.tree
    request = site.propfind(directory, "1")
    path = next(iter(files))

    def once() -> float:
        files[path] = site.content.small(20 + (len(files[path]) - 20 + 1) % 50)
        head = site.put_head(path, len(files[path]))
        site.require(site.fixtures.eight[0].exchange(head + files[path]), "PUT")
        elapsed, reply = _time(site, "PROPFIND", request)
        site.check_listing(reply, directory, sizes_of(files.items()))
        return elapsed

    return _median_ms(once, site.sizes.repeats)


def propfind_0(site: Site) -> float:
    """Attributes of one file after the other."""
    files = site.fixtures.small
    paths = list(files)
    one = [site.fixtures.connection]
    _warm(one, [site.propfind(path, "0") for path in paths])
    requests = (site.propfind(paths[number % len(paths)], "0") for number in range(REQUESTS_MAX))
    bodies: list[bytes] = []
    count, elapsed = drive(one, requests, lambda r: bodies.append(bytes(r.body)), site.sizes.duration_s)
    size = f"getcontentlength>{site.sizes.small_bytes}<".encode()
    for number, body in enumerate(bodies):
        name = paths[number % len(paths)].rpartition("/")[2].encode()
        if name not in body or size not in body:
            raise WrongBytesError(f"{site.key}: PROPFIND of {name!r} brought {body[:200]!r}")
    return count / elapsed


# Directories


def copy_directory(site: Site) -> float:
    """The copies' listings and, of the last one, all bytes are compared afterwards."""
    source, files = site.fixtures.tree
    copied: dict[str, bytes] = {}

    def once() -> float:
        target = site.fresh("/")
        elapsed, _ = _time(site, "COPY", site.copy_head("COPY", source, target))
        copied.clear()
        copied.update((target + path.removeprefix(source), body) for path, body in files.items())
        reply = site.fixtures.connection.exchange(site.propfind(target, "1"))
        site.check_listing(site.require(reply, "PROPFIND"), target, sizes_of(copied.items()))
        return elapsed

    result = _median_ms(once, min(site.sizes.repeats, 3))
    site.check_files(copied)
    return result


def move_directory(site: Site) -> float:
    """There and on; the listing is compared afterwards."""
    place = site.fresh_directory()
    files = site.fill(place, site.sizes.entries, 20)

    def once() -> float:
        nonlocal place, files
        target = site.fresh("/")
        elapsed, _ = _time(site, "MOVE", site.copy_head("MOVE", place, target))
        files = {target + path.removeprefix(place): body for path, body in files.items()}
        place = target
        return elapsed

    result = _median_ms(once, site.sizes.repeats)
    site.check_files(files)
    reply = site.fixtures.connection.exchange(site.propfind(place, "1"))
    site.check_listing(site.require(reply, "PROPFIND"), place, sizes_of(files.items()))
    site.remove(place)
    return result


def delete_directory(site: Site) -> float:
    """The directory must be gone afterwards."""

    def once() -> float:
        place = site.fresh_directory()
        site.fill(place, site.sizes.entries, 20)
        elapsed, _ = _time(site, "DELETE", site.head("DELETE", place))
        if (status := site.fixtures.connection.exchange(site.propfind(place, "0")).status) != 404:
            raise WrongBytesError(f"{site.key}: a deleted directory answers {status}")
        return elapsed

    return _median_ms(once, min(site.sizes.repeats, 2))


def _large(fixtures: Fixtures) -> object:
    return fixtures.large


def _small(fixtures: Fixtures) -> object:
    return fixtures.small


def _tree(fixtures: Fixtures) -> object:
    return fixtures.tree


ROWS = (
    Row("put_large", "PUT large", "MB/s", put_large),
    Row("get_large", "GET large", "MB/s", get_large, _large),
    Row("get_large_4", "GET large, 4 streams", "MB/s", get_large_4, _large),
    Row("ranges", "64 KiB ranges", "1/s", ranges, _large),
    Row("put_small_1", "PUT 4 KiB, 1 connection", "1/s", put_small_1),
    Row("put_small_8", "PUT 4 KiB, 8 connections", "1/s", put_small_8),
    Row("get_small_1", "GET 4 KiB, 1 connection", "1/s", get_small_1, _small),
    Row("get_small_8", "GET 4 KiB, 8 connections", "1/s", get_small_8, _small),
    Row("propfind_1000", "PROPFIND depth 1, 1,000 entries", "ms", propfind_1000, _tree),
    Row("propfind_changed", "the same, first after a change", "ms", propfind_changed, _tree),
    Row("propfind_0", "PROPFIND depth 0", "1/s", propfind_0, _small),
    Row("copy_large", "COPY large", "ms", copy_large, _large),
    Row("copy_directory", "COPY directory of 1,000", "ms", copy_directory, _tree),
    Row("move_directory", "MOVE directory of 1,000", "ms", move_directory),
    Row("delete_directory", "DELETE directory of 1,000", "ms", delete_directory),
)


def _warm(connections: Sequence[Connection], requests: list[bytes]) -> None:
    """Ask for everything once before the clock starts, so that a steady state is measured, whatever a server caches.

    Several connections may end in several processes, each with a cache of its own: each process is to see everything.
    """
    passes = 1 if len(connections) == 1 else WARM_PASSES
    drive(connections, itertools.chain.from_iterable([requests] * passes), lambda _: None, float("inf"))


def _time(site: Site, method: str, *request: bytes) -> tuple[float, Reply]:
    """One request by itself: the seconds it took, and the reply, which is a success."""
    connection = site.fixtures.connection
    connection.rouse()
    began = time.perf_counter()
    reply = connection.exchange(*request)
    elapsed = time.perf_counter() - began
    return elapsed, site.require(reply, method)


def _median_ms(once: Callable[[], float], repeats: int) -> float:
    return statistics.median(once() for _ in range(repeats)) * 1000


def _disk_three_copies(directory: Path, body: bytes) -> float:
    """What the disk takes when three files are written at once and made durable, counted once: the bound of a PUT."""

    def write(number: int) -> None:
        path = directory / f"copy-{number}"
        with path.open("wb", buffering=0) as file:
            for at in range(0, len(body), DISK_PIECE_BYTES):
                file.write(body[at : at + DISK_PIECE_BYTES])
            os.fdatasync(file.fileno())
        path.unlink()

    with ThreadPoolExecutor(3) as pool:
        began = time.perf_counter()
        for done in [pool.submit(write, number) for number in range(3)]:
            done.result()
        elapsed = time.perf_counter() - began
    return len(body) / elapsed / MEGABYTE
