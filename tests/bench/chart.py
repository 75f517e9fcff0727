"""Charts as SVG and PNG: of a run, one panel a row, one bar a server, a line where the target is; of the curves.

Used by `__main__` with `--chart`; the only place that needs matplotlib.
"""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.bench.curves import Point
from tests.bench.report import format_figure
from tests.bench.results import Results
from tests.bench.rows import Row
from tests.bench.targets import judge_all

COLUMNS = 3
OURS = "#0b6e4f"
THEIRS = "#b8bec6"
MET = "#111111"
MISSED = "#c0392b"


def draw_chart(results: Results, path: Path) -> None:
    """The rows of a run, each server a bar."""
    rows = results.rows()
    lines = math.ceil(len(rows) / COLUMNS)
    height = 0.24 * len(results.versions) + 0.75
    figure, axes = plt.subplots(lines, COLUMNS, figsize=(5 * COLUMNS, height * lines), squeeze=False)
    for place in range(lines * COLUMNS):
        panel = axes[place // COLUMNS][place % COLUMNS]
        if place < len(rows):
            _draw_row(panel, rows[place], results)
        else:
            panel.set_axis_off()
    figure.suptitle("Helenite and others, one machine, one client; dashed: the target, red where it is missed", y=1.0)
    _save(figure, path)


def draw_curves(points: list[Point], path: Path) -> None:
    """One line of panels a curve: each figure, then the memory of each part."""
    curves = list(dict.fromkeys(point.curve for point in points))
    width = 1 + max(len(point.figures) for point in points)
    figure, axes = plt.subplots(len(curves), width, figsize=(3.6 * width, 2.8 * len(curves)), squeeze=False)
    for panels, curve in zip(axes, curves, strict=True):
        found = [point for point in points if point.curve == curve]
        grown = [point.grown for point in found]
        for panel in panels:
            panel.set_axis_off()
        for panel, name in zip(panels, found[0].figures, strict=False):
            _draw_curve(panel, grown, {"": [point.figures[name] for point in found]}, name, curve)
        roles = found[0].memory
        memory = {role: [point.memory.get(role, (0, 0))[1] / 1e6 for point in found] for role in roles}
        _draw_curve(panels[-1], grown, memory, "highest memory, MB", curve)
        panels[-1].legend(fontsize=6)
    _save(figure, path)


def _draw_curve(panel: Axes, grown: list[int], lines: dict[str, list[float]], name: str, curve: str) -> None:
    panel.set_axis_on()
    for label, values in lines.items():
        panel.plot(grown, values, marker="o", markersize=3, label=label, color=None if label else OURS)
    panel.set_xscale("log")
    panel.set_ylim(bottom=0)
    panel.set_title(name, fontsize=9, loc="left")
    panel.set_xlabel(curve, fontsize=8)
    panel.tick_params(labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    """Write `path` with the endings .svg and .png."""
    figure.tight_layout()
    for suffix in (".svg", ".png"):
        figure.savefig(path.with_suffix(suffix), dpi=120)
    plt.close(figure)


def _draw_row(panel: Axes, row: Row, results: Results) -> None:
    figures = results.figures()
    shown = [(key, figures[row.key, key]) for key in reversed(results.versions) if (row.key, key) in figures]
    if not shown:
        panel.set_axis_off()
        return
    names, values = [key for key, _ in shown], [value for _, value in shown]
    ours = {"helenite", "helenite-relaxed", "data-port"}
    bars = panel.barh(names, values, color=[OURS if name in ours else THEIRS for name in names])
    panel.bar_label(bars, [format_figure(value) for value in values], padding=3, fontsize=8)
    for verdict in judge_all(figures):
        if verdict.target.row == row.key and verdict.target.server in names:
            at = names.index(verdict.target.server)
            colour = MET if verdict.is_met else MISSED
            panel.plot([verdict.wanted] * 2, [at - 0.55, at + 0.55], color=colour, linestyle="--", linewidth=1.6)
    better = "less is better" if row.is_time else "more is better"
    panel.set_title(f"{row.title}, {row.unit} ({better})", fontsize=9, loc="left")
    if max(values) > 30 * min(values):
        panel.set_xscale("log")
    panel.margins(x=0.15)
    panel.tick_params(labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)
