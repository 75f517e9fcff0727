"""`--profile`: where the time of a row goes, by process and by function.

Used by `__main__`. Runs one row again and again on a Helenite of its own, unchecked: first to count the processor time
of each process for each request, then with py-spy looking into the gateway's workers, the master and one chunkserver.
py-spy is the tool because it joins processes that run and sees all their threads; cProfile can do neither.
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
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from tests.bench.rows import Row
from tests.bench.servers import Running, Server
from tests.bench.site import Content, Site, Sizes
from tests.support.processes import role_of

SECONDS = 6
"""How long each of the two passes takes."""
SAMPLES_PER_S = 200
LOOKED_INTO = {"worker": 8, "master": 1, "chunkserver": 1}
"""Role -> how many of its processes py-spy joins."""
LINES = 18
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
                for role, stacks in _spy_on(spy, site, row, Path(name)).items():
                    console.print(_functions_table(role, stacks))


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


def _spy_on(spy: str, site: Site, row: Row, directory: Path) -> dict[str, Counter[tuple[str, ...]]]:
    """Role -> stacks with how often each was seen, while the row runs."""
    left = Counter(LOOKED_INTO)
    joined: list[tuple[str, Path, subprocess.Popen[bytes]]] = []
    for pid, role in _roles(site.running).items():
        if left[role] > 0:
            left[role] -= 1
            path = directory / f"stacks-{row.key}-{pid}"
            command = [spy, "record", "--pid", str(pid), "--duration", str(SECONDS), "--rate", str(SAMPLES_PER_S)]
            command += ["--format", "raw", "--nonblocking", "--output", str(path)]
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


def _functions_table(role: str, stacks: Counter[tuple[str, ...]]) -> Table:
    """Functions by the time in themselves, beside functions by the time in them and what they call."""
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for frames, count in stacks.items():
        own[frames[-1]] += count
        for frame in set(frames):
            whole[frame] += count
    total = stacks.total() or 1
    table = Table(title=f"{role}: {total:,} samples in which a thread was running", title_justify="left")
    for title in ("%", "in the function itself", "% ", "in it and all it calls"):
        table.add_column(title, justify="right" if title.startswith("%") else "left", no_wrap=True)
    for (own_name, own_count), (whole_name, whole_count) in zip(
        own.most_common(LINES), _telling(whole, total), strict=False
    ):
        table.add_row(f"{own_count / total:.1%}", own_name, f"{whole_count / total:.1%}", whole_name)
    return table


def _telling(whole: Counter[str], total: int) -> list[tuple[str, int]]:
    """Functions by the time in all they call, without the outermost ones, which are in (nearly) every sample."""
    return [(name, count) for name, count in whole.most_common(3 * LINES) if count < 0.97 * total][:LINES]
