"""Bundles on a real cluster: a thousand small files in one request, and the documented commands word for word."""

from __future__ import annotations

import io
import json
import os
import random
import re
import shlex
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.support.cluster import Cluster
from tests.support.processes import of_role
from tests.support.sync_client import parse_page, report_body

FILES = 1000
BYTES_MIN, BYTES_MAX = 512, 16 * 1024
LANES = 4
"""Connections of a client that sends single PUTs."""


@pytest.fixture
def http(shared_cluster: Cluster) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=shared_cluster.url, timeout=90) as client:
        yield client


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    chance = random.Random(5)
    return {
        f"d{number % 20}/f{number}": chance.randbytes(chance.randint(BYTES_MIN, BYTES_MAX)) for number in range(FILES)
    }


def pack(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def unpack(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {info.name: opened.read() for info in tar if (opened := tar.extractfile(info)) is not None}


@pytest.mark.timeout(240)
def test_a_thousand_small_files(shared_cluster: Cluster, http: httpx.Client, files: dict[str, bytes]) -> None:
    for home in ("/singly/", "/bundled/"):
        http.request("MKCOL", home).raise_for_status()
    for number in range(20):
        http.request("MKCOL", f"/singly/d{number}/").raise_for_status()
    clients = [httpx.Client(base_url=shared_cluster.url, timeout=60) for _ in range(LANES)]

    def lane(number: int) -> None:
        for name in list(files)[number::LANES]:
            clients[number].put(f"/singly/{name}", content=files[name]).raise_for_status()

    with ThreadPoolExecutor(LANES) as pool:
        singly = _seconds(lambda: list(pool.map(lane, range(LANES))))
    for client in clients:
        client.close()
    body = pack(files)
    replies: list[httpx.Response] = []
    stored = _seconds(lambda: replies.append(http.post("/bundled/?bundle", content=body)))
    assert replies[0].status_code == 207
    assert replies[0].text.count("HTTP/1.1 201 Created") == FILES
    links = json.dumps([*files, "none"]).encode()
    fetched = _seconds(lambda: replies.append(http.post("/bundled/?bundle=get", content=links)))
    found = unpack(replies[1].content)
    missing = json.loads(found.pop(".helenite-missing.json"))
    assert (found, list(missing)) == (files, ["none"])
    page = parse_page(http.request("REPORT", "/bundled/", content=report_body()).content, "/bundled/")
    assert len(page.changed) == FILES + 20
    print(f"{FILES} files: singly {singly:.2f} s, stored {stored:.2f} s, fetched {fetched:.2f} s")  # noqa: T201
    assert stored < singly


def test_a_chunkserver_that_hangs_costs_a_bundle_no_file(cluster: Cluster) -> None:
    some = {f"f{number}": b"%d" % number * 500 for number in range(100)}
    with cluster, httpx.Client(base_url=cluster.url, timeout=90) as http:
        victim = of_role(cluster, "chunkserver")[0]
        victim.suspend()
        try:
            answer = http.post("/?bundle", content=pack(some))
        finally:
            victim.resume()
        assert answer.text.count("HTTP/1.1 201 Created") == len(some), answer.text[:2000]
        assert unpack(http.post("/?bundle=get", content=json.dumps(list(some)).encode()).content) == some
        cluster.check_fsck(0, 1)  # not all replicas may be there yet


def _seconds(act: Callable[[], object]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


def test_the_documented_commands(
    shared_cluster: Cluster, http: httpx.Client, tmp_path: Path, need: Callable[..., None]
) -> None:
    """The lines of COMPLIANCE.md between its fences, run by a shell with GNU tar and curl."""
    need("tar", "curl")
    text = (Path(__file__).parents[2] / "webdav" / "COMPLIANCE.md").read_text()
    commands = re.search(r"```sh\n(tar .*?)```", text, re.DOTALL)
    assert commands is not None
    http.request("MKCOL", "/photos/").raise_for_status()
    source = tmp_path / "pictures"
    (source / "2026").mkdir(parents=True)
    (source / "2026" / "a b.txt").write_bytes(b"one")
    (source / "run.sh").write_bytes(b"two")
    (source / "run.sh").chmod(0o755)
    (source / "link").symlink_to("run.sh")
    with (source / "holes").open("wb") as holes:
        holes.truncate(1 << 20)
    (tmp_path / "out").mkdir()
    script = commands[1].replace("http://localhost:8080/", shared_cluster.url)
    environment = os.environ | {"NO_PROXY": "*"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, (shlex.quote(script), done.stderr)
    assert done.stdout.count("HTTP/1.1 201 Created") == 4, done.stdout
    assert "a symbolic link is not kept here" in done.stdout
    assert (tmp_path / "out" / "2026" / "a b.txt").read_bytes() == b"one"
    assert (tmp_path / "out" / "run.sh").stat().st_mode & 0o111
    assert (tmp_path / "out" / "run.sh").stat().st_mtime == pytest.approx((source / "run.sh").stat().st_mtime, abs=0.01)
    assert http.get("/photos/holes").content == bytes(1 << 20)
