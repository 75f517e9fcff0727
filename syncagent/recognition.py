"""Recognises what this device did and did not live to write down, so that it has no conflict with itself.

Used by `engine` before a plan is carried out. `underway` remembers which contents were being brought over; that
one side surely has had what the other has now makes the latter the past of the former, whatever the two are called by
now. A local file is told by its name or, if it was renamed and saved, by its inode; an entry of the server by its id.
The journal then gets the agreement that it would have had. A wrong guess (the file system gave an inode out again)
turns a deletion and a new file into a rename and an edit, which comes to the same. One thread.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass

from helenite.core.errors import HeleniteError
from syncagent import records
from syncagent.journal import Journal
from syncagent.model import SIDES, Kind, Node, NodeId, RemoteState, Tree, path_of
from syncagent.plan import Download, Plan, SetAside
from syncagent.ports import Folder
from syncagent.rescues import was_moved
from syncagent.underway import Carried, Moved


@dataclass(frozen=True, slots=True)
class Recognised:
    """`is_news`: something was written down. `unclear`: nodes to be left alone until a transfer has told of its end."""

    is_news: bool = False
    unclear: frozenset[NodeId] = frozenset()


def recognise(
    plan: Plan, nodes: Iterable[NodeId], journal: Journal, folder: Folder, running: Container[NodeId]
) -> Recognised:
    """What is our own doing is written down, and another plan has to be made.

    Args:
        plan: not begun yet.
        nodes: all that are not settled: one with which nothing can be done now may be in the way of others.
        journal: what the plan was made of.
        folder: the local side.
        running: nodes whose content is on its way: what comes of them will be told.
    """
    recognition = _Recognition(journal, folder, running)
    known = [recognition.knows_content(step) for step in plan.steps if isinstance(step, SetAside | Download)]
    is_news = any([*known, *map(recognition.knows, nodes)])
    return Recognised(is_news, frozenset(recognition.unclear))


class _Recognition:
    def __init__(self, journal: Journal, folder: Folder, running: Container[NodeId]) -> None:
        self._journal = journal
        self._folder = folder
        self._memory = folder.under_way
        self._running = running
        self.unclear: set[NodeId] = set()

    def knows_content(self, step: SetAside | Download) -> bool:
        """Whether one of two contents of a node is what we brought ourselves."""
        node = self._node(step.node)
        if node is None or node.local is None or node.remote is None:
            return False
        if isinstance(step, SetAside):
            return self._is_past(node, Tree.LOCAL) or self._is_past(node, Tree.REMOTE)
        return step.place is None and self._is_our_revision(node)

    def knows(self, node_id: NodeId) -> bool:
        """Whether a node is where or what we made it."""
        node = self._node(node_id)
        if node is None:
            return False
        if node.ancestor is not None and self._is_our_move_here(node):
            return True
        if node.remote is None:
            return self._is_fetched_from_there(node)
        return self._is_our_move(node) or self._is_sent_from_here(node)

    def _node(self, node_id: NodeId) -> Node | None:
        try:
            return self._journal.node(node_id)
        except KeyError:
            return None  # found to be one with another, a moment ago

    def _is_past(self, node: Node, side: Tree) -> bool:
        """Whether the other side has had what this one has."""
        assert node.local is not None
        assert node.remote is not None
        digest, here, there = self._digest(node, side), node.local, node.remote
        marks = (here.stamp.inode, here.place.name, there.place.name, there.stamp.resource)
        for carried in () if digest is None else self._memory.of_content(digest, *marks):
            if _proves(carried, node, side.other_side):
                records.brought_before(self._journal, node.id, side, carried)
                return True
        return False

    def _is_our_revision(self, node: Node) -> bool:
        """Whether the server's revision was sent from here, so that what is here now is the later one."""
        assert node.remote is not None
        known = self._of_revision(node.remote)
        if not known or any(each.had is Tree.REMOTE for each in known):  # it was there before it was here
            return False
        records.brought_before(self._journal, node.id, Tree.REMOTE, known[0])
        return True

    def _of_revision(self, remote: RemoteState) -> list[Carried]:
        """What is known of this very revision of the server's, but for the first one of a new entry."""
        resource = remote.stamp.resource
        known = () if remote.digest is None else self._memory.of_content(remote.digest, resource)
        return [each for each in known if each.resource == resource]

    def _is_our_move(self, node: Node) -> bool:
        """Whether the server has an entry where we put it, and it was moved or removed here since.

        We put it where it was here at that time; so if it is elsewhere here, it was moved here, be it back.
        """
        if node.remote is None:
            return False
        if node.local is not None and node.ancestor is None:
            return node.local.place != node.remote.place and self._is_past(node, Tree.REMOTE)
        if not was_moved(node, Tree.REMOTE):
            return False
        if not self._memory.has_moved(node.remote.stamp.resource, node.remote.place.name):
            return False
        records.moved_before(self._journal, node.id)
        return True

    def _is_our_move_here(self, node: Node) -> bool:
        """Whether a local entry is where we put it because the server had it there, or was, and was moved on since."""
        if node.local is None or not was_moved(node, Tree.LOCAL):
            return False
        for side, state in ((Tree.LOCAL, node.local), (Tree.REMOTE, node.remote)):
            if state is not None and was_moved(node, side):
                moved = Moved(node.local.stamp.inode, state.place.name)
                if self._memory.has_moved(*moved):
                    records.moved_before(self._journal, node.id, side)
                    self._memory.end([moved])
                    return True
        return False

    def _is_sent_from_here(self, node: Node) -> bool:
        """Whether what the server alone has was sent from a local entry that has another name by now, or is deleted."""
        if node.remote is None or node.local is not None:
            return False
        if node.ancestor is not None and node.ancestor.remote == node.remote.stamp:
            return False  # agreed upon
        digest, marks = self._digest(node, Tree.REMOTE), (node.remote.place.name, node.remote.stamp.resource)
        for carried in () if digest is None else self._memory.of_content(digest, *marks):
            if carried.had is Tree.LOCAL and self._was_sent_to(carried, node.remote):
                return self._takes_back(carried, node)
        return False

    def _was_sent_to(self, carried: Carried, remote: RemoteState) -> bool:
        """Whether what was sent became this very entry: a new one is told by its name in its directory, or its path."""
        if carried.resource:
            return carried.resource == remote.stamp.resource
        if carried.name != remote.place.name:
            return False
        above = (*path_of(self._journal, Tree.REMOTE, remote.place.parent), carried.name)
        return carried.parent == records.directory_id(self._journal, remote.place) or carried.path == "/".join(above)

    def _takes_back(self, carried: Carried, node: Node) -> bool:
        """Give the server's entry the local one that was sent; if that is nowhere, it was deleted.

        Whoever has its inode and is known already may be it too, renamed and saved, or another that got the inode: in
        either case nothing is here under the name and with the content that were sent.
        """
        for local in self._journal.find_inode(carried.inode):
            if local.id in self._running:
                self.unclear.add(node.id)  # perhaps this is what it comes to
                return False
            is_here = local.local is not None and local.local.stamp.inode == carried.inode and local.kind is node.kind
            if is_here and local.remote is None and local.ancestor is None:
                records.pair(self._journal, local.id, node.id)
                records.brought_before(self._journal, local.id, Tree.REMOTE, carried)
                return True
        records.sent_and_gone(self._journal, node.id, carried.digest)
        return True

    def _is_fetched_from_there(self, node: Node) -> bool:
        """Whether what only the local disk has was put there for an entry that has another name by now, or is gone."""
        if node.local is None or node.remote is not None or node.ancestor is not None:
            return False
        for carried in self._memory.of_inode(node.local.stamp.inode):
            if carried.had is not Tree.REMOTE:
                continue
            there = self._journal.find_resource(carried.resource)
            if there is None and self._is_as_fetched(node, carried):
                records.fetched_and_gone(self._journal, node.id, carried)
                self._memory.end([carried])
                return True
            if there is None or there.local is not None or there.kind is not node.kind or there.id in self._running:
                continue
            if self._is_known(there):
                continue
            records.pair(self._journal, node.id, there.id)
            both = self._journal.node(node.id)
            side = next((side for side in SIDES if self._digest(both, side) == carried.digest), None)
            if side is not None:
                records.brought_before(self._journal, node.id, side, carried)
            return True  # else both were changed since, and the planner will say so
        return False

    def _is_as_fetched(self, node: Node, carried: Carried) -> bool:
        """Whether a local entry has been left alone since we put it there, by a journal that knows what was there.

        Who renamed it wants it; and who has lost the journal deletes nothing. Directories are all alike: a person's own
        of that name may have got the inode.
        """
        assert node.local is not None
        if self._journal.is_new or carried.name != node.local.place.name:
            return False
        if node.kind is not Kind.DIRECTORY:
            return self._digest(node, Tree.LOCAL) == carried.digest
        try:
            return self._folder.touched_ns(path_of(self._journal, Tree.LOCAL, node.id)) == carried.touched_ns
        except HeleniteError:
            return False  # it was removed a moment ago

    def _is_known(self, there: Node) -> bool:
        """Whether what the server has of a node that is not here was agreed upon, or sent from here since."""
        assert there.remote is not None
        if there.ancestor is not None and there.ancestor.remote == there.remote.stamp:
            return True
        return any(each.had is Tree.LOCAL for each in self._of_revision(there.remote))

    def _digest(self, node: Node, side: Tree) -> bytes | None:
        """Of what a side holds, if that can be known now; empty for a directory."""
        if node.kind is Kind.DIRECTORY:
            return b""
        if side is Tree.REMOTE:
            return None if node.remote is None else node.remote.digest
        assert node.local is not None
        try:
            path = path_of(self._journal, Tree.LOCAL, node.id)
            return node.local.digest or self._folder.digest(path, node.local.stamp)
        except HeleniteError:
            return None  # it was changed a moment ago: let the next look decide


def _proves(carried: Carried, node: Node, side: Tree) -> bool:
    """Whether what was carried had to do with this node, and this side of it surely has had it."""
    assert node.local is not None
    assert node.remote is not None
    is_in_place = carried.inode == node.local.stamp.inode
    if side is Tree.LOCAL and is_in_place:
        return True  # even what was only about to be put in place
    names = (node.local.place.name, node.remote.place.name)
    is_it = is_in_place or carried.name in names or carried.resource == node.remote.stamp.resource
    return carried.had is side and is_it
