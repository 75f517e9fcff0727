"""What looks like a disaster deletes nothing: whole cycles on a real folder, against a server in memory."""

from __future__ import annotations

import shutil

import pytest

from helenite.core.errors import HeleniteError, ProtocolError, UnavailableError
from syncagent.plan import Delete
from syncagent.safety import Danger, Limits
from tests.support.sync_server import MemoryServer
from tests.support.sync_world import Agent, Make, World, requests_of, write


def test_deleting_much_stops_and_asks(world: World, agent: Agent, server: MemoryServer) -> None:
    agent.limits = Limits(count=10, share=0.5)
    for number in range(30):
        write(agent, f"d/{number}")
    world.settle()
    shutil.rmtree(agent.root / "d")
    agent.cycle("")
    world.clock.now += 10
    report = agent.cycle("")
    assert report.stop is not None
    assert (report.stop.danger, report.stop.count) == (Danger.MANY_DELETIONS, 31)
    assert len(server.listing()) == 31
    agent.engine.allow_deletions()
    assert requests_of(server, agent.settle) == {"delete": 1}
    assert not server.listing()


def test_deletions_that_were_not_wanted_come_back(world: World, agent: Agent, server: MemoryServer) -> None:
    agent.limits = Limits(count=10, share=0.5)
    for number in range(30):
        write(agent, f"d/{number}")
    world.settle()
    server.remove(("d",))
    report = agent.cycle("")
    assert report.stop is not None
    agent.engine.undo_deletions()
    agent.settle()
    world.check()
    assert len(server.listing()) == 31


def test_renaming_much_is_no_deletion(world: World, agent: Agent) -> None:
    agent.limits = Limits(count=3, share=0.1)
    for number in range(30):
        write(agent, f"d/{number}")
    world.settle()
    (agent.root / "d").rename(agent.root / "e")
    for number in range(30):
        (agent.root / "e" / str(number)).rename(agent.root / "e" / f"x{number}")
    world.settle()
    world.check()


def test_an_unmounted_folder_deletes_nothing(world: World, agent: Agent, server: MemoryServer) -> None:
    write(agent, "a")
    world.settle()
    agent.root.rename(agent.root.with_name("unmounted"))
    with pytest.raises(UnavailableError):
        agent.cycle("")
    agent.root.mkdir()  # the empty directory under a mount point
    report = agent.cycle("")
    assert report.stop is not None
    assert report.stop.danger is Danger.FOLDER_REPLACED
    assert server.listing() == {"a": b"1"}
    agent.root.rmdir()
    agent.root.with_name("unmounted").rename(agent.root)
    world.settle()
    world.check()


def test_a_folder_that_goes_away_during_the_scan(
    world: World, agent: Agent, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(agent, "a")
    world.settle()
    engine = agent.engine
    list_ = engine._folder.list

    def list_after_unmount(path: tuple[str, ...]) -> object:
        agent.root.rename(agent.root.with_name("unmounted"))
        agent.root.mkdir()
        return list_(path)

    monkeypatch.setattr(engine._folder, "list", list_after_unmount)
    with pytest.raises(UnavailableError):
        agent.cycle("")
    assert engine.journal.count_agreed() == 1
    assert not engine.journal.unsettled(10)


@pytest.mark.parametrize("what", ["instance", "fingerprint"])
def test_another_server_deletes_nothing(what: str, world: World, agent: Agent, server: MemoryServer) -> None:
    write(agent, "a")
    server.put(("b",), b"2")
    world.settle()
    server.remove(("a",))
    server.forget_changes()
    setattr(server, what, "another")
    report = agent.cycle("")
    assert report.stop is not None
    assert report.stop.danger is (Danger.SERVER_REPLACED if what == "instance" else Danger.SERVER_RESTORED)
    assert agent.listing() == {"a": b"1", "b": b"2"}
    agent.engine.start_over()
    world.settle()
    world.check()
    assert server.listing() == {"a": b"1", "b": b"2"}


def test_a_server_that_went_back_in_time_deletes_nothing(world: World, agent: Agent, server: MemoryServer) -> None:
    write(agent, "kept")
    write(agent, "newer than the copy")
    world.settle()
    server.remove(("newer than the copy",))
    server.lose_history()
    write(agent, "saved since")
    for _ in range(3):
        report = agent.cycle("")
        assert report.stop is not None
        assert report.stop.danger is Danger.SERVER_RESTORED
    assert server.listing() == {"kept": b"1"}
    agent.engine.start_over()
    world.settle()
    world.check()
    assert set(server.listing()) == {"kept", "newer than the copy", "saved since"}
    assert agent.trashed() == set()


@pytest.mark.parametrize("error", [UnavailableError, ProtocolError, HeleniteError])
@pytest.mark.parametrize("tells_changes", [True, False])
def test_a_listing_that_fails_deletes_nothing(make: Make, error: type[HeleniteError], tells_changes: bool) -> None:
    world = make(1, tells_changes=tells_changes)
    agent, server = world.agents[0], world.server
    server.names_all = False  # it is looked at by listings
    for name in ("d", "e"):
        write(agent, f"{name}/a")
    world.settle()
    server.put(("e", "b"), b"2")
    server.put(("d", "b"), b"2")
    server.forget_changes()
    honest = server.list

    def list_badly(directory: tuple[str, ...]) -> object:
        if directory == ("d",):
            raise error("a page that is no multistatus")
        return honest(directory)

    server.list = list_badly  # type: ignore[method-assign, assignment]
    report = agent.cycle("")
    assert not [step for step in report.steps if isinstance(step, Delete)]
    assert [trouble.path for trouble in report.troubles] == [("d",)]
    assert (agent.root / "e" / "b").exists(), "the rest goes on"
    server.list = honest  # type: ignore[method-assign]
    world.settle()
    world.check()
