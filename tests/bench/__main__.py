"""`python -m tests.bench`: Helenite and every other WebDAV server on this machine, side by side, with one client.

Starts all of them on loopback, measures the rows in rounds in which the servers take turns (so that drift hits all),
compares every byte, and prints medians, ratios and which targets are met. README.md says how it is used.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from tests.bench.curves import Limits, as_json, run_curves
from tests.bench.http_client import TransferError
from tests.bench.machine import load, machine_facts
from tests.bench.profiles import profile
from tests.bench.report import format_figure, print_report
from tests.bench.results import Results, Sample
from tests.bench.rows import ROWS, Row
from tests.bench.servers import SERVERS, NotInstalledError, Server
from tests.bench.site import QUICK, Content, RefusedError, Site, Sizes, WrongBytesError

CONTENT_SEED = 4
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be run."""

    rows: tuple[Row, ...]
    servers: tuple[Server, ...]
    rounds: int
    sizes: Sizes


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C: the stack unwinds, all children end
    console = Console(width=None if sys.stdout.isatty() else 200)
    choice = choose(options)
    if options.profile:
        profile(choice.servers[0], choice.rows, choice.sizes, console)
        return 0
    with tempfile.TemporaryDirectory(prefix="helenite-bench-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # Apache's user must pass through
        if options.curves:
            return grow(options, directory, console)
        results = run(choice, directory, console)
    print_report(results, console)
    if options.json:
        results.save(options.json)
    if options.chart:
        from tests.bench.chart import draw_chart  # noqa: PLC0415 - matplotlib is needed for nothing else

        draw_chart(results, options.chart)
    return 1 if results.wrong else 0


def grow(options: argparse.Namespace, directory: Path, console: Console) -> int:
    """The growth curves instead of the rows."""
    points = run_curves(Limits(options.max_files, options.max_gib), directory, console)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine_facts(), "points": as_json(points)}, indent=1) + "\n")
    if options.chart:
        from tests.bench.chart import draw_curves  # noqa: PLC0415 - matplotlib is needed for nothing else

        draw_curves(points, options.chart)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", default="", help=f"some of: {','.join(row.key for row in ROWS)}")
    parser.add_argument("--servers", default="", help=f"some of: {','.join(server.key for server in SERVERS)}")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of each row (default 5, quick: 1)")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run, not how fast is it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample, the medians and the targets")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw FILE.svg and FILE.png (needs matplotlib)")
    parser.add_argument("--profile", action="store_true", help="where the time goes in these rows, on one server")
    parser.add_argument("--curves", action="store_true", help="how Helenite's figures change as things grow")
    parser.add_argument("--max-files", type=int, default=100_000, help="where the curves end (default 100,000)")
    parser.add_argument("--max-gib", type=int, default=2, help="largest file of the curves in GiB (default 2)")
    return parser


def choose(options: argparse.Namespace) -> Choice:
    rows = _pick(options.rows, {row.key: row for row in ROWS})
    servers = _pick(options.servers, {server.key: server for server in SERVERS})
    sizes = QUICK if options.quick else Sizes()
    wanted = {row.key for row in rows}
    useful = tuple(server for server in servers if server.rows is None or server.rows & wanted)
    return Choice(rows, useful, options.rounds or (1 if options.quick else 5), sizes)


def _pick(text: str, known: dict[str, T]) -> tuple[T, ...]:
    keys = [key for key in text.split(",") if key] or list(known)
    if unknown := [key for key in keys if key not in known]:
        raise SystemExit(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    return tuple(known[key] for key in known if key in keys)


def run(choice: Choice, directory: Path, console: Console) -> Results:
    results = Results(machine_facts(), choice.sizes, {}, {})
    with ExitStack() as stack:
        sites = start_all(choice, directory, results, stack, console)
        for row in choice.rows:
            began = time.monotonic()
            taking = [site for key, site in sites.items() if _serves(choice, key, row)]
            for site in taking:
                with contextlib.suppress(RefusedError):  # the row itself will be refused, and say so
                    row.needs(site.fixtures)
            for number in range(choice.rounds):
                turn = number % max(len(taking), 1)
                for site in taking[turn:] + taking[:turn]:
                    results.samples.append(measure(row, site, number, results))
            _tell(row, results, time.monotonic() - began, console)
    return results


def start_all(choice: Choice, directory: Path, results: Results, stack: ExitStack, console: Console) -> dict[str, Site]:
    """Start every chosen server that is installed; the stack ends them."""
    content = Content(CONTENT_SEED)
    sites: dict[str, Site] = {}
    for server in choice.servers:
        try:
            results.versions[server.key] = server.find()
        except NotInstalledError as missing:
            results.left_out[server.key] = str(missing)
            console.print(f"{server.title} is left out, it is not installed: {missing}")
            continue
        console.print(f"starting {server.title} {results.versions[server.key]}", highlight=False)
        running = stack.enter_context(server.start(directory / server.key))
        sites[server.key] = stack.enter_context(Site(server.key, running, choice.sizes, content))
    return sites


def _serves(choice: Choice, key: str, row: Row) -> bool:
    rows = next(server.rows for server in choice.servers if server.key == key)
    return rows is None or row.key in rows


def measure(row: Row, site: Site, number: int, results: Results) -> Sample:
    """One round. What a server refuses is shown in its cell; wrong bytes are also reported at the end."""
    os.sync()  # nobody pays for what the one before has left unwritten
    before = load()
    try:
        return Sample(row.key, site.key, number, row.measure(site), "", before)
    except RefusedError as refused:
        return Sample(row.key, site.key, number, None, str(refused), before)
    except (WrongBytesError, TransferError) as wrong:
        results.wrong.append(f"{row.title}, {site.key}: {wrong}")
        return Sample(row.key, site.key, number, None, f"wrong: {wrong}", before)


def _tell(row: Row, results: Results, took_s: float, console: Console) -> None:
    figures = results.figures()
    parts = []
    for key in results.versions:
        value = figures.get((row.key, key))
        if value is not None:
            parts.append(f"{key} {format_figure(value)} (±{results.spread(row.key, key) / 2:.0%})")
        elif problem := results.problem(row.key, key):
            parts.append(f"{key} {problem}")
    console.print(f"{row.title} [{row.unit}] in {took_s:.0f} s: {', '.join(parts)}", highlight=False, markup=False)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
