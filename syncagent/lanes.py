"""The threads that transfers run on: some for small files, others for large ones, shared by all pairs.

So a large file never holds up a small one. Used by `runner`: a pair sees a Lane, which tells when transfers are over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

SMALL_THREADS = 4
"""A request for a small file waits for the server most of its time."""
LARGE_THREADS = 2

Given = ParamSpec("Given")
Result = TypeVar("Result")


class Pools:
    """The threads of the agent."""

    def __init__(self) -> None:
        self.small = ThreadPoolExecutor(SMALL_THREADS, "small")
        self.large = ThreadPoolExecutor(LARGE_THREADS, "large")

    def stop(self) -> None:
        """Begin nothing more; what is under way ends by itself or with the process."""
        self.small.shutdown(wait=False, cancel_futures=True)
        self.large.shutdown(wait=False, cancel_futures=True)


class Lane(Executor):
    """A pool as one pair uses it; `on_done` hears of each transfer that is over, with how many are left."""

    def __init__(self, pool: ThreadPoolExecutor, on_done: Callable[[int], None]) -> None:
        self._pool = pool
        self._on_done = on_done
        self._lock = threading.Lock()  # guards the count
        self._count = 0

    def submit(self, fn: Callable[Given, Result], /, *args: Given.args, **kwargs: Given.kwargs) -> Future[Result]:
        future = self._pool.submit(fn, *args, **kwargs)
        with self._lock:
            self._count += 1
        future.add_done_callback(self._end)
        return future

    def _end(self, _: Future[Any]) -> None:
        with self._lock:
            self._count -= 1
            left = self._count
        self._on_done(left)
