"""What travels together: whatever threads ask for while one request is on its way goes with the next one.

Used by `filesystem` and `names`. One thread asks for itself and for all that have come meanwhile, then hands over to
the first of those that came since: nobody waits for a timer, a single caller waits for nobody, and under load one
round trip and one flush to disk serve many. Thread-safe: one lock guards what waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")

BATCH_MAX = 64
"""Asked for together: a master's script queue is held up by some milliseconds at most."""


class _Waiting(Generic[Q, A]):
    """One caller's question, and what has come of it."""

    __slots__ = ("answer", "error", "is_leader", "question", "woken")

    def __init__(self, question: Q) -> None:
        self.question = question
        self.answer: A | None = None
        self.error: Exception | None = None
        self.is_leader = False
        self.woken = threading.Event()


class Batches(Generic[Q, A]):
    """Calls `ask` with lists of questions, one list at a time."""

    def __init__(self, ask: Callable[[Sequence[Q]], Sequence[A]]) -> None:
        """`ask` answers each question in order; what it raises, all of its list get."""
        self._ask = ask
        self._lock = threading.Lock()  # guards the two below
        self._waiting: list[_Waiting[Q, A]] = []
        self._is_busy = False

    def call(self, question: Q) -> A:
        """The answer to one question."""
        mine: _Waiting[Q, A] = _Waiting(question)
        with self._lock:
            self._waiting.append(mine)
            mine.is_leader, self._is_busy = not self._is_busy, True
        if not mine.is_leader:
            mine.woken.wait()
        if mine.is_leader:
            self._lead()
        if mine.error is not None:
            raise mine.error
        assert mine.answer is not None
        return mine.answer

    def _lead(self) -> None:
        """Ask for the first that wait, oneself among them, and hand over."""
        with self._lock:
            batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
        try:
            for waiting, answer in zip(batch, self._ask([each.question for each in batch]), strict=True):
                waiting.answer = answer
        except Exception as error:  # noqa: BLE001 - every caller of the batch raises it
            for waiting in batch:
                waiting.error = error
        with self._lock:
            successor = self._waiting[0] if self._waiting else None
            self._is_busy = successor is not None
        if successor is not None:
            successor.is_leader = True
            successor.woken.set()
        for waiting in batch:
            waiting.woken.set()
