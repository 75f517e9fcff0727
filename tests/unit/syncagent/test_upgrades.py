"""A program that finds the journal of an older one goes on where that stopped."""

from __future__ import annotations

import sqlite3

from helenite.core.errors import UnavailableError
from tests.support.sync_server import MemoryServer
from tests.support.sync_world import Agent, World, requests_of, write


def test_an_upgrade_with_transfers_under_way(world: World, agent: Agent, server: MemoryServer) -> None:
    """What was agreed is not sent again, what was under way is found out about, what was not begun is carried out."""
    write(agent, "d/agreed", b"1")
    write(agent, "d/deleted", b"2")
    world.settle()

    def lose(phase: str, name: str) -> None:
        if (phase, name) == ("after", "store"):
            raise UnavailableError("lost")

    write(agent, "d/sent", b"3")
    server.hook = lose
    agent.cycle()
    server.hook = lambda _phase, _name: None
    assert server.listing()["d/sent"] == b"3"
    agent.restart()
    journal = sqlite3.connect(agent._journal_file)
    journal.executescript("DROP INDEX agreed_size; PRAGMA user_version = 1;")  # as the first schema was
    journal.close()
    (agent.root / "d" / "deleted").unlink()
    write(agent, "d/new", b"4")
    world.clock.now += 10
    assert requests_of(server, world.settle) == {"store": 1, "delete": 1}
    world.check()
    assert server.listing() == {"d": None, "d/agreed": b"1", "d/sent": b"3", "d/new": b"4"}
    assert agent.trashed() == set()
