"""`python -m tests.chaos --minutes N --seed S`: random load, random faults, one verdict line.

A developer's command for soak runs. It starts a real cluster (two masters, four chunkservers, two gateway workers, a
Redis of its own), lets clients work through WebDAV while faults strike one after the other, and at the end holds the
whole tree against what the clients were told. Exit status 0 when nothing was lost, torn or refused without an excuse.
The seed decides what is chosen; threads and processes decide when, so that a seed repeats the mixture, not the moment.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.chaos.faults import Director
from tests.chaos.findings import Findings
from tests.chaos.load import Load
from tests.chaos.shared import check_shared, prepare_shared
from tests.support.cluster import Cluster
from tests.support.ports import free_port
from tests.support.processes import Usage, usage

CHUNKSERVERS = 4
CLIENTS = 6
SAMPLES = 8
"""How often memory and descriptors are looked at."""
POLL_S = 0.2
FULL_DISK_BYTES = 2 << 30
ENVIRONMENT = {
    "HELENITE_SUSPECT_AFTER_S": "2",
    "HELENITE_DEAD_AFTER_S": "4",
    "HELENITE_TRASH_S": "20",
    "HELENITE_GC_GRACE_S": "30",
    "HELENITE_RESERVE_BYTES": "16MiB",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--log", type=Path, help="JSON of all that happened (default: chaos-SEED.json)")
    parser.add_argument("--keep", action="store_true", help="keep the data directory")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="helenite-chaos-"))
    with small_disk(directory / "data" / f"chunkserver-{CHUNKSERVERS}") as ballast:
        outcome = run(directory / "data", options, ballast)
    log = options.log or Path(f"chaos-{options.seed}.json")
    log.write_text(json.dumps(outcome, indent=1, default=str))
    print(verdict(outcome), flush=True)
    is_good = not outcome["wrong"]
    if is_good and not options.keep:
        shutil.rmtree(directory)
    else:
        print(f"data in {directory}, log in {log}")
    return 0 if is_good else 1


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path | None]:
    """A file system of its own for one chunkserver, so that it can be filled; nothing where that is not allowed."""
    place.mkdir(parents=True)
    if os.geteuid() != 0 or sys.platform != "linux":
        yield None
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={FULL_DISK_BYTES}", "tmpfs", str(place)], check=True)
    try:
        yield place / "ballast"
    finally:
        subprocess.run(["umount", str(place)], check=True)


def run(directory: Path, options: argparse.Namespace, ballast: Path | None) -> dict[str, Any]:
    """The whole run; returns what the log holds."""
    began = time.monotonic()
    findings = Findings()
    arguments = ("--masters", "2", "--chunkservers", str(CHUNKSERVERS), "--workers", "2", "--port", str(free_port()))
    with Cluster(directory, *arguments, environment=ENVIRONMENT) as cluster:
        director = Director(cluster, random.Random(options.seed), ballast)
        with httpx.Client(base_url=cluster.url, timeout=60) as client:
            prepare_shared(client)
        clients = [Load(cluster.url, number, options.seed, findings) for number in range(1, options.clients + 1)]
        samples = work(cluster, director, clients, options.minutes * 60)
        director.recover("the end")
        for each in clients:
            each.settle()
            each.close()
        with httpx.Client(base_url=cluster.url, timeout=60) as client:
            check_shared(client, findings)
        director.recover("the final check")
        samples.append((time.monotonic() - began, usage(cluster)))
        final = cluster.status()
    return {
        "seed": options.seed,
        "minutes": options.minutes,
        "operations": dict(findings.operations),
        "slowest_s": {name: round(seconds, 2) for name, seconds in findings.slowest_s.items()},
        "faults": dict(Counter(window.kind for window in director.windows)),
        "fsck_runs": director.fsck_runs,
        "windows": [asdict(window) for window in director.windows],
        **judge(findings, director),
        "usage": [{"at_s": round(at), "processes": [asdict(item) for item in items]} for at, items in samples],
        "status": final,
    }


def work(cluster: Cluster, director: Director, clients: list[Load], seconds: float) -> list[tuple[float, list[Usage]]]:
    """Load and faults side by side; returns what the processes used at several points."""
    samples: list[tuple[float, list[Usage]]] = []
    stopping, calm = threading.Event(), threading.Event()
    began = time.monotonic()
    with ThreadPoolExecutor(len(clients) + 1) as pool:
        running = [pool.submit(client.run, stopping) for client in clients]
        faults = pool.submit(director.run, calm)
        try:
            while not director.begun.wait(POLL_S) and not any(task.done() for task in (*running, faults)):
                pass  # how long that takes is not counted
            for _ in range(SAMPLES):
                if calm.wait(seconds / SAMPLES) or any(task.done() for task in (*running, faults)):
                    break  # one has crashed: its result says why
                with contextlib.suppress(AssertionError, psutil.NoSuchProcess):  # everything has just been killed
                    samples.append((time.monotonic() - began, usage(cluster)))
        finally:
            calm.set()
            faults.exception()
            stopping.set()
        for task in (*running, faults):
            task.result()
    return samples


def judge(findings: Findings, director: Director) -> dict[str, Any]:
    """What was wrong, and what was excused."""
    excused: Counter[str] = Counter()
    unexcused: list[str] = []
    for failure in findings.failures:
        kind = director.excuse(failure.began_at, failure.ended_at)
        if kind:
            excused[kind] += 1
        else:
            seconds = failure.ended_at - failure.began_at
            when = director.during(failure.began_at, failure.ended_at)
            unexcused.append(f"{failure.what}: {failure.why} after {seconds:.1f} s, during {when}")
    return {
        "excused": dict(excused),
        "failures": [asdict(failure) for failure in findings.failures],
        "unexcused": unexcused,
        "violations": findings.violations,
        "problems": director.problems,
        "wrong": unexcused + findings.violations + director.problems,
    }


def verdict(outcome: dict[str, Any]) -> str:
    """Details, then the one line."""
    lines = [f"WRONG: {text}" for text in outcome["wrong"]]
    lines += [f"slowest: {json.dumps(outcome['slowest_s'])}", *usage_lines(outcome["usage"])]
    lost = sum(text.startswith(("missing", "wrong content")) or ": missing" in text for text in outcome["violations"])
    lines.append(
        f"{'OK' if not outcome['wrong'] else 'FAILED'} seed {outcome['seed']}, {outcome['minutes']:g} minutes, "
        f"{sum(outcome['operations'].values())} operations, faults {json.dumps(outcome['faults'])}, "
        f"failed requests {len(outcome['failures'])} (excused {json.dumps(outcome['excused'])}, "
        f"unexcused {len(outcome['unexcused'])}), lost {lost}, violations {len(outcome['violations'])}, "
        f"not repaired {len(outcome['problems'])}"
    )
    return "\n".join(lines)


def usage_lines(samples: list[dict[str, Any]]) -> list[str]:
    """For each part: the largest process at each point."""
    roles = sorted({item["role"] for sample in samples for item in sample["processes"]})
    lines: list[str] = []
    for role in roles:
        found = [[item for item in sample["processes"] if item["role"] == role] for sample in samples]
        points = [
            f"{max(item['resident_bytes'] for item in items) >> 20}/{max(item['descriptors'] for item in items)}"
            for items in found
            if items
        ]
        lines.append(f"{role}: MiB/descriptors {' '.join(points)}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
