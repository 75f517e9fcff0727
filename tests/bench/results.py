"""What was measured: one sample for each row, server and round; medians; the JSON that a run leaves behind.

Filled by `__main__`, read by `report` and `chart`. Pure but for writing the file.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.rows import ROWS, Row
from tests.bench.site import Sizes
from tests.bench.targets import judge_all


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure, or why there is none."""

    row: str
    server: str
    round: int
    value: float | None
    problem: str
    load: float
    """The machine's load average right before."""


@dataclass(slots=True)
class Results:
    """A whole run."""

    machine: dict[str, Any]
    sizes: Sizes
    versions: dict[str, str]
    """Server -> version, in the order of the columns."""
    left_out: dict[str, str]
    """Server that is not installed -> what to install."""
    samples: list[Sample] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Where bytes were not what they should have been."""

    def rows(self) -> list[Row]:
        measured = {sample.row for sample in self.samples}
        return [row for row in ROWS if row.key in measured]

    def figures(self) -> dict[tuple[str, str], float]:
        """(row, server) -> median of its rounds."""
        values: dict[tuple[str, str], list[float]] = {}
        for sample in self.samples:
            if sample.value is not None:
                values.setdefault((sample.row, sample.server), []).append(sample.value)
        return {place: statistics.median(found) for place, found in values.items()}

    def problem(self, row: str, server: str) -> str:
        """Why a cell has no figure."""
        return next((s.problem for s in self.samples if (s.row, s.server) == (row, server) and s.problem), "")

    def spread(self, row: str, server: str) -> float:
        """(largest - smallest) / median of the rounds; 0 when there are fewer than two."""
        values = [s.value for s in self.samples if (s.row, s.server) == (row, server) and s.value is not None]
        return (max(values) - min(values)) / statistics.median(values) if len(values) > 1 else 0.0

    def save(self, path: Path) -> None:
        figures = self.figures()
        document = {
            "machine": self.machine,
            "sizes": asdict(self.sizes),
            "versions": self.versions,
            "left_out": self.left_out,
            "wrong": self.wrong,
            "medians": _nested((row, server, value) for (row, server), value in figures.items()),
            "targets": [
                {
                    "row": v.target.row, "server": v.target.server, "figure": v.figure, "bound": str(v),
                    "wanted": v.wanted, "ratio": v.ratio, "is_met": v.is_met,
                }
                for v in judge_all(figures)
            ],
            "samples": [asdict(sample) for sample in self.samples],
        }  # fmt: skip
        path.write_text(json.dumps(document, indent=1) + "\n")


def _nested(items: Iterable[tuple[str, str, float]]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for row, server, value in items:
        found.setdefault(row, {})[server] = value
    return found
