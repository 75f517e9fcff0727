"""Who is alive, as one master sees it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helenite.core.clock import Clock, RunningClock
from helenite.core.model import Chunkserver, ServerId, ServerState
from helenite.master.admin_service import total_usage
from helenite.master.membership import Liveness, Membership
from helenite.master.namespace import Namespace


def chunkserver(uuid: str) -> Chunkserver:
    return Chunkserver(
        id=ServerId(0),
        uuid=uuid,
        address="h:1",
        data_address="h:2",
        data_socket="",
        host="h",
        rack="",
        pid=1,
        state=ServerState.ALIVE,
        capacity_bytes=10,
        free_bytes=10,
        used_bytes=0,
        chunk_count=0,
    )


def test_silence_makes_suspect_then_dead_but_not_while_the_master_was_paused(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(Clock, "monotonic_s", lambda _: now)
    clock = RunningClock()
    membership = Membership(namespace, Liveness(10.0, 60.0), clock)
    membership.register(chunkserver("a"), "")
    now += 3600.0
    (server,) = membership.servers()
    assert server.state is ServerState.ALIVE, "it is the master that was away"
    assert not membership.is_settled()
    for expected, seconds in ((ServerState.SUSPECT, 11), (ServerState.DEAD, 61)):
        membership.register(chunkserver("a"), "")
        for _ in range(seconds):
            now += 1.0
            clock.monotonic_s()
        assert membership.servers()[0].state is expected
    assert membership.is_settled()


def test_a_master_that_has_just_started_does_not_say_that_there_is_no_room(namespace: Namespace) -> None:
    limits = Liveness(10.0, 60.0)
    before = Membership(namespace, limits, Clock())
    for uuid in ("a", "b"):
        before.register(replace(chunkserver(uuid), free_bytes=4), "")
    assert total_usage(namespace, before, 1).free_bytes == 8
    started = Membership(namespace, limits, Clock())
    assert total_usage(namespace, started, 1).free_bytes == 20, "nobody has called: nothing is known"
    started.register(replace(chunkserver("a"), free_bytes=0), "")
    assert total_usage(namespace, started, 1).free_bytes == 10
    started.register(replace(chunkserver("b"), free_bytes=0), "")
    assert total_usage(namespace, started, 1).free_bytes == 0
