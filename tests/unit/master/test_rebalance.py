"""The moves that make servers equally full, and a small cluster in virtual time that must come to rest."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from helenite.core.model import ChunkHandle, Chunkserver, ServerId, ServerState
from helenite.master.rebalance import MovePlan, plan_moves
from helenite.master.repair import (
    COPIES_PER_SERVER_MAX,
    MOVES_PER_SERVER_MAX,
    Chunk,
    CopyOrder,
    DropOrder,
    next_orders,
    plan_repairs,
)

MAX = 8


def server(number: int, used: int, chunks: int = 100, *, capacity: int = 10_000, host: str = "") -> Chunkserver:
    return Chunkserver(
        ServerId(number), "", "", "", "", host or f"h{number}", "", 1, ServerState.ALIVE,
        capacity, capacity - used, used, chunks,
    )  # fmt: skip


def chunks_on(*holders: int, count: int = 100) -> list[Chunk]:
    return [(ChunkHandle(n), tuple(map(ServerId, holders))) for n in range(count)]


def plan(chunks: list[Chunk], *servers: Chunkserver, is_active: bool = False) -> MovePlan:
    return plan_moves(chunks, list(servers), [], MAX, is_active=is_active)


def test_a_new_server_is_filled_from_all_others() -> None:
    made = plan(chunks_on(1, 2, 3), server(1, 800), server(2, 800), server(3, 800), server(4, 0, 0))
    assert {order.target for order in made.moves} == {4}
    assert {order.drop for order in made.moves} == {1, 2, 3}
    assert all(order.sources[0] == order.drop for order in made.moves)
    assert made.is_active
    assert 70 <= made.waiting <= 80


def test_equal_servers_rest() -> None:
    servers = [server(n, 600 + n) for n in (1, 2, 3, 4)]
    assert plan(chunks_on(1, 2, 3), *servers) == MovePlan((), is_active=False, waiting=0)


def test_moving_begins_far_from_the_mean_and_ends_near_it() -> None:
    chunks = chunks_on(1, 2, 3)
    near = [server(1, 1000), server(2, 1000), server(3, 1000), server(4, 910, 91)]
    assert plan(chunks, *near).moves == ()
    assert plan(chunks, *near, is_active=True).moves != ()
    assert plan(chunks, *near[:3], server(4, 965, 96), is_active=True).moves == ()


def test_capacity_counts_not_bytes() -> None:
    servers = [server(1, 400), server(2, 400), server(3, 400), server(4, 800, 200, capacity=20_000)]
    assert plan(chunks_on(1, 2, 3), *servers).moves == ()


def test_nothing_moves_while_a_server_is_suspect() -> None:
    suspect = replace(server(5, 0, 0), state=ServerState.SUSPECT)
    assert (
        plan(chunks_on(1, 2, 3), server(1, 800), server(2, 800), server(3, 800), server(4, 0, 0), suspect).moves == ()
    )


def test_the_spread_over_hosts_is_never_lowered() -> None:
    servers = [server(1, 800, host="a"), server(2, 800, host="b"), server(3, 800, host="c"), server(4, 0, 0, host="a")]
    made = plan(chunks_on(1, 2, 3), *servers)
    assert made.moves
    assert {order.drop for order in made.moves} == {1}


def test_where_every_server_holds_everything_there_is_nothing_to_move() -> None:
    assert plan(chunks_on(1, 2, 3), server(1, 800), server(2, 800), server(3, 200)) == MovePlan((), False, 0)


class Simulation:
    """Servers come, die for good, drain and hang while repair and moves are carried out with losses and kills."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = rng = random.Random(seed)
        self.target = rng.randint(1, 3)
        self.states: dict[ServerId, ServerState] = {}
        self.disks: dict[ServerId, set[ChunkHandle]] = {}
        for _ in range(rng.randint(self.target + 1, 6)):
            self.add()
        count = rng.randint(1, 150)
        largest = rng.choice((1, MAX))
        self.sizes = {ChunkHandle(n): rng.randint(1, largest) for n in range(count)}
        self.table = {handle: rng.sample(sorted(self.states), self.target) for handle in self.sizes}
        for handle, holders in self.table.items():
            for holder in holders:
                self.disks[holder].add(handle)
        self.begun: dict[ChunkHandle, CopyOrder] = {}
        self.is_active = False

    def add(self) -> None:
        number = ServerId(len(self.states) + 1)
        self.states[number] = ServerState.ALIVE
        self.disks[number] = set()

    def servers(self) -> list[Chunkserver]:
        found = []
        for number, state in self.states.items():
            used = sum(self.sizes[handle] for handle in self.disks[number])
            host = f"h{number % 4}"
            found.append(replace(server(number, used, len(self.disks[number]), host=host), state=state))
        return found

    def shake(self) -> None:
        match self.rng.randrange(5):
            case 0 if len(self.states) < 9:
                self.add()
            case 1:
                self.begun.clear()  # another master leads
            case _:
                self.change_one()

    def change_one(self) -> None:
        """At most one server is away, so that nothing is lost by the world's doing."""
        away = [n for n, state in self.states.items() if state in {ServerState.DEAD, ServerState.SUSPECT}]
        choices = (ServerState.SUSPECT, ServerState.DEAD, ServerState.DRAINING)
        for number in away:
            self.states[number] = ServerState.ALIVE
        if self.target > 1 or self.rng.random() < 0.5:
            self.states[self.rng.choice(sorted(self.states))] = self.rng.choice(choices)

    def step(self, success: float = 1.0, kill: float = 0.0) -> int:
        """Plan, then carry out what may begin; how much there was to do."""
        servers = self.servers()
        alive = {each.id for each in servers if each.state is ServerState.ALIVE}
        self.begun = {handle: order for handle, order in self.begun.items() if order.target in alive}
        chunks = [(handle, tuple(holders)) for handle, holders in self.table.items()]
        repairs = plan_repairs(chunks, servers, self.target, self.begun, self.rng)
        queue = repairs.copies
        moves = MovePlan((), is_active=False, waiting=0)
        if not repairs.copies and not repairs.drops and all(o.drop is not None for o in self.begun.values()):
            whole = [chunk for chunk in chunks if len(chunk[1]) == self.target]
            moves = plan_moves(whole, servers, self.begun.values(), MAX, is_active=self.is_active)
            queue = moves.moves
        self.is_active = moves.is_active
        for number in self.states:
            waiting = [order for order in queue if order.handle not in self.begun]
            for order in next_orders(waiting, self.begun.values(), number):
                self.begun[order.handle] = order
        self.check_load()
        for order in list(self.begun.values()):
            if self.rng.random() < success:
                self.carry_out(order, kill)
        for drop in repairs.drops:
            self.drop(drop)
        for handle, holders in self.table.items():
            assert any(handle in self.disks[s] for s in holders), f"seed {self.seed}: chunk {handle} is lost"
        return len(queue) + len(repairs.drops) + len(self.begun)

    def check_load(self) -> None:
        for number in self.states:
            busy = [o for o in self.begun.values() if number in (o.target, o.sources[0])]
            assert len(busy) <= COPIES_PER_SERVER_MAX, f"seed {self.seed}"
            moving = sum(order.drop is not None for order in busy)
            assert moving <= MOVES_PER_SERVER_MAX or len(busy) > moving, f"seed {self.seed}"

    def carry_out(self, order: CopyOrder, kill: float) -> None:
        del self.begun[order.handle]
        readable = (ServerState.ALIVE, ServerState.DRAINING)
        if self.states[order.target] is not ServerState.ALIVE or not any(
            order.handle in self.disks[source] and self.states[source] in readable for source in order.sources
        ):
            return
        self.disks[order.target].add(order.handle)
        if order.target not in self.table[order.handle]:
            self.table[order.handle].append(order.target)
        if order.drop is None or self.rng.random() < kill:
            return
        before = [holder for holder in self.table[order.handle] if holder != order.target]
        if all(self.states[s] is ServerState.ALIVE for s in self.table[order.handle] if s != order.drop):
            self.drop(DropOrder(order.handle, order.drop))
            if set(before) == set(order.sources):  # as when it was planned
                after = self.table[order.handle]
                assert self.hosts(after) >= self.hosts(before), f"seed {self.seed}: the spread is lowered"

    def hosts(self, holders: list[ServerId]) -> int:
        return len({number % 4 for number in holders})

    def drop(self, order: DropOrder) -> None:
        """The script's check, then the invariant."""
        left = [s for s in self.table[order.handle] if s != order.server]
        if order.server not in self.table[order.handle] or len(left) < self.target:
            return
        certain = [s for s in left if self.states[s] is ServerState.ALIVE]
        assert len(certain) >= self.target, f"seed {self.seed}: a replica that is needed is dropped"
        self.table[order.handle].remove(order.server)
        self.disks[order.server].discard(order.handle)


def simulate(seed: int) -> None:
    simulation = Simulation(seed)
    for _ in range(25):
        simulation.shake()
        for _ in range(3):
            simulation.step(success=0.7, kill=0.2)
    simulation.states = dict.fromkeys(simulation.states, ServerState.ALIVE)
    steps = 0
    while simulation.step():
        steps += 1
        assert steps < 1000, f"seed {seed}: the plans never come to rest"
    assert simulation.step() == 0
    assert all(len(set(h)) == len(h) == simulation.target for h in simulation.table.values()), f"seed {seed}"


def test_many_simulated_clusters_come_to_rest() -> None:
    for seed in (*range(150), 796):  # 796: moves there and back, where the spread forbids the one that is needed
        simulate(seed)


@given(st.integers(min_value=150))
@settings(max_examples=50, deadline=None)
def test_other_seeds_too(seed: int) -> None:
    simulate(seed)
