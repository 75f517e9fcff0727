"""Finds what one side moved and the other deleted: moving something says that it is wanted, so it stays.

Used by `reconcile`. A rescued node, with all beneath that went with it, is from then on as good as new, so that it
stays rescued even when it comes to the other side piece by piece. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from syncagent.model import ROOT_ID, Node, NodeId, Tree, View
from syncagent.names import is_aside
from syncagent.plan import Rescue


def find_rescues(view: View, nodes: Iterable[NodeId]) -> list[Rescue]:
    """The topmost rescued nodes among these and the directories around them."""
    found: dict[NodeId, None] = {}
    searched: set[NodeId] = set()
    for node_id in nodes:
        top, current = None, node_id
        while current != ROOT_ID and current not in searched:
            searched.add(current)
            node = view.node(current)
            side = node.only_side
            if side is None:
                break
            if was_moved(node, side):
                top = current
            state = node.state(side)
            assert state is not None
            current = state.place.parent
        if top is not None:
            found[top] = None
    return [Rescue(node) for node in found]


def was_moved(node: Node, side: Tree) -> bool:
    """Whether a person moved or renamed the node on this side since the sides agreed."""
    state, agreed = node.state(side), node.ancestor
    if state is None or agreed is None or is_aside(state.place.name):
        return False
    return state.place != agreed.place
