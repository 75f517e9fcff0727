"""How much chunks may still take on this chunkserver's disk.

Used by `store`, and by `peers` to tell the masters. Chunks that are being received count as taken within the capacity,
by the sizes that they will have; on the disk they do not until their bytes are there. Thread-safe.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from helenite.chunkserver.disk import disk_errors
from helenite.core.clock import Clock
from helenite.core.errors import UnavailableError
from helenite.core.model import ChunkHandle

REFUSED_S = 10.0
"""After the disk has refused a write no more chunks are asked for, for so long: each would cost its writer a retry."""


class Room:
    """The disk's free space less the reserve, within the capacity; a capacity of 0 is no limit."""

    def __init__(
        self,
        directory: Path,
        *,
        reserve_bytes: int,
        capacity_bytes: int,
        used_bytes: Callable[[], int],
        check_in_place: Callable[[], None],
        clock: Clock,
    ) -> None:
        """`used_bytes` says what living chunks take; `check_in_place` raises when the directory has gone."""
        self._directory = directory
        self._check_in_place = check_in_place
        self._reserve_bytes = reserve_bytes
        self._capacity_bytes = capacity_bytes
        self._used_bytes = used_bytes
        self._clock = clock
        self._refused_at = float("-inf")
        self._lock = threading.Lock()  # guards the one below
        self._receiving: dict[ChunkHandle, int] = {}
        """Chunks that are being written, with the space that they will take."""

    def free_bytes(self) -> int:
        """What chunks may still use. UnavailableError when the disk does not tell, or has gone away."""
        self._check_in_place()
        with disk_errors("looking at the disk's free space"):
            state = os.statvfs(self._directory)
        free = state.f_bavail * state.f_frsize - self._reserve_bytes
        if self._capacity_bytes:
            with self._lock:
                expected = sum(self._receiving.values())
            free = min(free, self._capacity_bytes - self._used_bytes() - expected)
        return max(0, free)

    def offered_bytes(self) -> int:
        """What masters are told is free: nothing while the disk refuses to be written."""
        return 0 if self._clock.monotonic_s() - self._refused_at < REFUSED_S else self.free_bytes()

    def capacity_bytes(self) -> int:
        """All that chunks may use."""
        return self._capacity_bytes or self._used_bytes() + self.free_bytes()

    @contextmanager
    def noting_refusals(self) -> Iterator[None]:
        """Around what writes to the disk, which may refuse that for another reason than being full."""
        try:
            yield
        except UnavailableError:
            self._refused_at = self._clock.monotonic_s()
            raise

    def take(self, sizes: dict[ChunkHandle, int]) -> set[ChunkHandle]:
        """For chunks that are to be received now; those that nobody is receiving already, to be given back later."""
        with self._lock:
            mine = sizes.keys() - self._receiving.keys()
            self._receiving.update((handle, sizes[handle]) for handle in mine)
        return mine

    def give_back(self, handles: Iterable[ChunkHandle]) -> None:
        """These are not being received any more."""
        with self._lock:
            for handle in handles:
                self._receiving.pop(handle, None)
