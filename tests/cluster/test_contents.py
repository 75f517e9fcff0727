"""Names and sizes at the edges, through the gateway and back, byte for byte."""

from __future__ import annotations

import hashlib
import http.client
import random
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import psutil
import pytest

from helenite.core.model import DEFAULT_CHUNK_BYTES as CHUNK
from helenite.core.model import SEGMENT_CHUNK_BYTES_MAX as SMALL
from tests.support.cluster import Cluster

GIB = 1024**3
PROCESS_BYTES = 200_000_000
NAMES = [
    "with space", "per%cent", "100%25", "hash#tag", "what?", "a+b", "this & that", "it's", 'a "quote"', "back\\slash",
    "semi;colon", "emoji 🦊", "кириллица", unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é"),
    "x" * 255, "ö" * 100, "trailing ", " leading", "trailing.", "-dash", "~tilde", "new\nline", "tab\t", "CON", "a:b",
    "<tag>", "]]>", "*", "|",
]  # fmt: skip


def test_names_go_in_and_come_back_as_they_are(shared_cluster: Cluster) -> None:
    with httpx.Client(base_url=shared_cluster.url, timeout=60) as client:
        assert client.request("MKCOL", "/names").status_code == 201
        for number, name in enumerate(NAMES):
            assert client.put(f"/names/{quote(name)}", content=str(number)).status_code == 201, name
        for number, name in enumerate(NAMES):
            assert client.get(f"/names/{quote(name)}").text == str(number), name
        listing = client.request("PROPFIND", "/names", headers={"Depth": "1"})
        assert listing.status_code == 207
        for number, name in enumerate(NAMES):
            target = quote(f"{number}{name}"[:200])
            moved = client.request("MOVE", f"/names/{quote(name)}", headers={"Destination": f"/names/{target}"})
            assert moved.status_code == 201, name
            assert client.get(f"/names/{target}").text == str(number), name
        assert client.delete("/names").status_code == 204


def test_a_hundred_levels(shared_cluster: Cluster) -> None:
    with httpx.Client(base_url=shared_cluster.url, timeout=60) as client:
        path = ""
        for level in range(100):
            path += f"/level {level}"
            assert client.request("MKCOL", path).status_code == 201
        assert client.put(path + "/deep", content=b"deep").status_code == 201
        assert client.get(path + "/deep").content == b"deep"
        assert client.delete("/level 0").status_code == 204


@pytest.mark.parametrize(
    "size",
    [
        0,
        1,
        65535,
        65536,
        65537,
        SMALL,
        SMALL + 1,
        CHUNK - 1,
        CHUNK,
        CHUNK + 1,
        3 * CHUNK,
    ],
)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_sizes_at_the_edges(shared_cluster: Cluster, size: int, is_chunked: bool) -> None:
    content = random.Random(size).randbytes(size)

    def pieces() -> Iterator[bytes]:
        for start in range(0, size, 300_000):
            yield content[start : start + 300_000]

    with httpx.Client(base_url=shared_cluster.url, timeout=30) as client:
        sent = client.put(f"/sized-{size}-{is_chunked}", content=pieces() if is_chunked else content)
        assert sent.status_code == 201
        got = client.get(f"/sized-{size}-{is_chunked}")
        assert got.content == content
        assert got.headers["ETag"] == sent.headers["ETag"]
        for start in {0, size // 2, max(0, size - 1), max(0, min(CHUNK, size) - 1)}:
            if start < size:
                part = client.get(f"/sized-{size}-{is_chunked}", headers={"Range": f"bytes={start}-{start + 99_999}"})
                assert part.status_code == 206
                assert part.content == content[start : start + 100_000]


def stream(size: int) -> Iterator[bytes]:
    piece = random.Random(size).randbytes(1024 * 1024)
    for number in range(size // len(piece)):
        yield number.to_bytes(8, "big") + piece[8:]


def upload(url: str, path: str, size: int) -> str:
    """PUT `size` bytes with a Content-Length; their sha256."""
    where = urlsplit(url)
    assert where.hostname is not None
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=120)
    connection.putrequest("PUT", path)
    connection.putheader("Content-Length", str(size))
    connection.endheaders()
    checksum = hashlib.sha256()
    for piece in stream(size):
        checksum.update(piece)
        connection.send(piece)
    reply = connection.getresponse()
    reply.read()
    assert reply.status == 201
    connection.close()
    return checksum.hexdigest()


def download(url: str, path: str) -> str:
    """GET; the sha256 of what came."""
    checksum = hashlib.sha256()
    with httpx.stream("GET", url.rstrip("/") + path, timeout=120) as reply:
        assert reply.status_code == 200
        for piece in reply.iter_raw(1024 * 1024):
            checksum.update(piece)
    return checksum.hexdigest()


def peak_memory(cluster: Cluster) -> dict[str, int]:
    """The most that each process ever held (VmHWM)."""
    peaks = {}
    for process in cluster.processes():
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
        peaks[f"{process.pid} {' '.join(process.cmdline())[:80]}"] = int(lines["VmHWM"].split()[0]) * 1024
    return peaks


def check_streaming(cluster: Cluster, size: int) -> None:
    cluster.start()
    for process in cluster.processes():
        assert isinstance(process, psutil.Process)
    assert upload(cluster.url, "/huge", size) == download(cluster.url, "/huge")
    for name, peak in peak_memory(cluster).items():
        assert peak < PROCESS_BYTES, f"{name}: {peak / 1e6:.0f} MB"
    assert httpx.delete(cluster.url + "huge", timeout=60).status_code == 204


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads peak memory from /proc")
def test_streaming_holds_little_memory(cluster: Cluster) -> None:
    check_streaming(cluster, GIB)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_five_gigabytes_hold_little_memory(cluster: Cluster) -> None:
    check_streaming(cluster, 5 * GIB)
