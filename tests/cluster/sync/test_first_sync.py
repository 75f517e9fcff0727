"""An agent that begins with two full sides: what both have is found to be equal, and moves nowhere."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.support.cluster import Cluster
from tests.support.sync_agents import Agent, ServerView, settle


@pytest.mark.parametrize("is_told", [True, False])
def test_what_both_sides_have_moves_nowhere(cluster: Cluster, tmp_path: Path, is_told: bool) -> None:
    """Also if nobody ever told the server a digest of what it has: then it computes them."""
    home = f"{cluster.url}first-{is_told}/"
    agent = Agent(tmp_path, "carl")
    contents = {f"d{number % 5}/f{number}": os.urandom(100 + number) for number in range(60)}
    contents["large"] = os.urandom(5_000_000)
    contents["of one size"] = b"here"
    with httpx.Client(timeout=60) as client:
        for directory in (home, *(f"{home}d{number}/" for number in range(5))):
            client.request("MKCOL", directory).raise_for_status()
        for name, content in contents.items():
            (agent.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (agent.folder / name).write_bytes(content)
            client.put(f"{home}{name}", content=b"that" if content == b"here" else content).raise_for_status()
        if is_told:
            for name in contents:
                answer = client.head(f"{home}{name}", headers={"Want-Repr-Digest": "sha-256=10"})
                assert answer.headers["Repr-Digest"].startswith("sha-256=:")
    agent.add(home)
    agent.start()
    server = ServerView(home, tmp_path / "scratch")
    try:
        tree = settle(server, agent)
        events = Counter((event["side"], event["verb"]) for event in agent.history())
    finally:
        agent.stop()
        server.remote.close()
    assert events == {("remote", "sent"): 1, ("local", "received"): 1, ("local", "moved"): 1}, "but for the conflict"
    assert {tree[name] for name in tree if name.startswith("of one size")} == {b"here", b"that"}
