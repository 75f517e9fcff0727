"""The heart of the agent: from three trees to a plan. A pure function, so that tests can try a hundred thousand.

`engine` calls it with the nodes that are not settled, until the plan is empty. What it promises, for any three trees:

- Carried out again and again, plans come to an end, and then both sides are equal but for what a Problem names.
- No content that one side has and the other had not agreed to is removed; who loses a conflict becomes a copy.
- In every order in which the steps of a batch may run, and after any step has failed, the same holds.
- Directories, moves and transfers come before deletions.

Deciding is in `fates` (existence and place) and `content`, the order of moves in `arrange`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from syncagent.arrange import Arrangement
from syncagent.content import Change, Verdict, judge, local_change
from syncagent.fates import Customs, Fate, Fates
from syncagent.model import SIDES, Kind, Node, NodeId, Tree, View
from syncagent.pairs import find_pairs
from syncagent.plan import (
    Adopt,
    Delete,
    Download,
    Forget,
    Inspect,
    Plan,
    Problem,
    SetAside,
    SetAttributes,
    Step,
    Upload,
)
from syncagent.rescues import find_rescues


def reconcile(view: View, nodes: Sequence[NodeId], customs: Customs) -> Plan:
    """Plan what brings these nodes, which are not settled, closer to agreement.

    Args:
        view: the three trees, complete as far as they were observed: who is not in them does not exist there.
        nodes: in any order; of those without an ancestor, of which a first sync has very many, a part will do.
        customs: what to call things, and whom to leave alone.
    """
    identities: list[Step] = [*find_pairs(view, nodes), *find_rescues(view, nodes)]
    if identities:
        return Plan((tuple(identities),))  # nothing else can be decided before it is known who is who
    return _Planner(view, customs).plan(nodes)


_STEPS: dict[Verdict, Callable[[NodeId], Step]] = {
    Verdict.ADOPT: Adopt,
    Verdict.UPLOAD: lambda node: Upload(node, None),
    Verdict.DOWNLOAD: lambda node: Download(node, None),
    Verdict.PUSH_ATTRIBUTES: lambda node: SetAttributes(Tree.REMOTE, node),
    Verdict.PULL_ATTRIBUTES: lambda node: SetAttributes(Tree.LOCAL, node),
    Verdict.INSPECT_LOCAL: lambda node: Inspect(node, Tree.LOCAL),
    Verdict.INSPECT_REMOTE: lambda node: Inspect(node, Tree.REMOTE),
}


class _Planner:
    """Collects the steps of one plan."""

    def __init__(self, view: View, customs: Customs) -> None:
        self._view = view
        self._fates = Fates(view, customs)
        self._sides = {side: Arrangement(view, self._fates, side, customs.agent) for side in SIDES}
        self._notes: list[Step] = []
        self._copies: list[Step] = []
        self._transfers: list[Step] = []
        self._deletions: list[Step] = []
        self._problems: list[Problem] = []

    def plan(self, node_ids: Sequence[NodeId]) -> Plan:
        self._fates.break_cycles(node_ids)
        self._fates.settle_clashes(node_ids)
        nodes = [self._view.node(node) for node in node_ids]
        kept = [node for node in nodes if self._fates.fate(node.id) is Fate.KEEP and not self._fates.is_held(node)]
        verdicts = {node.id: judge(node) for node in kept if node.only_side is None}
        for node in kept:
            if verdicts.get(node.id) is Verdict.CONFLICT and self._is_at_place(node):
                self._copy_aside(node)
        for arrangement in self._sides.values():
            arrangement.settle(node.id for node in kept)
        for node in kept:
            if node.id in verdicts:
                self._agree(node, verdicts[node.id])
            else:
                self._create(node)
            self._complain(node)
        self._remove(nodes)
        return Plan(self._batches(), tuple(self._problems))

    def _copy_aside(self, node: Node) -> None:
        """The server's revision keeps the name, so the local one needs another."""
        assert node.local is not None
        self._copies.append(SetAside(node.id, self._fates.free_place(node.local.place).name))
        self._sides[Tree.LOCAL].leave(node.id)

    def _agree(self, node: Node, verdict: Verdict) -> None:
        """What is to be done with the content of a node that both sides have."""
        assert node.local is not None
        assert node.remote is not None
        place = self._fates.place(node.id)
        if verdict is Verdict.SETTLED:
            at_place = node.local.place == place == node.remote.place
            if at_place and (node.ancestor is None or node.ancestor.place != place):
                self._notes.append(Adopt(node.id))
        elif verdict is Verdict.CONFLICT:
            # A file that has to move first is left to the next plan: its copy belongs beside its new place.
            if self._is_at_place(node) and self._sides[Tree.LOCAL].is_ready(node.id):
                self._transfers.append(Download(node.id, place))
        else:
            step = _STEPS[verdict](node.id)
            (self._notes if isinstance(step, Adopt | Inspect) else self._transfers).append(step)

    def _create(self, node: Node) -> None:
        """One side lacks the node. Directories are made by the arrangement."""
        side = node.only_side
        assert side is not None
        if node.kind is Kind.DIRECTORY or not self._sides[side.other_side].is_ready(node.id):
            return
        transfer = Upload if side is Tree.LOCAL else Download
        self._transfers.append(transfer(node.id, self._fates.place(node.id)))

    def _complain(self, node: Node) -> None:
        reason = None if self._is_at_place(node) else self._fates.refusal(node)
        if reason is not None:
            self._problems.append(Problem(node.id, Tree.LOCAL, reason))

    def _is_at_place(self, node: Node) -> bool:
        """Whether the local entry is where it shall be."""
        return node.local is not None and node.local.place == self._fates.place(node.id)

    def _remove(self, nodes: Sequence[Node]) -> None:
        """Forget what both sides deleted, delete what one did; a directory goes as a whole when nobody stays in it."""
        gone = [node for node in nodes if self._fates.fate(node.id) is Fate.GONE]
        staying = [(node, side) for node in nodes for side in SIDES if self._fates.fate(node.id) is not Fate.GONE]
        pinned = {directory for node, side in staying for directory in self._doomed_around(node, side)}
        for node in gone:
            side = node.only_side
            if side is None:
                self._notes.append(Forget(node.id))
                continue
            state = node.state(side)
            assert state is not None
            goes_with_parent = self._fates.fate(state.place.parent) is Fate.GONE
            if not goes_with_parent and node.id not in pinned:
                self._deletions.append(Delete(side, node.id))
        for node in nodes:
            if self._fates.fate(node.id) is Fate.WAIT:
                self._find_out(node)

    def _doomed_around(self, node: Node, side: Tree) -> list[NodeId]:
        """The directories that are to be deleted and hold this node even after the steps of this plan."""
        found = []
        place = self._sides[side].place_of(node.id)
        while place is not None and self._fates.fate(place.parent) is Fate.GONE:
            found.append(place.parent)
            place = self._sides[side].place_of(place.parent)
        return found

    def _find_out(self, node: Node) -> None:
        """A file that is deleted on the server and looks touched here: only its content tells whether to keep it."""
        is_file = node.local is not None and node.kind is not Kind.DIRECTORY
        if is_file and not self._fates.is_held(node) and local_change(node) is Change.UNKNOWN:
            self._notes.append(Inspect(node.id, Tree.LOCAL))

    def _batches(self) -> tuple[tuple[Step, ...], ...]:
        levels: dict[int, list[Step]] = {0: list(self._copies)}
        for arrangement in self._sides.values():
            for level, step in arrangement.steps:
                levels.setdefault(level, []).append(step)
        batches: Iterable[Sequence[Step]] = [
            self._notes,
            *(levels[level] for level in sorted(levels)),
            self._transfers,
            self._deletions,
        ]
        return tuple(tuple(batch) for batch in batches if batch)
