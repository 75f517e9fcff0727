"""Whole cycles on a real folder and a real journal, against a server in memory: many files, and what is not asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from helenite.core.errors import PreconditionFailedError, UnavailableError
from syncagent.journal import Journal
from syncagent.model import NodeId, Tree
from syncagent.plan import Inspect, Pair, Plan
from tests.support.sync_server import MemoryServer
from tests.support.sync_world import Agent, Make, World, requests_of, write


def counted(server: MemoryServer, act: Callable[[], object], *names: str) -> list[int]:
    before = dict(server.requests)
    act()
    return [server.requests.get(name, 0) - before.get(name, 0) for name in names]


def fill(agent: Agent, count: int = 10) -> None:
    for number in range(count):
        write(agent, f"d{number % 3}/f{number}", b"content %d" % number)


# Bundles


@pytest.mark.parametrize(("group_max", "bundles"), [(1, 0), (4, 1 + 3), (100, 1 + 1)])
def test_small_files_and_directories_travel_in_company(make: Make, group_max: int, bundles: int) -> None:
    world = make(2)
    first, second = world.agents
    world.server.group_size = group_max
    fill(first)
    assert counted(world.server, first.settle, "bundle", "store", "make_directory") == [bundles, 10, 3]
    down = 0 if group_max == 1 else -(-10 // group_max)
    assert counted(world.server, second.settle, "bundle", "fetch") == [down, 10]
    world.check()


def test_large_files_and_links_travel_alone(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syncagent.cargo.BUNDLED_BYTES", 10)
    world = make(1)
    agent = world.agents[0]
    write(agent, "large", b"more than ten bytes")
    write(agent, "small")
    (agent.root / "link").symlink_to("small")
    assert counted(world.server, agent.settle, "bundle", "store") == [1, 3]
    world.check()


def test_what_one_member_is_refused_for_costs_the_others_nothing(
    world: World, agent: Agent, server: MemoryServer
) -> None:
    server.group_size = 100
    fill(agent)
    store = server.store

    def refuse_one(path: tuple[str, ...], *others: object) -> object:
        if path[-1] == "f4":
            raise PreconditionFailedError("somebody was quicker")
        return store(path, *others)  # type: ignore[arg-type]

    server.store = refuse_one  # type: ignore[method-assign, assignment]
    report = agent.cycle()
    assert [type(error) for _, error in report.failed] == [PreconditionFailedError] * len(report.failed)
    assert len([path for path in server.listing() if "/f" in path]) == 9
    server.store = store  # type: ignore[method-assign]
    world.settle()
    world.check()


def test_a_bundle_that_breaks_off_is_found_out_about(world: World, agent: Agent, server: MemoryServer) -> None:
    server.group_size = 100
    fill(agent)
    stored = 0

    def hook(phase: str, request: str) -> None:
        nonlocal stored
        stored += (phase, request) == ("after", "store")
        if stored == 5 and phase == "after":
            raise UnavailableError("the line is cut")

    server.hook = hook
    report = agent.cycle()
    assert len(report.failed) >= 10
    server.hook = lambda _phase, _request: None
    world.clock.now += 10
    assert requests_of(server, world.settle)["store"] == 5, "what had arrived is not sent again"
    world.check()


# Digests


@pytest.mark.parametrize("has_digests", [True, False])
def test_a_first_sync_of_equal_trees_moves_no_content(make: Make, has_digests: bool) -> None:
    world = make(2, has_digests=has_digests)
    first, second = world.agents
    for agent in (first, second):
        fill(agent, 40)
    first.settle()
    digests = 0 if has_digests else 40
    assert counted(world.server, second.settle, "fetch", "store", "digest") == [0, 0, digests]
    world.check()


def test_a_server_that_knows_no_digests_is_read(make: Make) -> None:
    world = make(2, has_digests=False)
    world.server.computes_digests = False
    for agent in world.agents:
        fill(agent)
    assert counted(world.server, world.settle, "fetch", "store") == [10, 10]
    world.check()


# A first sync


def test_a_first_sync_walks_in_pages_and_unites_what_has_one_name(make: Make) -> None:
    world = make(1, answer_max=7)
    agent, server = world.agents[0], world.server
    fill(agent, 30)
    for number in range(30):
        path = (f"d{number % 3}", f"f{number}")
        if server._find(path[:1]) is None:
            server.make(path[:1])
        server.put(path, b"content %d" % number if number else b"another")
    plans: list[Plan] = []
    assert counted(server, lambda: plans.append(agent.engine.preview()), "walk", "list") == [33 // 7 + 2, 0]
    assert not [step for step in plans[0].steps if isinstance(step, Pair)]
    assert len([step for step in plans[0].steps if isinstance(step, Inspect)]) == 29, "all but the one of another size"
    world.settle()
    world.check()
    assert server.listing()["d0/f0"] == b"another"
    assert "d0/f0 (conflicted copy 2026-11-24 agent0)" in server.listing()


def test_a_directory_is_read_once_however_many_are_in_it(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(1, answer_max=7)
    agent, server = world.agents[0], world.server
    read: Counter[NodeId] = Counter()
    read_ahead = Journal.read_ahead

    def count(journal: Journal, side: Tree, parent: NodeId) -> None:
        read[parent] += 1
        read_ahead(journal, side, parent)

    monkeypatch.setattr(Journal, "read_ahead", count)
    for number in range(10):
        write(agent, f"d{number}/f", b"content")
        server.make((f"d{number}",))
        server.put((f"d{number}", "f"), b"content")
    agent.engine.preview()
    assert sorted(read.values()) == [1] * 11


def test_what_moves_while_it_walks_is_not_taken_for_deleted(make: Make) -> None:
    world = make(1, answer_max=2)
    agent, server = world.agents[0], world.server
    for name in ("b", "m", "z"):
        write(agent, f"{name}/f", name.encode())
    world.settle()
    inode = (agent.root / "z" / "f").stat().st_ino
    server.forget_changes()
    walks = 0

    def hook(phase: str, request: str) -> None:
        nonlocal walks
        walks += (phase, request) == ("after", "walk")
        if walks == 2 and phase == "after" and server._find(("z",)) is not None:
            server.rename(("z",), ("a",))  # into what the walk has been through

    server.hook = hook
    agent.cycle()
    assert walks > 2
    assert (agent.root / "a" / "f").stat().st_ino == inode
    assert not agent.trashed()
    world.settle()
    world.check()


# What is asked


def test_a_save_or_an_arrival_asks_the_server_nothing(world: World, agent: Agent, server: MemoryServer) -> None:
    fill(agent)
    world.settle()
    server.put(("theirs",), b"1")
    write(agent, "d0/f0", b"saved")
    asked = counted(server, lambda: agent.engine.cycle([("d0",)], asks=False), "changes", "walk", "list", "store")
    assert asked == [0, 0, 0, 1]
    assert not (agent.root / "theirs").exists()
    world.settle()
    world.check()


def test_a_step_that_finds_something_else_makes_the_cycle_ask(world: World, agent: Agent, server: MemoryServer) -> None:
    write(agent, "a", b"old")
    world.settle()
    server.put(("a",), b"theirs")
    write(agent, "a", b"ours")
    world.clock.now += 10
    assert counted(server, lambda: agent.engine.cycle([()], asks=False), "changes")[0] >= 1
    world.settle()
    world.check()
    assert set(server.listing().values()) == {b"theirs", b"ours"}


@pytest.mark.parametrize("names_all", [True, False])
def test_new_directories_are_listed_only_if_what_is_in_them_is_not_told(make: Make, names_all: bool) -> None:
    world = make(2)
    first, second = world.agents
    world.server.names_all = names_all
    world.settle()
    fill(first)
    first.settle()
    (listings,) = counted(world.server, second.settle, "list")
    assert (listings > 0) is not names_all
    world.check()
