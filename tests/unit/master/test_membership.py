"""Who is alive, as one master sees it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helenite.core.clock import Clock, RunningClock
from helenite.core.errors import DuplicateServerError
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


def test_a_copy_on_another_host_is_refused_also_where_pids_are_alike(namespace: Namespace) -> None:
    membership = Membership(namespace, Liveness(10.0, 60.0), Clock())
    original = chunkserver("a")
    copy = replace(original, host="other", address="other:1", data_address="other:2")
    original = replace(original, id=membership.register(original, ""))
    with pytest.raises(DuplicateServerError, match="already running on h "):
        membership.register(copy, "")
    assert not membership.beat(replace(copy, id=original.id)), "containers all have the same pid"
    assert membership.beat(original)
    assert namespace.list_servers()[0].host == "h"


def test_a_copy_on_the_same_host_gives_way_as_soon_as_the_original_is_heard(namespace: Namespace) -> None:
    membership = Membership(namespace, Liveness(10.0, 60.0), Clock())
    original = chunkserver("a")
    original = replace(original, id=membership.register(original, ""))
    copy = replace(original, pid=2, address="h:3", data_address="h:4")
    membership.register(copy, "")  # it might be the original after a restart
    assert not membership.beat(original)
    membership.register(original, "")  # but it is not
    for _ in range(2):
        assert not membership.beat(copy)
        with pytest.raises(DuplicateServerError):
            membership.register(copy, "")
        assert membership.beat(original)


def test_a_restart_takes_over_at_once_and_a_copy_when_the_original_is_silent(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(Clock, "monotonic_s", lambda _: now)
    membership = Membership(namespace, Liveness(10.0, 60.0), Clock())
    server = chunkserver("a")
    for pid in range(1, 5):
        server = replace(server, pid=pid, id=membership.register(replace(server, pid=pid), ""))
        assert membership.beat(server)
    copy = replace(server, pid=9, host="other")
    now += 11.0
    membership.register(copy, "")
    assert membership.beat(copy)
