"""Nodes that are not where they were, while one look at one side goes on: moved, replaced or deleted, nobody knows yet.

Used by `scan` and `observe`. Who is found elsewhere is claimed; who is still here at the end is gone from that side,
with all that was beneath. One look is one transaction of the journal: a look that breaks off leaves no trace, so
nothing counts as deleted because a look was not finished. One thread.
"""

from __future__ import annotations

from syncagent.journal import Journal
from syncagent.model import Kind, LocalState, Node, NodeId, Place, RemoteState, Tree

SideState = LocalState | RemoteState


class Limbo:
    """The nodes of one side that are looked for."""

    def __init__(self, journal: Journal, side: Tree) -> None:
        self._journal = journal
        self._side = side
        self._waiting: dict[NodeId, SideState] = {}
        self._by_identity: dict[int | str, NodeId] = {}
        self.claimed: set[NodeId] = set()
        """Seen in this look; whoever is in here is not to be looked for again."""

    @property
    def is_empty(self) -> bool:
        """Nobody is looked for."""
        return not self._waiting

    def take(self, node: Node) -> None:
        """The node is not where it was. If it has no other state the journal forgets it, though not its children."""
        state = node.local if self._side is Tree.LOCAL else node.remote
        assert state is not None
        self._waiting[node.id] = state
        self._by_identity[_identity(state)] = node.id
        self.put(node, None)

    def find(self, identity: int | str) -> tuple[NodeId, SideState] | None:
        """Who is looked for and had this inode or resource id."""
        node = self._by_identity.get(identity)
        return None if node is None or node not in self._waiting else (node, self._waiting[node])

    def claim(self, node_id: NodeId, state: SideState) -> None:
        """The node is here. Whoever the journal has at this place is looked for from now on."""
        holder = self._journal.child(self._side, *state.place)
        if holder is not None and holder != node_id:
            self.take(self._journal.node(holder))
        self._waiting.pop(node_id, None)
        self.claimed.add(node_id)
        try:
            node = self._journal.node(node_id)
        except KeyError:
            node = Node(node_id)
        if node.state(self._side) != state:
            self.put(node, state)

    def put(self, node: Node, state: SideState | None) -> None:
        if self._side is Tree.LOCAL:
            assert not isinstance(state, RemoteState)
            self._journal.put(Node(node.id, node.ancestor, state, node.remote))
        else:
            assert not isinstance(state, LocalState)
            self._journal.put(Node(node.id, node.ancestor, node.local, state))

    def replaced_at(self, place: Place, kind: Kind) -> NodeId | None:
        """Who of this kind is looked for and was at this place."""
        for node, state in self._waiting.items():
            if state.place == place and state.kind is kind:
                return node
        return None

    def finish(self) -> list[NodeId]:
        """Nobody else will be found: who is left is gone, with everything beneath; who that is."""
        gone = list(self._waiting)
        for top in self._waiting:
            stack = self._journal.children_nodes(self._side, top)
            while stack:
                node = stack.pop()
                stack += self._journal.children_nodes(self._side, node.id)
                gone.append(node.id)
                self.put(node, None)
        self._waiting.clear()
        return gone


def _identity(state: SideState) -> int | str:
    return state.stamp.inode if isinstance(state, LocalState) else state.stamp.resource
