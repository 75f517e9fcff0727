"""`python -m tests.bench.sync`: our sync agents and Syncthing on this machine, side by side.

Both pairs run at the same time, idle but for the one that is measured, and take turns in every round, so that drift
hits both. Prints medians and what they are compared with; `--json` keeps every figure, with the processor time that the
devices and the servers took.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from tests.bench.machine import load, machine_facts
from tests.bench.servers import NotInstalledError
from tests.bench.sync.pairs import PROGRAMS, Pair
from tests.bench.sync.rows import QUICK, ROWS, Bench, Row, Sizes, WrongBytesError

MANY = 20
"""From so many figures on, percentiles are told."""
HUNDREDTHS = 100


@dataclass(frozen=True, slots=True)
class Sample:
    """The figures of one row on one pair in one round."""

    row: str
    program: str
    round: int
    seconds: list[float]
    devices_cpu_s: float
    servers_cpu_s: float
    load: float
    problem: str = ""


@dataclass(slots=True)
class Results:
    """A whole run."""

    machine: dict[str, Any]
    sizes: Sizes
    versions: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)

    def figures(self, row: str, program: str) -> list[float]:
        """All figures of a cell."""
        found = [sample for sample in self.samples if (sample.row, sample.program) == (row, program)]
        return [figure for sample in found for figure in sample.seconds]

    @property
    def problems(self) -> list[str]:
        return [f"{sample.row}, {sample.program}: {sample.problem}" for sample in self.samples if sample.problem]

    def save(self, path: Path) -> None:
        values = asdict(self)
        values["medians"] = {
            row.key: {key: statistics.median(found) for key in self.versions if (found := self.figures(row.key, key))}
            for row in ROWS
        }
        path.write_text(json.dumps(values, indent=1) + "\n")


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C: the stack unwinds, all children end
    console = Console(width=None if sys.stdout.isatty() else 160)
    results = run(options, console)
    report(results, console)
    if options.json:
        results.save(options.json)
    return 1 if results.problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sync", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", default="", help=f"some of: {','.join(row.key for row in ROWS)}")
    parser.add_argument("--programs", default="", help=f"some of: {','.join(each.key for each in PROGRAMS)}")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each row (default 3)")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run, not how fast is it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    return parser


def run(options: argparse.Namespace, console: Console) -> Results:
    rows = [row for row in ROWS if not options.rows or row.key in options.rows.split(",")]
    results = Results(machine_facts(), QUICK if options.quick else Sizes())
    with tempfile.TemporaryDirectory(prefix="helenite-sync-") as name, ExitStack() as stack:
        benches: dict[str, Bench] = {}
        for program in PROGRAMS:
            if options.programs and program.key not in options.programs.split(","):
                continue
            try:
                results.versions[program.key] = program.find()
            except NotInstalledError as missing:
                results.left_out[program.key] = str(missing)
                continue
            pair = stack.enter_context(program.start(Path(name) / program.key))
            benches[program.key] = Bench(pair, results.sizes)
        for row in rows:
            for number in range(options.rounds):
                turn = list(benches.items()) if number % 2 == 0 else list(reversed(benches.items()))
                for key, bench in turn:
                    results.samples.append(measure(row, key, bench, number))
                    _tell(results.samples[-1], console)
    return results


def measure(row: Row, key: str, bench: Bench, number: int) -> Sample:
    """One round. Wrong or missing bytes are no figure, and end the run with a failure."""
    bench.pair.wait_until_quiet()
    os.sync()  # nobody pays for what the one before has left unwritten
    before = load()
    devices, servers = _spent(bench.pair)
    problem, seconds = "", []
    try:
        seconds = row.measure(bench)
    except WrongBytesError as wrong:
        problem = str(wrong)
    bench.pair.wait_until_quiet()
    devices_after, servers_after = _spent(bench.pair)
    return Sample(row.key, key, number, seconds, devices_after - devices, servers_after - servers, before, problem)


def _spent(pair: Pair) -> tuple[float, float]:
    """Processor seconds so far of the devices and of the servers."""
    return sum(map(_cpu_s, pair.devices())), sum(map(_cpu_s, pair.servers()))


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _tell(sample: Sample, console: Console) -> None:
    figures = ", ".join(f"{figure:.2f}" for figure in sample.seconds[:5])
    console.print(
        f"{sample.row} {sample.program}: {figures or sample.problem} s, processor {sample.devices_cpu_s:.1f} s"
        f" + servers {sample.servers_cpu_s:.1f} s",
        highlight=False,
    )


def percentile(figures: list[float], hundredths: int) -> float:
    """By nearest rank."""
    ordered = sorted(figures)
    return ordered[max(0, -(-len(ordered) * hundredths // HUNDREDTHS) - 1)]


def report(results: Results, console: Console) -> None:
    table = Table(title="Seconds until the other device has it (median)", title_justify="left")
    for title in ("work", *results.versions, "ours / theirs"):
        table.add_column(title, justify="left" if title == "work" else "right")
    for row in ROWS:
        cells = {key: results.figures(row.key, key) for key in results.versions}
        if not any(cells.values()):
            continue
        table.add_row(row.title, *(_cell(found) for found in cells.values()), _ratio(cells))
    console.print(table)
    facts = results.machine
    console.print(
        f"{facts['system']}, {facts['cores']} cores ({facts['processor']}), Python {facts['python']}", highlight=False
    )
    for key, version in results.versions.items():
        console.print(f"  {key}: {version}", highlight=False)
    for key, how in results.left_out.items():
        console.print(f"  {key} is left out, it is not installed: {how}", highlight=False)
    for problem in results.problems:
        console.print(f"[bold red]wrong:[/] {problem}", highlight=False)


def _cell(figures: list[float]) -> str:
    if not figures:
        return "-"
    tail = f" (p99 {percentile(figures, 99):.2f})" if len(figures) >= MANY else ""
    return f"{statistics.median(figures):.2f}{tail}"


def _ratio(cells: dict[str, list[float]]) -> str:
    ours, theirs = cells.get("helenite"), cells.get("syncthing")
    return f"{statistics.median(ours) / statistics.median(theirs):.2f}" if ours and theirs else "-"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
