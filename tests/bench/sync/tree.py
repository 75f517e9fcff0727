"""`python -m tests.bench.sync.tree`: one agent and a large tree that both sides have already.

A hundred thousand files in ten thousand directories, the same on the local disk and on the server: how long the first
sync takes (it may move no content), what the agent costs when nothing happens, and how soon it notices one save.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import shutil
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import psutil
from rich.console import Console

from syncagent.control import ask
from tests.support.cluster import Cluster
from tests.support.sync_agents import Agent
from tests.support.waiting import wait_until

PARTS = 10
"""The tree is so many copies of one part, which are made quickly on both sides."""
BUNDLE_FILES = 1_000
SETTLE_S = 900.0
IDLE_S = 30.0
SAVES = 10


@dataclass(frozen=True, slots=True)
class Shape:
    """Of one part: outer directories, inner ones in each, files in each inner one."""

    outer: int = 10
    inner: int = 99
    files: int = 101


@dataclass(slots=True)
class Figures:
    """What was measured."""

    files: int = 0
    directories: int = 0
    first_sync_s: float = 0.0
    first_sync_cpu_s: float = 0.0
    server_cpu_s: float = 0.0
    contents_moved: int = 0
    restart_s: float = 0.0
    idle_cpu_percent: float = 0.0
    resident_mib: float = 0.0
    peak_mib: float = 0.0
    save_s: float = 0.0
    """The median until one save is on the server."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.sync.tree", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--quick", action="store_true", help="a hundredth of the tree: does it run")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    shape = Shape(outer=2, inner=4, files=12) if options.quick else Shape(outer=10, inner=99, files=10)
    with tempfile.TemporaryDirectory(prefix="helenite-tree-") as name:
        figures = measure(Path(name), shape, IDLE_S / 10 if options.quick else IDLE_S)
    values, console = asdict(figures), Console()
    for key, value in values.items():
        console.print(f"{key:20} {value:,.3f}" if isinstance(value, float) else f"{key:20} {value:,}", highlight=False)
    if options.json:
        options.json.write_text(json.dumps(values, indent=1) + "\n")
    return 1 if figures.contents_moved else 0


def measure(base: Path, shape: Shape, idle_s: float) -> Figures:
    figures = Figures()
    with Cluster(base / "cluster", "--workers", "2") as cluster:
        agent = Agent(base, "agent")
        contents = dict(part_of(shape))
        plant_locally(agent.folder, contents)
        plant_on_server(f"{cluster.url}tree/", contents)
        figures.files = PARTS * len(contents)
        figures.directories = PARTS * (1 + shape.outer * (1 + shape.inner))
        agent.add(f"{cluster.url}tree")
        before = _cpu_s(cluster.processes())
        began = time.monotonic()
        agent.start()
        assert agent.process is not None
        process = psutil.Process(agent.process.pid)
        _settle(agent)
        figures.first_sync_s = time.monotonic() - began
        figures.first_sync_cpu_s, figures.server_cpu_s = _cpu_s([process]), _cpu_s(cluster.processes()) - before
        events = ask(agent.home, "history", count=1000)["events"]
        figures.contents_moved = sum(event["verb"] in {"sent", "received"} for event in events)
        figures.peak_mib = _peak_mib(process)
        agent.stop()
        began = time.monotonic()
        agent.start()
        assert agent.process is not None
        process = psutil.Process(agent.process.pid)
        _settle(agent)
        figures.restart_s = time.monotonic() - began
        threading.Event().wait(3.0)  # what is left to do after a start
        before = _cpu_s([process])
        threading.Event().wait(idle_s)
        figures.idle_cpu_percent = 100 * (_cpu_s([process]) - before) / idle_s
        figures.resident_mib = process.memory_info().rss / (1 << 20)
        figures.save_s = sorted(_save(agent, f"{cluster.url}tree/", contents, number) for number in range(SAVES))[
            SAVES // 2
        ]
        agent.stop()
    return figures


def part_of(shape: Shape) -> Iterator[tuple[str, bytes]]:
    """Names and contents; no two files are alike."""
    for number in range(shape.outer * shape.inner * shape.files):
        inner, file = divmod(number, shape.files)
        yield f"d{inner // shape.inner:02}/e{inner % shape.inner:03}/f{file:03}", f"content {number}\n".encode() * 8


def plant_locally(folder: Path, contents: dict[str, bytes]) -> None:
    first = folder / "part0"
    for name, content in contents.items():
        (first / name).parent.mkdir(parents=True, exist_ok=True)
        (first / name).write_bytes(content)
    for number in range(1, PARTS):
        shutil.copytree(first, folder / f"part{number}")


def plant_on_server(url: str, contents: dict[str, bytes]) -> None:
    """One part in bundles, as an agent sends them, the others as copies of it."""
    with httpx.Client(timeout=300) as client:
        client.request("MKCOL", url).raise_for_status()
        client.request("MKCOL", f"{url}part0/").raise_for_status()
        names = list(contents)
        for start in range(0, len(names), BUNDLE_FILES):
            some = {name: contents[name] for name in names[start : start + BUNDLE_FILES]}
            answer = client.post(f"{url}part0/?bundle", content=_pack(some))
            assert answer.text.count("201 Created") == len(some), answer.text[:500]
        for number in range(1, PARTS):
            headers = {"Destination": f"{url}part{number}/"}
            client.request("COPY", f"{url}part0/", headers=headers).raise_for_status()


def _pack(contents: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
            info.pax_headers = {"HELENITE.digest": f"sha-256=:{digest}:"}
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def _save(agent: Agent, url: str, contents: dict[str, bytes], number: int) -> float:
    """How long until one small save is on the server."""
    name = list(contents)[number * 7 % len(contents)]
    content = f"saved {number} {time.monotonic()}".encode()
    with httpx.Client(timeout=60) as client:
        began = time.monotonic()
        (agent.folder / "part3" / name).write_bytes(content)
        wait_until(lambda: client.get(f"{url}part3/{name}").content == content, SETTLE_S)
        took = time.monotonic() - began
    wait_until(agent.is_settled, SETTLE_S)
    return took


def _settle(agent: Agent) -> None:
    """Wait, asking so seldom that it costs the agent nothing."""
    deadline = time.monotonic() + SETTLE_S
    while not agent.is_settled():
        assert time.monotonic() < deadline, agent.status()
        threading.Event().wait(0.2)


def _cpu_s(processes: list[psutil.Process]) -> float:
    return sum(times.user + times.system for times in (process.cpu_times() for process in processes))


def _peak_mib(process: psutil.Process) -> float:
    """The most memory that the process ever had."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    sys.exit(main())
