"""Agents that die in the middle of what they do to their folder. Used by the tests of what they find afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.sync_world import Agent, Crash, World


def die_at(world: World, agent: Agent, patch: pytest.MonkeyPatch, *names: str) -> None:
    """Sync until the folder has done one of these for the first time, and no further."""
    with patch.context() as inner:
        for name in names:
            inner.setattr(agent.engine._folder, name, dying(getattr(agent.engine._folder, name)))
        with pytest.raises(Crash):
            agent.settle()
    agent.restart()
    world.clock.now += 1


def dying(act: Callable[..., object]) -> Callable[..., object]:
    """Does it, and lets the agent die."""

    def do_and_die(*given: object) -> None:
        act(*given)
        raise Crash

    return do_and_die
