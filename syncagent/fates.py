"""Decides for each node whether it shall exist, and where, once both sides agree.

Used by `reconcile`. The rules: what one side changed wins over what the other left alone; any change wins over a
deletion, so a deleted directory lives on for what changed inside it; of two moves the server's wins; of two nodes that
want one name the one that has it on the server keeps it, the other gets a conflict name. Pure; computed when asked and
remembered for the life of one plan.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from syncagent.content import Change, local_change, remote_change
from syncagent.model import ROOT_ID, SIDES, Kind, Node, NodeId, Place, Tree, View
from syncagent.names import NameRules, conflict_name, is_aside, is_aside_of
from syncagent.rescues import was_moved


class Fate(StrEnum):
    """What becomes of a node."""

    KEEP = "keep"  # it shall exist on both sides
    GONE = "gone"  # it shall exist on neither
    WAIT = "wait"  # not to be decided now: content has to be read first, or the node is held back


@dataclass(frozen=True, slots=True)
class Customs:
    """What a plan depends on beside the trees."""

    agent: str = "agent"  # in the names of entries moved aside; one for each pair of folders
    copy_stamp: str = "2000-01-01 this-device"  # date and host in the names of conflict copies
    rules: NameRules = field(default_factory=NameRules)
    held: frozenset[NodeId] = frozenset()  # left alone this time: being written, or failed a moment ago


class Fates:
    """The tree on which both sides shall agree."""

    def __init__(self, view: View, customs: Customs) -> None:
        self._view = view
        self._customs = customs
        self._rules = customs.rules
        self._fates: dict[NodeId, Fate] = {ROOT_ID: Fate.KEEP}
        self._reverted: set[NodeId] = set()  # moved locally, but the server's place breaks a cycle
        self._renamed: dict[NodeId, Place] = {}  # lost a clash
        self._names_given: set[Place] = set()
        self._keys: dict[tuple[Tree, NodeId], dict[str, list[NodeId]]] = {}

    # Existence

    def fate(self, node: NodeId) -> Fate:
        """Whether the node shall exist."""
        if node not in self._fates:
            # Without recursion: a tree may be deeper than Python's stack allows.
            order, stack = [], [node]
            while stack:
                current = stack.pop()
                order.append(current)
                stack.extend(self._undecided_children(current))
            for current in reversed(order):
                self._fates[current] = self._decide(current)
        return self._fates[node]

    def is_held(self, node: Node) -> bool:
        """Whether nothing is to be done with the node this time."""
        if node.id in self._customs.held:
            return True
        name = node.remote.place.name if node.remote is not None else ""
        return is_aside(name) and not is_aside_of(name, self._customs.agent)  # another agent is at it

    def _undecided_children(self, node_id: NodeId) -> list[NodeId]:
        node = self._view.node(node_id)
        side = node.only_side
        if side is None or node.kind is not Kind.DIRECTORY or self._own_fate(node, side) is Fate.KEEP:
            return []
        return [child for child in self._view.children(side, node_id) if child not in self._fates]

    def _decide(self, node_id: NodeId) -> Fate:
        node = self._view.node(node_id)
        side = node.only_side
        if side is None:
            return Fate.GONE if node.local is None else Fate.KEEP
        fate = self._own_fate(node, side)
        if fate is Fate.KEEP or node.kind is not Kind.DIRECTORY:
            return fate
        inside = {
            self._fates[child] for child in self._view.children(side, node_id) if self.place(child).parent == node_id
        }
        if Fate.KEEP in inside:
            return Fate.KEEP
        return Fate.WAIT if Fate.WAIT in inside else fate

    def _own_fate(self, node: Node, side: Tree) -> Fate:
        """The fate of a node that only one side has, whatever is inside it."""
        if self.is_held(node):
            return Fate.WAIT
        if node.ancestor is None:
            return Fate.KEEP
        change = local_change(node) if side is Tree.LOCAL else remote_change(node)
        if change is Change.CONTENT:
            return Fate.KEEP
        return Fate.WAIT if change is Change.UNKNOWN else Fate.GONE

    # Places

    def place(self, node_id: NodeId) -> Place:
        """Where the node shall be, if it shall exist."""
        if node_id in self._renamed:
            return self._renamed[node_id]
        node = self._view.node(node_id)
        follows_local = node.remote is None or self._follows_local(node)
        state = (node.local if follows_local else node.remote) or node.ancestor
        assert state is not None, f"node {node_id} is nowhere"
        if is_aside(state.place.name) and node.ancestor is not None:
            return node.ancestor.place
        return state.place

    def _follows_local(self, node: Node) -> bool:
        """Whether a node that both sides have shall be where it is locally."""
        if node.id in self._reverted or node.local is None or node.remote is None:
            return False
        if is_aside(node.remote.place.name):
            return not is_aside(node.local.place.name)
        return was_moved(node, Tree.LOCAL) and not was_moved(node, Tree.REMOTE)

    def break_cycles(self, nodes: Iterable[NodeId]) -> None:
        """Moves of both sides can put two directories into one another: then the server's stand, the local ones do not.

        Each side alone has no cycle, so every cycle holds a directory that follows its local move and is on the server.
        """
        candidates = [
            node for node in map(self._view.node, nodes) if node.kind is Kind.DIRECTORY and self._follows_local(node)
        ]
        changed = True
        while changed:  # each round reverts at least one more
            changed = False
            for node in candidates:
                if node.id not in self._reverted and self._comes_back_to(node.id):
                    self._reverted.add(node.id)
                    changed = True

    def _comes_back_to(self, start: NodeId) -> bool:
        seen = set()
        current = self.place(start).parent
        while current not in {ROOT_ID, start} and current not in seen:
            seen.add(current)
            current = self.place(current).parent
        return current == start

    # Names

    def settle_clashes(self, nodes: Iterable[NodeId]) -> None:
        """Rename whoever wants a name that it does not have on the server and another node keeps there.

        Who is left alone this time may turn out to have left that name: whoever wants it waits, too (`arrange`).
        """
        for node_id in nodes:
            place = self.place(node_id)
            remote = self._view.node(node_id).remote
            if (remote is not None and remote.place == place) or self.fate(node_id) is Fate.GONE:
                continue
            holder = self._holder(Tree.REMOTE, place, node_id)
            if holder is None and remote is not None and is_aside(remote.place.name):
                holder = self._holder(Tree.LOCAL, place, node_id)  # its old name may be in use again
            if holder is not None and not self.is_held(self._view.node(holder)):
                exact = self.place(holder).name == place.name
                self._renamed[node_id] = self.free_place(place, "conflicted copy" if exact else "case conflict")

    def _holder(self, side: Tree, place: Place, besides: NodeId) -> NodeId | None:
        """Another node that has this place on one side and shall stay there. Who has to wait may yet be gone."""
        for found in self.occupants(side, place):
            if found == besides or self.fate(found) is not Fate.KEEP:
                continue
            if self.slot(self.place(found)) == self.slot(place):
                return found
        return None

    def free_place(self, place: Place, word: str = "conflicted copy") -> Place:
        """A conflict name beside this place that nobody has on either side."""

        def taken(name: str) -> bool:
            wanted = Place(place.parent, name)
            return wanted in self._names_given or any(self.occupants(side, wanted) for side in SIDES)

        name = conflict_name(place.name, self._customs.copy_stamp, taken, word)
        found = Place(place.parent, name)
        self._names_given.add(found)
        return found

    def slot(self, place: Place) -> Place:
        """Equal for the places that the local file system takes for one."""
        return place if self._rules.exact else Place(place.parent, self._rules.key(place.name))

    def occupants(self, side: Tree, place: Place) -> list[NodeId]:
        """Who is at this place now, on this side; several when the local file system takes their names for one."""
        if self._rules.exact:
            found = self._view.child(side, *place)
            return [] if found is None else [found]
        at = (side, place.parent)
        if at not in self._keys:
            keys: dict[str, list[NodeId]] = {}
            for child in self._view.children(*at):
                state = self._view.node(child).state(side)
                assert state is not None
                keys.setdefault(self._rules.key(state.place.name), []).append(child)
            self._keys[at] = keys
        return self._keys[at].get(self._rules.key(place.name), [])

    def refusal(self, node: Node) -> str | None:
        """Why the local disk cannot hold the node at its place, or None."""
        place = self.place(node.id)
        reason = self._rules.refusal(place.name)
        if reason is not None or self._rules.exact:
            return reason
        rivals = map(self._view.node, self.occupants(Tree.REMOTE, place))
        # On the server both names can stand. The one that is here already is the one we show, else the older node.
        stronger = [other.id for other in rivals if self._rank(other, place) > self._rank(node, place)]
        if any(self.fate(other) is not Fate.GONE for other in stronger):
            return "another name here differs only in letter case or in the spelling of accents"
        return None

    def _rank(self, node: Node, place: Place) -> tuple[bool, int]:
        is_here = node.local is not None and self.slot(node.local.place) == self.slot(place)
        return is_here, -node.id
