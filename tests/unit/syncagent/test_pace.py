"""How large the parts are that a large file goes in, and how that is learnt."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from helenite.core.clock import Clock
from helenite.core.errors import HeleniteError
from syncagent.pace import Pace

MIB = 1 << 20


def test_parts_take_as_long_as_the_line_gives() -> None:
    line = Pace(Clock())
    assert line.part_bytes() == 192 * MIB
    for rate, expected in ((1000, 16 * MIB), (2.5 * MIB, 24 * MIB), (1e12, 1024 * MIB)):
        line.bytes_per_s = rate
        assert line.part_bytes() == expected


class _StoppedClock(Clock):
    now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("sent", "took_s", "rate"), [(1, 4.9, 16 * MIB / 4.9), (0, 4.9, None), (0, 8, MIB), (4, 2, 32 * MIB)]
)
def test_a_line_is_known_also_when_it_breaks(sent: int, took_s: float, rate: float | None) -> None:
    clock = _StoppedClock()
    line = Pace(clock)

    def send(content: Iterator[bytes]) -> None:
        for _ in range(2 * sent + 1 + (rate == MIB)):
            next(content)  # the last one may have arrived or not
        clock.now_s = took_s
        raise HeleniteError("broke off")

    with pytest.raises(HeleniteError, match="broke off"), line.measured(iter([bytes(8 * MIB)] * 100)) as content:
        send(content)
    assert line.bytes_per_s == rate
