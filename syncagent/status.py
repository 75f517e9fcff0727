"""How the agent and its pairs are doing, in words that the command line and the tray show.

Made by `runner` and `daemon`; crosses the control socket as JSON. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Mood(StrEnum):
    """What one icon can say."""

    IDLE = "idle"
    SYNCING = "syncing"
    PAUSED = "paused"
    OFFLINE = "offline"
    ATTENTION = "attention"


@dataclass(frozen=True, slots=True)
class PairStatus:
    """One pair. `problem` needs a person; `troubles` are single entries that cannot be brought over."""

    id: str
    folder: str
    url: str
    mood: Mood = Mood.SYNCING
    sentence: str = "starting"
    problem: str = ""
    decisions: tuple[str, ...] = ()
    """What a person can say to the problem (`helenite sync decide`)."""
    troubles: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    """Paths of conflict copies that nobody has cleared away, as the last cycle found them."""
    done: int = 0
    left: int = 0
    """Entries that were brought over since both sides were last equal, and those that are still to be."""
    cycles: int = 0
    crashes: int = 0
    """How often a bug ended a thread of this pair, which then began again."""
    is_settled: bool = False
    """Both sides were found equal in the last cycle, and nothing has been noticed since."""
    watch_trouble: str = ""


@dataclass(frozen=True, slots=True)
class Recent:
    """A file that was brought over a while ago; `path` is below `folder`."""

    at_ms: int
    folder: str
    path: str


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """All pairs of one home, what they did last (newest first), and how the tray is doing."""

    pairs: tuple[PairStatus, ...] = ()
    recent: tuple[Recent, ...] = ()
    tray: str = ""


def parse_status(values: dict[str, Any]) -> AgentStatus:
    """As it came over the control socket."""
    pairs = tuple(_parse_pair(pair) for pair in values["pairs"])
    return AgentStatus(pairs, tuple(Recent(**recent) for recent in values["recent"]), values["tray"])


def _parse_pair(values: dict[str, Any]) -> PairStatus:
    plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    plain["mood"] = Mood(values["mood"])
    return PairStatus(**plain)
