"""How much of a large file goes to the server in one request: as much as the line takes in some seconds.

Used by `partwise` and `deliveries`. What a line gives is learnt from every large upload, also from one that broke off:
else a slow line that breaks again and again would never bring more than the beginning of a file. Any thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from helenite.core.clock import Clock

MIB = 1 << 20
PART_S = 10.0
"""A break costs at most so much of the upload, about."""
PART_BYTES = (16 * MIB, 1024 * MIB)
FIRST_PART_BYTES = 192 * MIB
"""Of the first part as long as nobody knows how fast the line is: a second or so of a fast one."""
ROUND_BYTES = 8 * MIB
"""Parts are multiples of the server's chunks as they usually are, so that the file is made of whole ones."""
ALONE = 1.5
"""What is not this much longer than a part goes in one."""
MEASURED_S = 5.0
"""What took so long tells how fast the line is, however little it was; else it is to be PART_BYTES at least, for of a
small rest most of the time is the commit's."""


class Pace:
    """The line to one server."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.bytes_per_s: float | None = None
        """None: nobody knows yet."""

    def part_bytes(self) -> int:
        """So much should go in one request."""
        if self.bytes_per_s is None:
            return FIRST_PART_BYTES
        least, most = PART_BYTES
        return int(min(most, max(least, self.bytes_per_s * PART_S))) // ROUND_BYTES * ROUND_BYTES

    def is_too_much(self, size: int) -> bool:
        """Whether so many bytes should go in several."""
        return size > ALONE * self.part_bytes()

    @contextmanager
    def measured(self, content: Iterator[bytes]) -> Iterator[Iterator[bytes]]:
        """The same content, whose sending inside the block is measured, whatever comes of it."""
        began_s, sent = self._clock.monotonic_s(), 0

        def counted() -> Iterator[bytes]:
            nonlocal sent
            for piece in content:
                yield piece
                sent += len(piece)

        try:
            yield counted()
        finally:
            took_s = self._clock.monotonic_s() - began_s
            if sent >= PART_BYTES[0] or took_s >= MEASURED_S:
                self.bytes_per_s = sent / max(0.001, took_s)
