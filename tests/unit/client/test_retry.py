from helenite.client.retry import is_enough, order_replicas, read_attempt_s, write_attempt_s
from helenite.core.model import ServerId

A, B, C = map(ServerId, (1, 2, 3))


def test_near_replicas_come_first_and_suspects_last() -> None:
    order = order_replicas((A, B, C), frozenset({C}), {A: 10.0}, now=5.0, turn=0)
    assert order == [C, B, A]


def test_a_suspicion_ends() -> None:
    assert order_replicas((A, B), frozenset(), {A: 10.0}, now=10.0, turn=0) == [A, B]


def test_equal_replicas_take_turns() -> None:
    assert {order_replicas((A, B, C), frozenset(), {}, 0.0, turn)[0] for turn in range(3)} == {A, B, C}


def test_no_replica_is_no_order() -> None:
    assert order_replicas((), frozenset(), {}, 0.0, 7) == []


def test_patience_grows_and_ends_with_the_deadline() -> None:
    assert read_attempt_s(0, 0, 60.0) < read_attempt_s(0, 1, 60.0)
    assert read_attempt_s(1 << 26, 3, 2.5) == 2.5
    assert write_attempt_s(1 << 26, 0, 60.0) > write_attempt_s(1, 0, 60.0)


def test_two_of_three_are_enough_and_one_of_one() -> None:
    assert is_enough(2, 3, 2)
    assert not is_enough(1, 3, 2)
    assert is_enough(1, 1, 2)
    assert not is_enough(0, 1, 2)
