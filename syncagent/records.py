"""What the outcome of a step means for the journal: the nodes as they are after it.

Used by `executor` and `transfers`. Each function is the journal's half of a step, one small transaction; none touches a
side. One thread.
"""

from __future__ import annotations

from dataclasses import replace

from helenite.core.errors import PreconditionFailedError
from syncagent.content import Verdict, judge
from syncagent.journal import Journal
from syncagent.model import (
    AgreedState,
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


def pair(journal: Journal, local_id: NodeId, remote_id: NodeId) -> None:
    """Two nodes are one."""
    with journal.transaction():
        local, remote = journal.node(local_id), journal.node(remote_id)
        assert remote.remote is not None
        children = journal.children_nodes(Tree.REMOTE, remote_id)
        journal.put(Node(remote_id))
        journal.put(replace(local, remote=remote.remote))
        for child in children:
            assert child.remote is not None
            journal.put(replace(child, remote=replace(child.remote, place=Place(local_id, child.remote.place.name))))


def rescue(journal: Journal, node_id: NodeId) -> None:
    """A node and what went with it counts as new."""
    side = journal.node(node_id).only_side
    assert side is not None
    with journal.transaction():
        for node in list(journal.subtree(side, node_id)):
            if node.only_side is side:
                journal.put(replace(node, ancestor=None))


def forget(journal: Journal, node_id: NodeId) -> None:
    """A node is gone from both sides."""
    journal.put(Node(node_id))


def forget_beneath(journal: Journal, side: Tree, node_id: NodeId) -> None:
    """A node that only this side had is deleted, with everything beneath."""
    with journal.transaction():
        for node in list(journal.subtree(side, node_id)):
            journal.put(Node(node.id))


def agree(journal: Journal, node_id: NodeId) -> None:
    """Both sides hold the same content, and where they have it in the same place, that is agreed too."""
    journal.put(agreed(journal.node(node_id)))


def agreed(node: Node) -> Node:
    """The node with what both sides hold as its ancestor."""
    local, remote = node.local, node.remote
    assert local is not None
    assert remote is not None
    old = node.ancestor
    place = remote.place if old is None or local.place == remote.place else old.place
    digest = local.digest or remote.digest or (None if old is None else old.digest)
    assert digest is not None or node.kind is Kind.DIRECTORY, f"node {node.id} was agreed without a digest"
    return replace(node, ancestor=AgreedState(place, node.kind, digest, local.stamp, remote.stamp))


def local_is(journal: Journal, node_id: NodeId, state: LocalState) -> None:
    """The agent itself wrote the node's local side; both sides hold the same now."""
    journal.put(agreed(replace(journal.node(node_id), local=state)))


def remote_is(journal: Journal, node_id: NodeId, state: RemoteState) -> None:
    """The agent itself wrote the node's remote side; both sides hold the same now."""
    journal.put(agreed(replace(journal.node(node_id), remote=state)))


def uploaded(journal: Journal, node_id: NodeId, sent: LocalState, state: RemoteState) -> None:
    """The server has the content that the local file had when it was sent; by now that may be another, or gone."""
    with journal.transaction():
        seen = journal.find_resource(state.stamp.resource)
        if seen is not None and seen.id != node_id and seen.remote is not None:
            # The server told of the new entry before we knew that it is ours.
            if seen.only_side is not Tree.REMOTE or seen.ancestor is not None:
                raise PreconditionFailedError(f"{state.place.name} is taken for another entry")
            state = replace(state, place=seen.remote.place)
            forget(journal, seen.id)
        node = journal.node(node_id)
        if node.local is not None and node.local.stamp == sent.stamp:
            node = replace(node, local=replace(node.local, digest=sent.digest))
        place = sent.place if node.ancestor is None else node.ancestor.place
        if node.local is not None and node.local.place == state.place:
            place = state.place
        expect_free(journal, Tree.REMOTE, state.place, node_id)
        ancestor = AgreedState(place, node.kind, sent.digest, sent.stamp, state.stamp)
        journal.put(replace(node, ancestor=ancestor, remote=state))


def sent_before(journal: Journal, node_id: NodeId) -> None:
    """The server's revision is what this device sent, without hearing of it: what both sides had in common then."""
    node = journal.node(node_id)
    assert node.local is not None
    assert node.remote is not None
    remote = node.remote
    place = remote.place if node.ancestor is None or node.local.place == remote.place else node.ancestor.place
    local = LocalStamp(0, remote.stamp.size)  # how the file looked then is not known
    journal.put(replace(node, ancestor=AgreedState(place, node.kind, remote.digest, local, remote.stamp)))


def expect_free(journal: Journal, side: Tree, place: Place, taker: NodeId) -> None:
    """Refuse a step to a place that another node still has: the step that was to move it away has failed."""
    if journal.child(side, *place) not in {None, taker}:
        raise PreconditionFailedError(f"{place.name} is not free yet")


def moved(journal: Journal, side: Tree, node_id: NodeId, place: Place, stamp: LocalStamp | None) -> None:
    """The agent moved a node on one side; `stamp` is the new one of a local entry, whose ctime a rename changes."""
    node = journal.node(node_id)
    if side is Tree.LOCAL:
        assert node.local is not None
        assert stamp is not None
        old = node.ancestor
        if old is not None and old.local == node.local.stamp:
            node = replace(node, ancestor=replace(old, local=stamp))
        assert node.local is not None
        node = replace(node, local=replace(node.local, place=place, stamp=stamp))
    else:
        assert node.remote is not None
        node = replace(node, remote=replace(node.remote, place=place))
    if node.ancestor is not None and node.local and node.remote and node.local.place == node.remote.place:
        node = replace(node, ancestor=replace(node.ancestor, place=node.local.place))
    journal.put(node)


def set_aside(journal: Journal, node_id: NodeId, place: Place, stamp: LocalStamp) -> None:
    """The local file has become a new node, a conflict copy."""
    with journal.transaction():
        node = journal.node(node_id)
        assert node.local is not None
        journal.put(replace(node, local=None))
        journal.put(Node(journal.new_id(), local=replace(node.local, place=place, stamp=stamp)))


def inspected(journal: Journal, node_id: NodeId, digest: bytes) -> None:
    """Somebody has read the local content. If both sides hold the same, that is noted at once: a plan would say so."""
    node = journal.node(node_id)
    assert node.local is not None
    node = replace(node, local=replace(node.local, digest=digest))
    is_same = node.remote is not None and judge(node) is Verdict.ADOPT
    journal.put(agreed(node) if is_same else node)


def remote_digest(journal: Journal, node_id: NodeId, digest: bytes) -> None:
    """Somebody has read the server's content."""
    node = journal.node(node_id)
    assert node.remote is not None
    journal.put(replace(node, remote=replace(node.remote, digest=digest)))


def attributes_set(journal: Journal, node_id: NodeId, stamp: LocalStamp | RemoteStamp) -> None:
    """The agent carried attributes to one side, whose new stamp this is."""
    node = journal.node(node_id)
    if isinstance(stamp, LocalStamp):
        assert node.local is not None
        journal.put(agreed(replace(node, local=replace(node.local, stamp=stamp))))
    else:
        assert node.remote is not None
        journal.put(agreed(replace(node, remote=replace(node.remote, stamp=stamp))))
