import random

from hypothesis import given
from hypothesis import strategies as st

from helenite.core.model import Chunkserver, ServerId, ServerState
from helenite.master.membership import Liveness, liveness_state
from helenite.master.placement import choose_chain, usable_servers
from helenite.master.survey import ChunkHealth, count_health


def server(
    number: int, host: str = "", rack: str = "", free: int = 100, state: ServerState = ServerState.ALIVE
) -> Chunkserver:
    return Chunkserver(
        ServerId(number), f"u{number}", "", "", "", host or f"h{number}", rack, 1, state, 100, free, 0, 0
    )


servers = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.integers(0, 10)), min_size=0, max_size=8
).map(lambda found: [server(i, host, rack, free) for i, (host, rack, free) in enumerate(found, 1)])


@given(servers, st.integers(1, 5), st.integers())
def test_a_chain_has_distinct_servers_as_many_as_there_are(found: list[Chunkserver], count: int, seed: int) -> None:
    chain = choose_chain(found, count, random.Random(seed))
    assert len(set(chain)) == len(chain) == min(count, len(found))


@given(servers, st.integers(1, 5), st.integers())
def test_racks_spread_before_they_double_up(found: list[Chunkserver], count: int, seed: int) -> None:
    chain = choose_chain(found, count, random.Random(seed))
    racks = [s.rack for i in chain for s in found if s.id == i]
    if count >= 2 and len({s.rack for s in found}) == 2 and len(chain) >= 2:
        assert len(set(racks)) == 2


def test_hosts_spread_within_a_rack() -> None:
    found = [server(1, "a"), server(2, "a"), server(3, "b")]
    for seed in range(20):
        assert ServerId(3) in choose_chain(found, 2, random.Random(seed))


def test_fuller_servers_are_drawn_less() -> None:
    found = [server(1, free=10), server(2, free=990)]
    rng = random.Random(1)
    primaries = [choose_chain(found, 1, rng)[0] for _ in range(1000)]
    assert primaries.count(ServerId(1)) < 50


def test_unusable_servers() -> None:
    found = [
        server(1),
        server(2, state=ServerState.SUSPECT),
        server(3, state=ServerState.DRAINING),
        server(4, free=1),
        server(5),
    ]
    assert [s.id for s in usable_servers(found, frozenset({ServerId(5)}), need_bytes=50)] == [1]


def test_silence_turns_to_suspicion_turns_to_death() -> None:
    limits = Liveness(10.0, 60.0)
    assert [liveness_state(s, limits) for s in (0.0, 10.0, 10.1, 60.0, 60.1)] == [
        ServerState.ALIVE,
        ServerState.ALIVE,
        ServerState.SUSPECT,
        ServerState.SUSPECT,
        ServerState.DEAD,
    ]


def test_health_counts_replicas_on_living_servers() -> None:
    one, two, three = map(ServerId, (1, 2, 3))
    replicas = [(one, two, three), (one, two), (three,), ()]
    assert count_health(replicas, frozenset({one, two}), 2) == ChunkHealth(total=4, under_replicated=0, lost=2)
    assert count_health(replicas, frozenset({one, two, three}), 3) == ChunkHealth(4, 2, 1)
