"""When a chunkserver is to keep a dump, whatever the clocks say."""

from __future__ import annotations

from helenite.core.clock import Clock
from helenite.core.model import ServerId
from helenite.master.backup import BackupSchedule
from helenite.master.membership import Liveness, Membership
from helenite.master.namespace import Namespace
from tests.unit.master.test_membership import chunkserver

HOUR_S = 3600.0


class SetClock(Clock):
    """Says what it is told."""

    wall_s = 1_000_000.0
    running_s = 100.0

    def now_ms(self) -> int:
        return int(self.wall_s * 1000)

    def monotonic_s(self) -> float:
        return self.running_s

    def pass_s(self, seconds: float) -> None:
        self.wall_s += seconds
        self.running_s += seconds


def test_a_clock_that_jumps_makes_one_dump_at_most(namespace: Namespace) -> None:
    clock = SetClock()
    membership = Membership(namespace, Liveness(1e9, 1e9), clock)
    server: ServerId = membership.register(chunkserver("a"), "")
    schedule = BackupSchedule(membership, HOUR_S, clock)
    assert schedule.is_due(server, 0), "it has none"
    made_ms = clock.now_ms()
    assert not schedule.is_due(server, made_ms)
    for hours in (3, 30, -30):
        clock.wall_s += hours * HOUR_S
        assert not schedule.is_due(server, made_ms), "this master saw it come"
    clock.pass_s(HOUR_S)
    assert schedule.is_due(server, made_ms)


def test_a_dump_from_before_is_judged_by_the_wall_clock(namespace: Namespace) -> None:
    clock = SetClock()
    membership = Membership(namespace, Liveness(1e9, 1e9), clock)
    server = membership.register(chunkserver("a"), "")
    assert BackupSchedule(membership, HOUR_S, clock).is_due(server, clock.now_ms() - 2 * int(HOUR_S) * 1000)
    assert BackupSchedule(membership, HOUR_S, clock).is_due(server, clock.now_ms() + 5_000), "of the future"
    assert not BackupSchedule(membership, HOUR_S, clock).is_due(server, clock.now_ms() - 5_000)
