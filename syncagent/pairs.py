"""Finds out which new nodes of the two sides are one: same kind, same name, in directories that are one.

Used by `reconcile`: on a first sync of two full folders nearly all nodes are such pairs, and after a lost reply the one
that the server has is ours. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from syncagent.model import ROOT_ID, NodeId, Tree, View
from syncagent.plan import Pair


def find_pairs(view: View, nodes: Iterable[NodeId]) -> list[Pair]:
    """The pairs among these nodes, parents before their children."""
    counterparts: dict[NodeId, NodeId | None] = {ROOT_ID: ROOT_ID}
    return [pair for node in nodes for pair in _pair_lineage(view, node, counterparts)]


def _pair_lineage(view: View, node_id: NodeId, counterparts: dict[NodeId, NodeId | None]) -> list[Pair]:
    """Look for the counterpart of a node, after those of the directories above it; the pairs that are new."""
    lineage = []
    current = node_id
    while current not in counterparts:
        node = view.node(current)
        if node.local is None or node.remote is not None:
            counterparts[current] = None if node.remote is None else current
            break
        lineage.append(current)
        current = node.local.place.parent
    pairs = []
    for local in reversed(lineage):
        parent = counterparts[current]
        counterparts[local] = None if parent is None else _twin(view, local, parent)
        remote = counterparts[local]
        if remote is not None:
            pairs.append(Pair(local, remote))
        current = local
    return pairs


def _twin(view: View, local_id: NodeId, remote_parent: NodeId) -> NodeId | None:
    """The new remote node of the same kind and name in the directory that is the counterpart of ours."""
    local = view.node(local_id)
    assert local.local is not None
    remote_id = view.child(Tree.REMOTE, remote_parent, local.local.place.name)
    if remote_id is None or local.ancestor is not None:
        return None
    remote = view.node(remote_id)
    is_new = remote.local is None and remote.ancestor is None
    return remote_id if is_new and remote.kind is local.kind else None
