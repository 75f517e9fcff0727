"""Random pairs of trees for the planner, and what must hold when its plans are carried out: one seed, one run.

Both trees start from one tree and are changed apart, so that the same nodes are touched twice; unrelated trees would
hardly ever meet in a move or a deletion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from syncagent.fates import Customs
from syncagent.model import (
    ROOT_ID,
    SIDES,
    Kind,
    LocalStamp,
    LocalState,
    Node,
    NodeId,
    Place,
    RemoteStamp,
    RemoteState,
    Tree,
)
from syncagent.names import NameRules, is_aside
from syncagent.plan import Step
from syncagent.reconcile import reconcile
from tests.support.sync_forest import Forest

NAMES = ("a", "b", "c", "d")
ROUNDS_MAX = 60
CUSTOMS = Customs(agent="me", copy_stamp="2026-11-24 host")


def grow(random: Random, forest: Forest, count: int) -> None:
    """A tree that both sides agreed on."""
    directories = [ROOT_ID]
    for number in range(count):
        place = Place(random.choice(directories), random.choice(NAMES))
        if forest.child(Tree.LOCAL, *place) is not None:
            continue
        if random.random() < 0.45:
            directories.append(forest.new_agreed(place, Kind.DIRECTORY))
        else:
            forest.new_agreed(place, Kind.FILE, f"old {number}")


def perturb(random: Random, forest: Forest, side: Tree, count: int, names: Sequence[str] = NAMES) -> None:
    """What a person does on one side."""
    for number in range(count):
        present = [node.id for node in forest.nodes.values() if node.state(side) is not None]
        directories = [ROOT_ID, *(node for node in present if forest.is_directory(side, node))]
        place = Place(random.choice(directories), random.choice(names))
        free = forest.is_free(side, place)
        node = random.choice(present) if present else None
        # Now and then both sides write the same.
        content = f"new {random.randrange(3)}" if random.random() < 0.3 else f"{side} {number} {random.random()}"
        match random.choice(("create", "create", "mkdir", "edit", "edit", "move", "move", "move", "remove", "swap")):
            case "create" if free:
                _make(forest, side, place, Kind.FILE, content)
            case "mkdir" if free:
                _make(forest, side, place, Kind.DIRECTORY, "")
            case "edit" if node is not None and not forest.is_directory(side, node):
                forest.edit(side, node, content)
            case "move" if node is not None and free and not forest.is_inside(side, place.parent, node):
                forest.move(side, node, place)
            case "remove" if node is not None:
                forest.remove(side, node)
            case "swap" if node is not None:
                _swap(forest, side, node, random.choice(present))


def _make(forest: Forest, side: Tree, place: Place, kind: Kind, content: str) -> None:
    (forest.new_local if side is Tree.LOCAL else forest.new_remote)(place, kind, content)


def _swap(forest: Forest, side: Tree, one: NodeId, other: NodeId) -> None:
    """Two entries exchange their names, even a directory and something beneath it (not in one step)."""
    first, second = forest.nodes[one].state(side), forest.nodes[other].state(side)
    assert first is not None
    assert second is not None
    if (
        not forest.rules.exact
        or one == other
        or forest.is_inside(side, other, one)
        or forest.is_inside(side, one, other)
    ):
        return
    forest.move(side, one, Place(ROOT_ID, "passing"))
    forest.move(side, other, first.place)
    forest.move(side, one, second.place)


def unsynced_contents(forest: Forest) -> set[bytes]:
    """What exists on one side and the other has not agreed to."""
    found = set()
    for node in forest.nodes.values():
        agreed = node.ancestor.digest if node.ancestor else None
        for state in (node.local, node.remote):
            if state is not None and state.digest is not None and state.digest != agreed:
                found.add(state.digest)
    return found


def contents(forest: Forest, side: Tree) -> set[bytes]:
    return {digest for _, digest in forest.listing(side).values() if digest is not None}


def sync(random: Random, forest: Forest, failing: float = 0.0) -> None:
    """Plan, shuffle what may be shuffled, carry out, until a plan is empty; both sides are equal then."""
    precious = unsynced_contents(forest)
    carry_out(random, forest, failing, CUSTOMS)
    assert forest.listing(Tree.LOCAL) == forest.listing(Tree.REMOTE)
    assert not forest.unsettled()
    for side in SIDES:
        assert precious <= contents(forest, side)
        names = [path[-1] for path in forest.listing(side)]
        assert not [name for name in names if is_aside(name)]


def carry_out(random: Random, forest: Forest, failing: float, customs: Customs) -> None:
    """Plan and carry out until a plan is empty; nothing is lost meanwhile."""
    precious = unsynced_contents(forest)
    for _ in range(ROUNDS_MAX):
        nodes = forest.unsettled()
        random.shuffle(nodes)
        some_new = random.random() < 0.1
        part = [node for node in nodes if not some_new or forest.nodes[node].ancestor or random.random() < 0.5]
        plan = reconcile(forest, part, customs)
        if plan.is_empty:
            plan = reconcile(forest, nodes, customs)
        if plan.is_empty:
            return
        for batch in plan.batches:
            steps = list(batch)
            random.shuffle(steps)
            for step in steps:
                _attempt(random, forest, step, failing)
        missing = precious - (contents(forest, Tree.LOCAL) | contents(forest, Tree.REMOTE))
        assert not missing, "content that one side had not agreed to lose is gone"
    raise AssertionError(f"no end after {ROUNDS_MAX} plans")


def _attempt(random: Random, forest: Forest, step: Step, failing: float) -> None:
    """One step; when failures are allowed, a step whose precondition an earlier failure took away is refused."""
    if failing and random.random() < failing:
        return
    if not failing:
        forest.apply(step)
        return
    before = dict(forest.nodes)
    try:
        forest.apply(step)
    except (AssertionError, KeyError):
        restore(forest, before)


def restore(forest: Forest, nodes: dict[NodeId, Node]) -> None:
    """Put all nodes back as they were."""
    fresh = Forest()
    for node in nodes.values():
        fresh.put(node)
    forest.nodes, forest.places, forest.below = fresh.nodes, fresh.places, fresh.below


def run(random: Random) -> None:
    """One to three syncs of one tree, some with failing steps, both sides or only one changed."""
    forest = Forest()
    grow(random, forest, random.randrange(0, 9))
    for _ in range(random.choice((1, 1, 2, 3))):
        changing = random.choice((SIDES, SIDES, SIDES, SIDES[:1], SIDES[1:]))
        for side in changing:
            perturb(random, forest, side, random.randrange(1, 6))
        expected = forest.listing(changing[0]) if len(changing) == 1 else None
        sync(random, forest, random.choice((0.0, 0.0, 0.3)))
        if expected is not None:
            assert forest.listing(Tree.LOCAL) == expected, "only one side changed, and that is not what came out"


def run_mirrored(random: Random) -> None:
    """The same changes with the sides exchanged come to the same contents."""
    forest = Forest()
    grow(random, forest, random.randrange(0, 9))
    for side in SIDES:
        perturb(random, forest, side, random.randrange(1, 6))
    other = mirror(forest)
    sync(random, forest)
    sync(random, other)
    assert contents(forest, Tree.LOCAL) == contents(other, Tree.LOCAL)


def run_holding(random: Random) -> None:
    """Nodes that are held back are not touched, and let go they agree like all others."""
    forest = Forest()
    grow(random, forest, random.randrange(0, 9))
    for side in SIDES:
        perturb(random, forest, side, random.randrange(1, 6))
    held = frozenset(node for node in forest.nodes if random.random() < 0.3)
    before = {node: forest.nodes[node].local for node in held if forest.nodes[node].local}
    carry_out(random, forest, 0.0, replace(CUSTOMS, held=held))
    assert before == {node: forest.nodes[node].local for node in before}, "what is held was touched"
    sync(random, forest)


def run_picky(random: Random) -> None:
    """A disk that takes no notice of case and refuses some names is never asked for what it cannot do."""
    forest = Forest()
    grow(random, forest, random.randrange(0, 9))
    forest.rules = NameRules(ignores_case=True, windows=True)
    for side in SIDES:
        perturb(random, forest, side, random.randrange(1, 6), ("a", "A", "b", "B", "con"))
    carry_out(random, forest, 0.0, replace(CUSTOMS, rules=forest.rules))
    forest.rules = NameRules()
    sync(random, forest)


def mirror(forest: Forest) -> Forest:
    """The same three trees with local and remote exchanged."""
    mirrored = Forest()
    for node in forest.nodes.values():
        local, remote, agreed = node.local, node.remote, node.ancestor
        mirrored.put(
            Node(
                node.id,
                agreed and agreed._replace(local=_as_local(agreed.remote), remote=_as_remote(agreed.local)),
                remote and LocalState(remote.place, remote.kind, _as_local(remote.stamp), remote.digest),
                local and RemoteState(local.place, local.kind, _as_remote(local.stamp), local.digest),
            )
        )
    mirrored.skip_numbers(1_000_000)
    return mirrored


def _as_local(stamp: RemoteStamp) -> LocalStamp:
    number = int(stamp.etag[1:] or 0)
    return LocalStamp(int(stamp.resource[1:]), stamp.size, number, number)


def _as_remote(stamp: LocalStamp) -> RemoteStamp:
    return RemoteStamp(f"r{stamp.inode}", f"e{stamp.ctime_ns}" if stamp.ctime_ns else "", stamp.size)
