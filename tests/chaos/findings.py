"""What the clients of a load found: what they did, what failed, what must not be.

Used by `load`, `drive`, `shared` and the fault tests.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Failure:
    """A request without an answer, or with a 5xx."""

    began_at: float
    ended_at: float
    what: str
    why: str


@dataclass(slots=True)
class Findings:
    """What all clients found. The lock guards the rest."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    operations: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    slowest_s: dict[str, float] = field(default_factory=dict)
    increments: list[int] = field(default_factory=list)
    open_increments: int = 0

    def violation(self, what: str) -> None:
        with self.lock:
            self.violations.append(what)

    def failed(self, failure: Failure) -> None:
        with self.lock:
            self.failures.append(failure)

    def done(self, what: str, seconds: float) -> None:
        with self.lock:
            self.operations[what] += 1
            self.slowest_s[what] = max(seconds, self.slowest_s.get(what, 0.0))
