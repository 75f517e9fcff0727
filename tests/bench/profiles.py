"""`--profile`: where the time of a row goes, by process and by function.

Used by `__main__`. Runs one row again and again on a Helenite of its own, unchecked, in three passes: processor time of
each process for each request; py-spy on the threads that answer requests, waiting included, so that percentages are of
a request's time; py-spy on whoever holds the interpreter (GIL), so that they are of its processor time. py-spy looks
into the gateway's workers, the master and one chunkserver. It is the tool because it joins processes that run and sees
all their threads; cProfile can do neither.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from tests.bench.rows import Row
from tests.bench.servers import Running, Server
from tests.bench.site import Content, Site, Sizes
from tests.support.processes import role_of

SECONDS = 6
"""How long each pass takes."""
SAMPLES_PER_S = 100
"""Each sample stops the process for about a millisecond."""
LOOKED_INTO = {"worker": 8, "master": 1, "chunkserver": 1}
"""Role -> how many of its processes py-spy joins."""
ANSWERING = {
    "worker": ("Gateway.respond (webdav/exchange.py)", ()),
    "master": ("_unary_response_in_pool (grpc/_server.py)", ()),
    "chunkserver": ("Session.answer (helenite/chunkserver/session.py)", ("Session._receive_head",)),
}
"""Role -> the function that answers requests, and those in it that only wait for the next one."""
LINES = 24
PY_SPY_END_S = 30


def profile(server: Server, rows: Iterable[Row], sizes: Sizes, console: Console) -> None:
    """Print, for each row, processor time by role and the functions that take it."""
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    with tempfile.TemporaryDirectory(prefix="helenite-bench-") as name, server.start(Path(name) / "data") as running:
        for row in rows:
            with Site(server.key, running, sizes, Content(1), is_checked=False) as site:
                figure = row.measure(site)  # warms up, makes the files
                console.rule(f"{row.title}: {figure:,.3g} {row.unit} on {server.title}")
                console.print(_uses_table(site, row))
                if spy is None:
                    console.print("install py-spy (pip install py-spy) to see which functions take it")
                    continue
                for role, stacks in _spy_on(spy, site, row, Path(name), "--idle").items():
                    console.print(_functions_table(f"{role}: time of the requests", answering(role, stacks)))
                for role, stacks in _spy_on(spy, site, row, Path(name), "--gil").items():
                    console.print(_functions_table(f"{role}: processor time in Python", stacks))


def answering(role: str, stacks: Counter[tuple[str, ...]]) -> Counter[tuple[str, ...]]:
    """Of all samples those in which a request was being answered, from the function on that does so."""
    start, waiting = ANSWERING[role]
    found: Counter[tuple[str, ...]] = Counter()
    for frames, count in stacks.items():
        if start in frames and not any(frame.startswith(waiting) for frame in frames if waiting):
            found[frames[frames.index(start) :]] += count
    return found


def _roles(running: Running) -> dict[int, str]:
    """Process id -> role."""
    found: dict[int, str] = {}
    for process in running.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            found[process.pid] = role_of(process)
    return found


def _uses_table(site: Site, row: Row) -> Table:
    roles = _roles(site.running) | {psutil.Process().pid: "this client"}
    before = {pid: _processor_s(pid) for pid in roles}
    requests, began = site.requests(), time.monotonic()
    while time.monotonic() - began < SECONDS:
        row.measure(site)
    elapsed, requests = time.monotonic() - began, site.requests() - requests
    used: dict[str, float] = {}
    for pid, role in roles.items():
        used[role] = used.get(role, 0.0) + _processor_s(pid) - before[pid]
    total = sum(used.values())
    table = Table(title=f"processor time, {requests:,} requests in {elapsed:.1f} s", title_justify="left")
    for title in ("processes", "cores", "µs a request"):
        table.add_column(title, justify="left" if title == "processes" else "right")
    for role, seconds in sorted(used.items(), key=lambda item: -item[1]):
        table.add_row(role, f"{seconds / elapsed:.2f}", f"{seconds / requests * 1e6:,.0f}")
    table.add_row("all", f"{total / elapsed:.2f}", f"{total / requests * 1e6:,.0f}")
    table.add_row("(waiting included)", "", f"{elapsed / requests * 1e6:,.0f}")
    return table


def _processor_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _spy_on(spy: str, site: Site, row: Row, directory: Path, which: str) -> dict[str, Counter[tuple[str, ...]]]:
    """Role -> stacks with how often each was seen, while the row runs."""
    left = Counter(LOOKED_INTO)
    joined: list[tuple[str, Path, subprocess.Popen[bytes]]] = []
    for pid, role in _roles(site.running).items():
        if left[role] > 0:
            left[role] -= 1
            path = directory / f"stacks-{row.key}{which}-{pid}"
            command = [spy, "record", "--pid", str(pid), "--duration", str(SECONDS), "--rate", str(SAMPLES_PER_S)]
            command += ["--format", "raw", which, "--output", str(path)]
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                     stderr=subprocess.DEVNULL)  # fmt: skip
            joined.append((role, path, child))
    while any(child.poll() is None for _, _, child in joined):
        row.measure(site)
    found: dict[str, Counter[tuple[str, ...]]] = {}
    for role, path, child in joined:
        child.wait(PY_SPY_END_S)
        if path.exists():
            found.setdefault(role, Counter()).update(parse_stacks(path.read_text()))
    return found


def parse_stacks(text: str) -> Counter[tuple[str, ...]]:
    """py-spy's raw format, `frame;frame;frame count` a line, without line numbers."""
    found: Counter[tuple[str, ...]] = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = tuple(re.sub(r":\d+\)$", ")", frame) for frame in stack.split(";"))
        found[frames] += int(count)
    return found


def _functions_table(title: str, stacks: Counter[tuple[str, ...]]) -> Table:
    """Functions by the time in themselves, beside functions by the time in them and what they call."""
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for frames, count in stacks.items():
        own[frames[-1]] += count
        for frame in set(frames):
            whole[frame] += count
    total = stacks.total() or 1
    seen = stacks.total() / (SECONDS * SAMPLES_PER_S)
    table = Table(title=f"{title}: {stacks.total():,} samples, {seen:.0%} of one thread's", title_justify="left")
    for heading in ("%", "in the function itself", "% ", "in it and all it calls"):
        table.add_column(heading, justify="right" if heading.startswith("%") else "left", no_wrap=True)
    for (own_name, own_count), (whole_name, whole_count) in zip_longest(
        own.most_common(LINES), _telling(whole, total), fillvalue=("", 0)
    ):
        table.add_row(_share(own_count, total), own_name, _share(whole_count, total), whole_name)
    return table


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if count else ""


def _telling(whole: Counter[str], total: int) -> list[tuple[str, int]]:
    """Functions by the time in all they call, without the outermost ones, which are in (nearly) every sample."""
    return [(name, count) for name, count in whole.most_common(3 * LINES) if count < 0.97 * total][:LINES]
