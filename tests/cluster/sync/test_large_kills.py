"""Large files while agents are killed at any moment: in the end all have the same, and somebody has saved it so."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.sync_agents import Agent, ServerView, settle

MIB = 1 << 20
ROUNDS = 12
NAMES = ("one.img", "two.img")


def edit(chance: random.Random, file: Path) -> bytes:
    """Another content, saved in place or safely; most of it is what was there."""
    content = file.read_bytes() if file.exists() else b""
    at = chance.randrange(len(content) + 1)
    fresh = chance.randbytes(chance.choice((1, 4096, 700_000)))
    match chance.randrange(4) if content else 0:
        case 0:
            content = chance.randbytes(chance.choice((5, 12)) * MIB)
        case 1:
            content = content[:at] + fresh + content[at:]
        case 2:
            content = (content[:at] + fresh + content[at + len(fresh) :])[: max(len(content), 5 * MIB)]
        case _:
            content = content[at:] + content[:at]
    if chance.random() < 0.5:
        file.write_bytes(content)
    else:
        fresh_file = file.parent.parent / "fresh"
        fresh_file.write_bytes(content)
        fresh_file.replace(file)
    return content


@pytest.mark.parametrize("seed", [1])
def test_agents_that_are_killed_while_large_files_are_under_way(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with Cluster(tmp_path / "data", "--workers", "2") as cluster:
        server = ServerView(f"{cluster.url}shared", tmp_path / "scratch")
        agents = Agent(tmp_path, "anna"), Agent(tmp_path, "bert")
        for agent in agents:
            agent.add(f"{cluster.url}shared")
            agent.start()
        saved: set[bytes] = set()
        for _ in range(ROUNDS):
            saved.add(edit(chance, chance.choice(agents).folder / chance.choice(NAMES)))
            threading.Event().wait(chance.random() * 1.5)
            if chance.random() < 0.7:
                victim = chance.choice(agents)
                victim.kill()
                victim.start()
        tree = settle(server, *agents)
        assert tree
        assert set(tree.values()) <= saved
        for agent in agents:
            agent.stop()
        server.remote.close()
        cluster.check_fsck()
