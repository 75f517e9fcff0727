"""The table on the terminal: medians, how Helenite compares with each server, which targets are met."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from tests.bench.results import Results
from tests.bench.rows import Row
from tests.bench.targets import TARGETS, judge

ONE_ROW = {"data-port": "data port", "disk": "disk"}
"""Servers that have a figure in one row only: they stand in the last column."""


def print_report(results: Results, console: Console) -> None:
    console.print(_medians(results))
    console.print(_ratios(results))
    console.print(_targets(results))
    facts = results.machine
    console.print(
        f"{facts['system']}, {facts['cores']} cores ({facts['processor']}), Python {facts['python']}; "
        f"load when each round began: {_loads(results)}. 'large' is {results.sizes.large_bytes >> 20} MiB. "
        f"All but Helenite acknowledge before their data is on a disk.",
        highlight=False,
    )
    for key, version in results.versions.items():
        console.print(f"  {key}: {version}", highlight=False)
    for key, how in results.left_out.items():
        console.print(f"  {key} is left out, it is not installed: {how}", highlight=False)
    for line in results.wrong:
        console.print(f"[bold red]wrong:[/] {line}", highlight=False)


def _columns(results: Results) -> list[str]:
    return [key for key in results.versions if key not in ONE_ROW]


def _medians(results: Results) -> Table:
    table = Table(title="Medians", title_justify="left")
    table.add_column("work")
    table.add_column("unit")
    columns = _columns(results)
    for key in columns:
        table.add_column(key, justify="right")
    table.add_column("also")
    for row in results.rows():
        table.add_row(row.title, row.unit, *(_cell(results, row, key) for key in columns), _also(results, row))
    return table


def _cell(results: Results, row: Row, server: str) -> str:
    value = results.figures().get((row.key, server))
    if value is None:
        return results.problem(row.key, server)[:24] or "-"
    return format_figure(value)


def _also(results: Results, row: Row) -> str:
    figures = results.figures()
    found = ((title, figures.get((row.key, key))) for key, title in ONE_ROW.items())
    return ", ".join(f"{title} {format_figure(value)}" for title, value in found if value is not None)


def _ratios(results: Results) -> Table:
    """Above 1: Helenite is better."""
    table = Table(title="Helenite against each: above 1 it is ahead", title_justify="left")
    table.add_column("work")
    others = [key for key in _columns(results) if key != "helenite"]
    for key in others:
        table.add_column(key, justify="right")
    figures = results.figures()
    for row in results.rows():
        ours = figures.get((row.key, "helenite"))
        cells = []
        for key in others:
            theirs = figures.get((row.key, key))
            if ours is None or theirs is None:
                cells.append("-")
                continue
            ratio = theirs / ours if row.is_time else ours / theirs
            cells.append(f"[{'green' if ratio >= 1 else 'red'}]{ratio:,.2f}[/]")
        table.add_row(row.title, *cells)
    return table


def _targets(results: Results) -> Table:
    table = Table(title="Targets", title_justify="left")
    for title in ("work", "server", "is", "to reach", "which is", "of it", ""):
        table.add_column(title, justify="right" if title in {"is", "which is", "of it"} else "left")
    figures = results.figures()
    titles = {row.key: row.title for row in results.rows()}
    for target in TARGETS:
        if target.row not in titles:
            continue
        verdict = judge(target, figures)
        if verdict is None:
            table.add_row(titles[target.row], target.server, "-", " or ".join(map(str, target.bounds)), "-", "-", "?")
            continue
        table.add_row(
            titles[target.row], target.server, format_figure(verdict.figure), str(verdict),
            format_figure(verdict.wanted), f"{verdict.ratio:.2f}", "[green]✔[/]" if verdict.is_met else "[red]✘[/]",
        )  # fmt: skip
    return table


def format_figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _loads(results: Results) -> str:
    loads = sorted(sample.load for sample in results.samples)
    return f"{loads[0]:.1f} to {loads[-1]:.1f}, median {loads[len(loads) // 2]:.1f}" if loads else "-"
