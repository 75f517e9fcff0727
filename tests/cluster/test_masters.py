"""Two masters on one Redis: either serves, one leads, and the death of one costs seconds, not requests."""

from __future__ import annotations

import threading
import time

import httpx
import pytest

from tests.support.cluster import Cluster


@pytest.mark.parametrize("how", ["kill", "suspend"])
def test_a_master_that_goes_away_fails_no_request(cluster: Cluster, how: str) -> None:
    cluster.options = (*cluster.options, "--masters", "2")
    cluster.start()
    status = cluster.status()
    assert sorted(master["state"] for master in status["masters"]) == ["leader", "standby"]
    leader = next(master for master in status["masters"] if master["state"] == "leader")
    victim = next(process for process in cluster.processes() if process.pid == leader["pid"])
    slowest = 0.0
    with httpx.Client(base_url=cluster.url, timeout=60) as client:
        for number in range(60):
            if number == 20:
                getattr(victim, how)()
            began = time.monotonic()
            assert client.put(f"/{number}", content=str(number)).status_code == 201
            assert client.get(f"/{number}").text == str(number)
            slowest = max(slowest, time.monotonic() - began)
    if how == "suspend":
        victim.resume()
    deadline = time.monotonic() + 15
    while (states := sorted(m["state"] for m in cluster.status()["masters"] if m["state"] != "dead")) != [
        "leader",
        "standby",
    ]:
        assert time.monotonic() < deadline, states
        threading.Event().wait(0.2)
    cluster.check_fsck()
    assert slowest < 25, f"{slowest:.1f} s"
