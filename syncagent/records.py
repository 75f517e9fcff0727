"""What the outcome of a step means for the journal: the nodes as they are after it.

Used by `executor` and `transfers`. Each function is the journal's half of a step, one small transaction; none touches a
side. One thread.
"""

from __future__ import annotations

from dataclasses import replace

from helenite.core.errors import PreconditionFailedError
from syncagent import doings
from syncagent.content import Verdict, judge
from syncagent.journal import Journal
from syncagent.model import (
    ROOT_ID,
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
from syncagent.underway import Carried


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
            agreed = child.ancestor
            if agreed is not None and agreed.place.parent == remote_id:  # else both sides would seem to have moved it
                agreed = agreed._replace(place=Place(local_id, agreed.place.name))
            there = child.remote._replace(place=Place(local_id, child.remote.place.name))
            journal.put(replace(child, ancestor=agreed, remote=there))


def moved_before(journal: Journal, node_id: NodeId, side: Tree = Tree.REMOTE) -> None:
    """We had moved a node to where this side has it: that is agreed upon, whatever happened on the other since."""
    node = journal.node(node_id)
    state = node.state(side)
    assert state is not None
    assert node.ancestor is not None
    journal.put(replace(node, ancestor=node.ancestor._replace(place=state.place)))


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
    """The agent itself wrote the node's local side; both sides hold the same now.

    A new entry is where the server had it when it was asked for: if it is elsewhere by now, it was moved there.
    """
    node = journal.node(node_id)
    fresh = agreed(replace(node, local=state))
    assert fresh.ancestor is not None
    place = state.place if node.ancestor is None else fresh.ancestor.place
    journal.put(replace(fresh, ancestor=fresh.ancestor._replace(place=place)))


def remote_is(journal: Journal, node_id: NodeId, state: RemoteState) -> None:
    """The agent itself made the node's directory on the server; both sides hold the same now."""
    state = state._replace(walked=doings.mark(journal))
    journal.put(agreed(replace(journal.node(node_id), remote=state)))


def uploaded(
    journal: Journal, node_id: NodeId, sent: LocalState, state: RemoteState, replaced: RemoteStamp | None
) -> None:
    """The server has the content that the local file had when it was sent; by now that may be another, or gone.

    Args:
        journal: where to write it down.
        node_id: the node; it may be unknown, because the local file was deleted meanwhile.
        sent: the local file as it was sent.
        state: what the server made of it.
        replaced: the revision that it replaced.
    """
    with journal.transaction():
        node = _known(journal, node_id)
        seen = journal.find_resource(state.stamp.resource)
        if seen is not None and seen.id != node_id:
            # The server told of the new entry before we knew that it is ours.
            if seen.only_side is not Tree.REMOTE or seen.ancestor is not None or node.remote is not None:
                raise PreconditionFailedError(f"{state.place.name} is taken for another entry")
            forget(journal, seen.id)
        elif node.remote is not None and seen is None:
            raise PreconditionFailedError(f"{state.place.name} is another entry by now")
        if node.local is not None and node.local.stamp == sent.stamp:
            node = replace(node, local=node.local._replace(digest=sent.digest))
        remote = _present_state(state, None if seen is None else seen.remote, replaced)
        if remote is not None:
            expect_free(journal, Tree.REMOTE, remote.place, node_id)
        place = sent.place if node.ancestor is None else node.ancestor.place
        if remote is not None and node.local is not None and node.local.place == remote.place:
            place = remote.place
        ancestor = AgreedState(place, sent.kind, sent.digest, sent.stamp, state.stamp)
        journal.put(replace(node, ancestor=ancestor, remote=remote))


def _known(journal: Journal, node_id: NodeId) -> Node:
    """The node, if need be one that is nowhere yet."""
    try:
        return journal.node(node_id)
    except KeyError:
        return Node(node_id)


def _present_state(made: RemoteState, seen: RemoteState | None, replaced: RemoteStamp | None) -> RemoteState | None:
    """How the server's side is after an upload that made `made` of `replaced`; `seen`: what looks have found by now."""
    if seen is None:
        return made if replaced is None else None  # what was replaced was there; so it is gone since
    if seen.stamp.etag == made.stamp.etag or (replaced is not None and seen.stamp.etag == replaced.etag):
        return made._replace(place=seen.place)
    return seen  # somebody has made another revision of it already


def brought_before(journal: Journal, node_id: NodeId, side: Tree, carried: Carried) -> None:
    """What one side has is what this device brought over, without living to write it down: what both had in common."""
    node = journal.node(node_id)
    assert node.local is not None
    assert node.remote is not None
    local, remote = node.local.stamp, node.remote.stamp
    if side is Tree.REMOTE:
        local = LocalStamp(0, remote.size)  # how the other side looked then is not known
    else:
        remote = RemoteStamp(remote.resource, size=local.size)
    place = node.remote.place if node.ancestor is None else node.ancestor.place
    if node.ancestor is None and place.name != carried.name:  # it was renamed there since, and perhaps here
        place = Place(node.local.place.parent, carried.name)
    digest = carried.digest or None
    journal.put(replace(node, ancestor=AgreedState(place, node.kind, digest, local, remote)))


def sent_and_gone(journal: Journal, node_id: NodeId, digest: bytes) -> None:
    """What the server has was sent from here, and is not here any more: both sides had it, and this one deleted it."""
    node = journal.node(node_id)
    assert node.remote is not None
    there = node.remote
    ancestor = AgreedState(there.place, node.kind, digest or None, LocalStamp(0, there.stamp.size), there.stamp)
    journal.put(replace(node, ancestor=ancestor))


def fetched_and_gone(journal: Journal, node_id: NodeId, carried: Carried) -> None:
    """What is here was put here by us, and the server has removed it since: both sides had it, and that one deleted it.

    What nobody has touched here then goes; what was changed here stays.
    """
    node = journal.node(node_id)
    assert node.local is not None
    here = node.local
    remote = RemoteStamp(carried.resource, size=here.stamp.size)
    journal.put(replace(node, ancestor=AgreedState(here.place, node.kind, carried.digest or None, here.stamp, remote)))


def directory_id(journal: Journal, place: Place) -> str:
    """The id, on the server, of the directory that a place is in; empty for the synced folder itself."""
    remote = None if place.parent == ROOT_ID else journal.node(place.parent).remote
    return "" if remote is None else remote.stamp.resource


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
            node = replace(node, ancestor=old._replace(local=stamp))
        assert node.local is not None
        node = replace(node, local=node.local._replace(place=place, stamp=stamp))
    else:
        assert node.remote is not None
        walked = doings.mark(journal) if node.kind is Kind.DIRECTORY else ""
        node = replace(node, remote=node.remote._replace(place=place, walked=walked))
    if node.ancestor is not None and node.local and node.remote and node.local.place == node.remote.place:
        node = replace(node, ancestor=node.ancestor._replace(place=node.local.place))
    journal.put(node)


def set_aside(journal: Journal, node_id: NodeId, place: Place, stamp: LocalStamp) -> None:
    """The local file has become a new node, a conflict copy."""
    with journal.transaction():
        node = journal.node(node_id)
        assert node.local is not None
        journal.put(replace(node, local=None))
        journal.put(Node(journal.new_id(), local=node.local._replace(place=place, stamp=stamp)))


def inspected(journal: Journal, node_id: NodeId, digest: bytes) -> None:
    """Somebody has read the local content. If both sides hold the same, that is noted at once: a plan would say so."""
    node = journal.node(node_id)
    assert node.local is not None
    node = replace(node, local=node.local._replace(digest=digest))
    is_same = node.remote is not None and judge(node) is Verdict.ADOPT
    journal.put(agreed(node) if is_same else node)


def remote_digest(journal: Journal, node_id: NodeId, digest: bytes) -> None:
    """Somebody has read the server's content."""
    node = journal.node(node_id)
    assert node.remote is not None
    journal.put(replace(node, remote=node.remote._replace(digest=digest)))


def attributes_set(journal: Journal, node_id: NodeId, stamp: LocalStamp | RemoteStamp) -> None:
    """The agent carried attributes to one side, whose new stamp this is."""
    node = journal.node(node_id)
    if isinstance(stamp, LocalStamp):
        assert node.local is not None
        journal.put(agreed(replace(node, local=node.local._replace(stamp=stamp))))
    else:
        assert node.remote is not None
        journal.put(agreed(replace(node, remote=node.remote._replace(stamp=stamp))))
