"""The repair plan, and a small cluster in virtual time that it has to bring back to health."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from helenite.core.model import ChunkHandle, Chunkserver, ServerId, ServerState
from helenite.master.repair import (
    COPIES_PER_SERVER_MAX,
    CopyOrder,
    DropOrder,
    count_dependent,
    next_orders,
    plan_repairs,
)

TARGET = 3


def server(number: int, state: ServerState = ServerState.ALIVE, used: int = 0) -> Chunkserver:
    return Chunkserver(ServerId(number), f"u{number}", "", "", "", f"h{number}", "", 1, state, 100, 100, used, 0)


def chunk(handle: int, *servers: int) -> tuple[ChunkHandle, tuple[ServerId, ...]]:
    return ChunkHandle(handle), tuple(map(ServerId, servers))


def test_a_healthy_cluster_has_nothing_to_do() -> None:
    plan = plan_repairs([chunk(1, 1, 2, 3)], [server(n) for n in (1, 2, 3, 4)], TARGET, {}, random.Random(0))
    assert (plan.copies, plan.drops, plan.waiting) == ((), (), 0)


def test_the_fewest_copies_come_first() -> None:
    servers = [server(1), server(2), server(3), server(4, ServerState.DEAD)]
    chunks = [chunk(1, 1, 2, 4), chunk(2, 1, 4)]
    plan = plan_repairs(chunks, servers, TARGET, {}, random.Random(0))
    assert [order.handle for order in plan.copies] == [2, 1]
    assert plan.copies[1] == CopyOrder(ChunkHandle(1), plan.copies[1].sources, ServerId(3))


def test_a_suspect_is_waited_for_and_is_no_source() -> None:
    servers = [server(1), server(2), server(3, ServerState.SUSPECT), server(4)]
    assert plan_repairs([chunk(1, 1, 2, 3)], servers, TARGET, {}, random.Random(0)).copies == ()
    servers[1] = server(2, ServerState.DEAD)
    (order,) = plan_repairs([chunk(1, 1, 2, 3)], servers, TARGET, {}, random.Random(0)).copies
    assert (order.sources, order.target) == ((1,), 4)


def test_what_no_server_holds_cannot_be_copied() -> None:
    servers = [server(1, ServerState.DEAD), server(2), server(3)]
    assert plan_repairs([chunk(1, 1)], servers, TARGET, {}, random.Random(0)).copies == ()


def test_surplus_replicas_are_dropped_only_when_enough_are_certainly_alive() -> None:
    servers = [server(1, used=50), server(2), server(3), server(4)]
    plan = plan_repairs([chunk(1, 1, 2, 3, 4)], servers, TARGET, {}, random.Random(0))
    assert plan.drops == (DropOrder(ChunkHandle(1), ServerId(1)),)
    servers[3] = server(4, ServerState.SUSPECT)
    assert plan_repairs([chunk(1, 1, 2, 3, 4)], servers, TARGET, {}, random.Random(0)).drops == ()


def test_a_server_takes_part_in_few_copies_at_once() -> None:
    servers = [server(1), server(2), server(3)]
    plan = plan_repairs([chunk(n, 1, 2) for n in range(100)], servers, TARGET, {}, random.Random(0))
    assert len(plan.copies) == 100
    begun = next_orders(plan.copies, [], ServerId(3))
    assert len(begun) == COPIES_PER_SERVER_MAX
    assert {order.sources[0] for order in begun} == {1, 2}, "the sources share the work"
    assert next_orders(plan.copies, begun, ServerId(3)) == ()
    assert next_orders(plan.copies, [], ServerId(1)) == ()
    under_way = {order.handle: order for order in begun}
    again = plan_repairs([chunk(n, 1, 2) for n in range(100)], servers, TARGET, under_way, random.Random(0))
    assert (len(again.copies), again.waiting) == (96, 100)


def test_the_table_forgets_replicas_on_servers_that_were_removed() -> None:
    servers = [server(1), server(2), server(3), server(4, ServerState.DEAD)]
    plan = plan_repairs(
        [chunk(1, 1, 2, 3, 9), chunk(2, 1, 2, 3, 4), chunk(3, 9)], servers, TARGET, {}, random.Random(0)
    )
    assert plan.struck == (DropOrder(ChunkHandle(1), ServerId(9)), DropOrder(ChunkHandle(3), ServerId(9)))
    assert (plan.copies, plan.drops) == ((), ())


class Simulation:
    """Servers die, come back and forget while plans are carried out."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = rng = random.Random(seed)
        self.states = {ServerId(n): ServerState.ALIVE for n in range(1, rng.randint(3, 7) + 1)}
        self.disks: dict[ServerId, set[ChunkHandle]] = {server_id: set() for server_id in self.states}
        self.table: dict[ChunkHandle, list[ServerId]] = {}
        for handle in map(ChunkHandle, range(rng.randint(1, 40))):
            self.table[handle] = rng.sample(sorted(self.states), TARGET)
            for holder in self.table[handle]:
                self.disks[holder].add(handle)

    def shake(self) -> None:
        """One server changes its state; at most one is dead at a time."""
        shaken = self.rng.choice(sorted(self.states))
        state = self.rng.choice((ServerState.ALIVE, ServerState.SUSPECT, ServerState.DEAD))
        if ServerState.DEAD in {s for i, s in self.states.items() if i != shaken} and state is ServerState.DEAD:
            state = ServerState.ALIVE
        self.states[shaken] = state

    def step(self, success: float) -> int:
        """Plan and carry out; how much there was to do."""
        servers = [server(i, state) for i, state in self.states.items()]
        chunks = ((handle, tuple(holders)) for handle, holders in self.table.items())
        plan = plan_repairs(chunks, servers, TARGET, {}, self.rng)
        for order in plan.copies:
            if any(order.handle in self.disks[source] for source in order.sources) and self.rng.random() < success:
                self.disks[order.target].add(order.handle)
                self.table[order.handle].append(order.target)
        for drop in plan.drops:
            self.drop(drop)
        for handle, holders in self.table.items():
            assert any(handle in self.disks[s] for s in holders), f"seed {self.seed}: chunk {handle} is lost"
        return len(plan.copies) + len(plan.drops)

    def drop(self, order: DropOrder) -> None:
        left = [s for s in self.table[order.handle] if s != order.server and self.states[s] is ServerState.ALIVE]
        assert len(left) >= TARGET, f"seed {self.seed}: the plan drops a replica that is needed"
        self.table[order.handle].remove(order.server)
        self.disks[order.server].discard(order.handle)


def simulate(seed: int) -> None:
    """Trouble, then calm: everything must be whole again, and the plan must come to rest."""
    simulation = Simulation(seed)
    for _ in range(30):
        simulation.shake()
        simulation.step(success=0.8)
    simulation.states = dict.fromkeys(simulation.states, ServerState.ALIVE)
    steps = 0
    while simulation.step(success=1.0):
        steps += 1
        assert steps < 100, f"seed {seed}: the plan never comes to rest"
    assert all(len(set(holders)) == len(holders) == TARGET for holders in simulation.table.values()), f"seed {seed}"


def test_thousands_of_simulated_clusters_come_back() -> None:
    for seed in range(2_000):
        simulate(seed)


@given(st.integers(min_value=2_000))
@settings(max_examples=100, deadline=None)
def test_other_seeds_too(seed: int) -> None:
    simulate(seed)


def test_a_draining_server_gives_its_replicas_and_counts_no_more() -> None:
    servers = [server(1, ServerState.DRAINING), server(2), server(3), server(4)]
    (order,) = plan_repairs([chunk(1, 1, 2, 3)], servers, TARGET, {}, random.Random(0)).copies
    assert order.target == 4
    assert count_dependent([chunk(1, 1, 2, 3)], ServerId(1), servers, TARGET) == 1
    done = [chunk(1, 1, 2, 3, 4)]
    plan = plan_repairs(done, servers, TARGET, {}, random.Random(0))
    assert (plan.copies, plan.drops) == ((), ())
    assert count_dependent(done, ServerId(1), servers, TARGET) == 0


def test_the_only_replica_may_be_on_the_draining_server() -> None:
    servers = [server(1, ServerState.DRAINING), server(2), server(3), server(4, ServerState.DEAD)]
    plan = plan_repairs([chunk(1, 1, 4)], servers, TARGET, {}, random.Random(0))
    assert [order.sources for order in plan.copies] == [(1,)]
    assert count_dependent([chunk(1, 1)], ServerId(1), [server(1)], TARGET) == 1
