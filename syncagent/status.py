"""How a pair is doing, in words that the command line and the tray show. Used by `runner`, `control` and the faces.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
    troubles: tuple[str, ...] = ()
    waiting: int = 0
    cycles: int = 0
    is_settled: bool = False
    """Both sides were found equal in the last cycle, and nothing has been noticed since."""
    watch_trouble: str = ""
