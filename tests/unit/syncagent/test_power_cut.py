"""The power goes while an agent puts things in place: what was not flushed is empty or gone, and nobody else loses it.

Whole cycles on a real folder; what a file system does to what was not flushed is done by the test.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from helenite.core.paths import Path as InnerPath
from syncagent import folder as folder_module
from tests.support.sync_server import MemoryServer
from tests.support.sync_world import Agent, Crash, World

FILES = 12


class Disk:
    """Knows what an agent has put in place and not flushed, and when the power goes: before its n-th flush from now."""

    def __init__(self, agent: Agent, cut_at: int) -> None:
        self._folder = agent.engine._folder
        self._install, self._flush = self._folder.install, self._folder.flush
        self._left = cut_at
        self.loose: set[InnerPath] = set()

    def install(self, path: InnerPath, *given: object) -> object:
        self.loose.add(path)
        return self._install(path, *given)  # type: ignore[arg-type]

    def flush(self, paths: Iterable[InnerPath]) -> None:
        if not self._left:
            raise Crash("no power")
        self._left -= 1
        flushed = list(paths)
        self._flush(flushed)  # type: ignore[arg-type]
        self.loose -= set(flushed)


def cut_the_power(agent: Agent, patch: pytest.MonkeyPatch, at: int, damage: Callable[[Path], object]) -> int:
    """Sync until then, if it comes to that; how many files were hit."""
    disk = Disk(agent, at)
    with patch.context() as inner:
        for name in ("install", "flush"):
            inner.setattr(agent.engine._folder, name, getattr(disk, name))
        try:
            agent.settle()
        except Crash:
            for path in disk.loose:
                damage(agent.root.joinpath(*path))
        else:
            disk.loose.clear()
    agent.restart()
    return len(disk.loose)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [empty, Path.unlink])
def test_what_was_coming_comes_again(
    world: World,
    agent: Agent,
    server: MemoryServer,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], object],
) -> None:
    boots = itertools.count()
    monkeypatch.setattr(folder_module, "find_boot", lambda: f"boot {next(boots)}")
    monkeypatch.setattr("syncagent.executor.GROUP_MAX", 3)
    server.make(("d",))
    hit = 0
    for cut_at in range(4):
        for revision in range(2):
            for number in range(FILES):
                server.put(("d", f"{number}"), b"revision %d-%d of %d" % (cut_at, revision, number))
            expected = server.listing()
            hit += cut_the_power(agent, monkeypatch, cut_at, damage)
            world.settle()
            world.check()
            assert expected.items() <= server.listing().items()
            left = {path: content for path, content in server.listing().items() if path not in expected}
            assert not any(left.values())  # of an emptied file there may be a copy, which is empty too
            for path in left:
                server.remove(tuple(path.split("/")))
            world.settle()
    assert hit >= FILES
