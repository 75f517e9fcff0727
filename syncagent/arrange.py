"""Decides in which order the directories and moves of one side come: each finds its parent there and its name free.

Used by `reconcile`, once for each side. Top down by the places that shall be: when a node's turn comes, its new parent
is where it shall be already, so a move never lands inside itself. Whoever stands on a wanted name goes first if it has
to go anyway; when that is not possible (two names that are exchanged, an entry that is deleted last) it is moved aside
in its directory and comes back later. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from syncagent.fates import Fate, Fates
from syncagent.model import ROOT_ID, Kind, Node, NodeId, Place, Tree, View
from syncagent.names import aside_name
from syncagent.plan import MakeDirectory, Move

CHAIN_MAX = 32
"""So many entries wait for each other's names before one is moved aside: bounds the recursion (f1 -> f2 -> f3 …)."""


class Arrangement:
    """The structural steps of one side, each with its level: a step depends only on steps of lower levels."""

    def __init__(self, view: View, fates: Fates, side: Tree, agent: str) -> None:
        self._view = view
        self._fates = fates
        self._side = side
        self._agent = agent
        self._ready_at: dict[NodeId, int | None] = {ROOT_ID: 0}  # None: not to be brought to its place this time
        self._under_way: set[NodeId] = set()
        self._left: set[NodeId] = set()  # is a conflict copy by then, not this node any more
        self._places: dict[NodeId, Place] = {}  # of those that steps have placed
        self._placed_at: dict[NodeId, int] = {}  # the level after the step
        self._takers: dict[Place, NodeId] = {}  # by slot (`Fates.slot`), as the next
        self._free_at: dict[Place, int] = {}
        self.steps: list[tuple[int, MakeDirectory | Move]] = []

    def leave(self, node: NodeId) -> None:
        """A step of level 0 that is not ours takes the node's entry away from here (as a conflict copy)."""
        place = self.place_of(node)
        assert place is not None
        self._left.add(node)
        self._free_at[self._fates.slot(place)] = 1

    def settle(self, nodes: Iterable[NodeId]) -> None:
        """Bring nodes that shall exist to their places; for a file that is still to be transferred, make room."""
        for node in nodes:
            self._settle(node, 0)

    def is_ready(self, node: NodeId) -> bool:
        """Whether the steps bring the node to its place or, if it is not there yet, free its place for it."""
        return self._ready_at.get(node) is not None

    def place_of(self, node: NodeId) -> Place | None:
        """Where the node is on this side after the steps so far."""
        if node in self._places or node in self._left:
            return self._places.get(node)
        state = self._view.node(node).state(self._side)
        return None if state is None else state.place

    def _settle(self, node: NodeId, chain: int) -> None:
        """Settle the node, after the directories above the place where it shall be."""
        lineage = []
        while node not in self._ready_at and node not in self._under_way:
            lineage.append(node)
            self._under_way.add(node)
            node = self._fates.place(node).parent
        comes_later = node in self._under_way and node not in lineage and node not in self._ready_at
        level = self._ready_at.get(node)
        for current in reversed(lineage):
            self._under_way.discard(current)
            if comes_later:
                continue
            self._under_way.add(current)
            level = None if level is None else self._put(current, level, chain)
            self._ready_at[current] = level
            self._under_way.discard(current)

    def _put(self, node_id: NodeId, level: int, chain: int) -> int | None:
        """Plan the step that brings a node to its place, whose parent is there at `level`; when it will be there."""
        node, place = self._view.node(node_id), self._fates.place(node_id)
        here = self.place_of(node_id)
        if here == place:
            return level
        if not self._may_touch(node):
            return None
        room = self._make_room(place, node_id, chain)
        if room is None:
            return None
        level = max(level, room, self._placed_at.get(node_id, 0))
        if here is not None:
            self._take(level, Move(self._side, node_id, place))
        elif node.kind is Kind.DIRECTORY:
            self._take(level, MakeDirectory(self._side, node_id, place))
        else:
            self._takers[self._fates.slot(place)] = node_id
            return level
        return level + 1

    def _may_touch(self, node: Node) -> bool:
        if self._fates.is_held(node) or self._fates.fate(node.id) is not Fate.KEEP:
            return False
        return self._side is Tree.REMOTE or self._fates.refusal(node) is None

    def _make_room(self, place: Place, taker: NodeId, chain: int) -> int | None:
        """When nobody will have this place any more; None when its holder must not be touched."""
        holder = self._holder(place, taker)
        if holder is None:
            return self._free_at.get(self._fates.slot(place), 0)
        if self._fates.is_held(self._view.node(holder)) or self._fates.fate(holder) is Fate.WAIT:
            return None
        if self._fates.fate(holder) is Fate.KEEP and chain < CHAIN_MAX:
            self._settle(holder, chain + 1)
        stays_at = self.place_of(holder)
        if stays_at is not None and self._fates.slot(stays_at) == self._fates.slot(place):
            if holder in self._ready_at:
                return None  # it cannot leave
            aside = Place(place.parent, aside_name(self._agent, holder))
            self._take(0, Move(self._side, holder, aside))
        return self._free_at.get(self._fates.slot(place), 0)

    def _holder(self, place: Place, besides: NodeId) -> NodeId | None:
        """Who else has this place as things stand after the steps so far."""
        taker = self._takers.get(self._fates.slot(place))
        if taker is not None and taker != besides:
            return taker
        for found in self._fates.occupants(self._side, place):
            if found != besides and found not in self._places and found not in self._left:
                return found
        return None

    def _take(self, level: int, step: MakeDirectory | Move) -> None:
        """Note a step: its node leaves its place and takes the new one."""
        old = self.place_of(step.node)
        if old is not None:
            self._takers.pop(self._fates.slot(old), None)
            self._free_at[self._fates.slot(old)] = level + 1
        self.steps.append((level, step))
        self._places[step.node] = step.place
        self._placed_at[step.node] = level + 1
        self._takers[self._fates.slot(step.place)] = step.node
        self._free_at.pop(self._fates.slot(step.place), None)
