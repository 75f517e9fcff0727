"""What Helenite is to reach in each row, as data, and whether it does. Pure.

Used by `report` and `chart`. The figures are those that the project set itself: a floor (for times, a ceiling) that is
either a number or a factor on what another server did in the same run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Figures = Mapping[tuple[str, str], float]
"""(row, server) -> median."""


@dataclass(frozen=True, slots=True)
class Bound:
    """`factor` times what `server` did in the same row, or `factor` itself when no server is named."""

    factor: float
    server: str = ""

    def value(self, row: str, figures: Figures) -> float | None:
        """None when that server was not measured."""
        if not self.server:
            return self.factor
        found = figures.get((row, self.server))
        return None if found is None else found * self.factor

    def __str__(self) -> str:
        if not self.server:
            return f"{self.factor:,g}"
        return self.server if self.factor == 1 else f"{self.factor:g}x {self.server}"


@dataclass(frozen=True, slots=True)
class Target:
    """`server` is to reach one of the bounds."""

    row: str
    bounds: tuple[Bound, ...]
    server: str = "helenite"
    is_ceiling: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a target was met. `ratio` is above 1 when it is more than met, also for times."""

    target: Target
    figure: float
    bound: Bound
    wanted: float
    ratio: float

    @property
    def is_met(self) -> bool:
        return self.ratio >= 1

    def __str__(self) -> str:
        sign = "≤" if self.target.is_ceiling else "≥"
        return f"{sign} {self.bound}"


def _floor(row: str, *bounds: Bound, server: str = "helenite") -> Target:
    return Target(row, bounds, server)


def _ceiling(row: str, *bounds: Bound) -> Target:
    return Target(row, bounds, is_ceiling=True)


TARGETS = (
    _floor("put_large", Bound(1.8, "seaweedfs-3")),
    _floor("put_large", Bound(0.85, "disk")),
    _floor("put_large", Bound(2.5, "seaweedfs-3"), server="helenite-relaxed"),
    _floor("get_large", Bound(1, "apache")),
    _floor("get_large", Bound(1000), server="data-port"),
    _floor("get_large_4", Bound(1, "apache")),
    _floor("ranges", Bound(2000), Bound(0.5, "apache")),
    _floor("put_small_1", Bound(2.5, "seaweedfs-3")),
    _floor("put_small_1", Bound(3.5, "seaweedfs-3"), server="helenite-relaxed"),
    _floor("put_small_8", Bound(2, "seaweedfs-3")),
    _floor("put_small_8", Bound(2.7, "seaweedfs-3"), server="helenite-relaxed"),
    _floor("get_small_1", Bound(1, "wsgidav")),
    _floor("get_small_8", Bound(2.5, "seaweedfs-3")),
    _ceiling("propfind_1000", Bound(1, "apache")),
    _ceiling("propfind_changed", Bound(15)),
    _floor("propfind_0", Bound(2.5, "seaweedfs-3")),
    _ceiling("copy_large", Bound(10)),
    _ceiling("copy_directory", Bound(30)),
    _ceiling("move_directory", Bound(5)),
    _ceiling("delete_directory", Bound(5)),
)


def judge(target: Target, figures: Figures) -> Verdict | None:
    """The verdict by the bound that is met best; None when the server or all those it is held against are missing."""
    figure = figures.get((target.row, target.server))
    if figure is None:
        return None
    verdicts = []
    for bound in target.bounds:
        wanted = bound.value(target.row, figures)
        if wanted is not None:
            ratio = wanted / figure if target.is_ceiling else figure / wanted
            verdicts.append(Verdict(target, figure, bound, wanted, ratio))
    return max(verdicts, key=lambda verdict: verdict.ratio, default=None)


def judge_all(figures: Figures) -> list[Verdict]:
    return [verdict for target in TARGETS if (verdict := judge(target, figures)) is not None]
