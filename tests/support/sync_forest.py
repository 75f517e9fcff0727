"""Three trees in memory whose steps always succeed: what the tests of the planner plan on.

`Forest.apply` does what `executor` does, on values, and refuses what no file system or server would do or what would
lose content, so that a plan that is wrong fails at the step that is wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from syncagent.model import (
    ROOT_ID,
    SIDES,
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
from syncagent.names import NameRules
from syncagent.plan import (
    Adopt,
    Delete,
    Download,
    Forget,
    Inspect,
    MakeDirectory,
    Move,
    Pair,
    Rescue,
    SetAside,
    SetAttributes,
    Step,
    Upload,
)

Listing = dict[tuple[str, ...], tuple[Kind, bytes | None]]


def digest_of(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


class Forest:
    """A View that can change."""

    def __init__(self) -> None:
        self.nodes: dict[NodeId, Node] = {}
        self.places: dict[Tree, dict[Place, NodeId]] = {side: {} for side in SIDES}
        self.below: dict[Tree, dict[NodeId, set[NodeId]]] = {side: {} for side in SIDES}
        self.rules = NameRules()
        self.writes = 0
        self._last = 0

    # View

    def node(self, node: NodeId) -> Node:
        return self.nodes[node]

    def child(self, tree: Tree, parent: NodeId, name: str) -> NodeId | None:
        return self.places[tree].get(Place(parent, name))

    def children(self, tree: Tree, parent: NodeId) -> Iterable[NodeId]:
        return sorted(self.below[tree].get(parent, ()))

    # Changing

    def next_number(self) -> int:
        self._last += 1
        return self._last

    def skip_numbers(self, count: int) -> None:
        self._last += count

    def put(self, node: Node) -> None:
        """Enter a node or its new states; one without states is forgotten."""
        old = self.nodes.pop(node.id, Node(node.id))
        for tree in SIDES:
            before, after = old.state(tree), node.state(tree)
            if before is not None and (after is None or after.place != before.place):
                del self.places[tree][before.place]
                self.below[tree][before.place.parent].discard(node.id)
            if after is not None and (before is None or after.place != before.place):
                assert after.place not in self.places[tree], f"{after.place} is taken in the {tree} tree"
                self.places[tree][after.place] = node.id
                self.below[tree].setdefault(after.place.parent, set()).add(node.id)
        if node.ancestor or node.local or node.remote:
            self.nodes[node.id] = node

    def new_id(self) -> NodeId:
        return NodeId(self.next_number())

    def local_stamp(self, inode: int, content: str = "") -> LocalStamp:
        return LocalStamp(inode, len(content), 1000 * self.next_number(), self.next_number())

    def remote_stamp(self, resource: str, content: str = "") -> RemoteStamp:
        return RemoteStamp(resource, f"e{self.next_number()}", len(content))

    def new_local(self, place: Place, kind: Kind, content: str = "", node: NodeId | None = None) -> NodeId:
        """What the scan enters for a new file or directory."""
        node = node or self.new_id()
        if kind is Kind.DIRECTORY:
            state = LocalState(place, kind, LocalStamp(self.next_number()))
        else:
            state = LocalState(place, kind, self.local_stamp(self.next_number(), content), digest_of(content))
        self.put(replace(self.nodes.get(node, Node(node)), local=state))
        return node

    def new_remote(self, place: Place, kind: Kind, content: str = "", node: NodeId | None = None) -> NodeId:
        """What a listing enters for a new file or directory."""
        node = node or self.new_id()
        resource = f"r{self.next_number()}"
        if kind is Kind.DIRECTORY:
            state = RemoteState(place, kind, RemoteStamp(resource))
        else:
            state = RemoteState(place, kind, self.remote_stamp(resource, content), digest_of(content))
        self.put(replace(self.nodes.get(node, Node(node)), remote=state))
        return node

    def new_agreed(self, place: Place, kind: Kind, content: str = "") -> NodeId:
        node = self.new_local(place, kind, content)
        self.new_remote(place, kind, content, node)
        self._agree(node)
        return node

    def edit(self, side: Tree, node_id: NodeId, content: str) -> None:
        node = self.nodes[node_id]
        if side is Tree.LOCAL:
            assert node.local is not None
            stamp = self.local_stamp(node.local.stamp.inode, content)
            self.put(replace(node, local=node.local._replace(stamp=stamp, digest=digest_of(content))))
        else:
            assert node.remote is not None
            stamp_ = self.remote_stamp(node.remote.stamp.resource, content)
            self.put(replace(node, remote=node.remote._replace(stamp=stamp_, digest=digest_of(content))))

    def move(self, side: Tree, node_id: NodeId, place: Place) -> None:
        assert not self.is_inside(side, place.parent, node_id), "a directory cannot move into itself"
        assert self.is_directory(side, place.parent), "the new parent is missing"
        node = self.nodes[node_id]
        if side is Tree.LOCAL:
            assert node.local is not None
            self.put(replace(node, local=node.local._replace(place=place)))
        else:
            assert node.remote is not None
            self.put(replace(node, remote=node.remote._replace(place=place)))

    def remove(self, side: Tree, node_id: NodeId) -> list[Node]:
        """Take a node and everything beneath from one side; what it was before."""
        gone = []
        for current in reversed(list(self.subtree(side, node_id))):
            node = self.nodes[current]
            gone.append(node)
            self.put(replace(node, local=None) if side is Tree.LOCAL else replace(node, remote=None))
        return gone

    # Looking

    def is_free(self, side: Tree, place: Place, besides: NodeId | None = None) -> bool:
        """Whether an entry can be put there on this side."""
        if self.rules.exact or side is Tree.REMOTE:
            return self.child(side, *place) in {None, besides}
        names = [
            state.place.name
            for node in self.children(side, place.parent)
            if node != besides and (state := self.nodes[node].local)
        ]
        clash = any(self.rules.key(name) == self.rules.key(place.name) for name in names)
        return not clash and self.rules.refusal(place.name) is None

    def is_directory(self, side: Tree, node: NodeId) -> bool:
        if node == ROOT_ID:
            return True
        state = self.nodes[node].state(side) if node in self.nodes else None
        return state is not None and state.kind is Kind.DIRECTORY

    def is_inside(self, side: Tree, node: NodeId, around: NodeId) -> bool:
        while node != ROOT_ID:
            if node == around:
                return True
            state = self.nodes[node].state(side)
            assert state is not None
            node = state.place.parent
        return False

    def subtree(self, side: Tree, node: NodeId) -> Iterable[NodeId]:
        yield node
        for child in self.children(side, node):
            yield from self.subtree(side, child)

    def unsettled(self) -> list[NodeId]:
        return [node.id for node in self.nodes.values() if not node.is_settled]

    def listing(self, side: Tree) -> Listing:
        """Paths with kinds and contents."""
        found: Listing = {}

        def walk(parent: NodeId, path: tuple[str, ...]) -> None:
            for child in self.below[side].get(parent, ()):
                state = self.nodes[child].state(side)
                assert state is not None
                below = (*path, state.place.name)
                found[below] = (state.kind, state.digest)
                walk(child, below)

        walk(ROOT_ID, ())
        return found

    # Steps

    def apply(self, step: Step) -> None:
        match step:
            case Pair(local, remote):
                self._pair(local, remote)
            case Rescue(node_id):
                side = self.nodes[node_id].only_side
                assert side is not None
                for current in list(self.subtree(side, node_id)):
                    if self.nodes[current].only_side is side:
                        self.put(replace(self.nodes[current], ancestor=None))
            case Inspect(node_id, side):
                self._inspect(node_id, side)
            case Adopt(node_id):
                self._agree(node_id)
            case Forget(node_id):
                node = self.nodes[node_id]
                assert node.local is None
                assert node.remote is None
                self.put(Node(node_id))
            case _:
                self.writes += 1
                self._write(step)

    def _write(self, step: Step) -> None:
        match step:
            case MakeDirectory(side, node_id, place):
                assert self.is_free(side, place)
                assert self.is_directory(side, place.parent), "the parent is missing"
                assert self.nodes[node_id].state(side) is None
                make = self.new_local if side is Tree.LOCAL else self.new_remote
                make(place, Kind.DIRECTORY, node=node_id)
                self._agree(node_id)
            case Move(side, node_id, place):
                assert self.is_free(side, place, node_id)
                self.move(side, node_id, place)
                self._agree_on_place(node_id)
            case SetAside(node_id, name):
                node = self.nodes[node_id]
                assert node.local is not None
                copy = Node(self.new_id(), local=node.local._replace(place=Place(node.local.place.parent, name)))
                self.put(replace(node, local=None))
                self.put(copy)
            case Upload() | Download():
                self._transfer(step)
            case SetAttributes(_, node_id):
                self._agree(node_id)
            case Delete(side, node_id):
                for gone in self.remove(side, node_id):
                    assert gone.state(side.other_side) is None, "the other side still has it"
                    assert gone.ancestor is not None, "the other side never had it"
                    state = gone.state(side)
                    assert state is not None
                    assert state.digest == gone.ancestor.digest, "a change would be deleted"
                    self.put(Node(gone.id))

    def _transfer(self, step: Upload | Download) -> None:
        node = self.nodes[step.node]
        side = Tree.REMOTE if isinstance(step, Upload) else Tree.LOCAL
        source, target = node.state(side.other_side), node.state(side)
        assert source is not None
        assert source.kind is not Kind.DIRECTORY
        if step.place is None:
            assert target is not None
            assert node.ancestor is not None
            assert target.digest == node.ancestor.digest, "a change would be overwritten"
        else:
            assert target is None, "a new file was to be made"
            assert self.is_free(side, step.place)
            assert self.is_directory(side, step.place.parent), "the parent is missing"
        place = step.place or (target.place if target else None)
        assert place is not None
        size = source.stamp.size
        number = self.next_number()
        if side is Tree.LOCAL:
            state = LocalState(place, source.kind, LocalStamp(number, size, number, number), source.digest)
            self.put(replace(node, local=state))
        else:
            resource = node.remote.stamp.resource if node.remote else f"r{number}"
            stamp = RemoteStamp(resource, f"e{number}", size)
            self.put(replace(node, remote=RemoteState(place, source.kind, stamp, source.digest)))
        self._agree(step.node)

    def _pair(self, local_id: NodeId, remote_id: NodeId) -> None:
        local, remote = self.nodes[local_id], self.nodes[remote_id]
        assert local.ancestor is None
        assert remote.ancestor is None
        assert local.kind is remote.kind
        children = list(self.children(Tree.REMOTE, remote_id))
        assert remote.remote is not None
        self.put(Node(remote_id))
        self.put(replace(local, remote=remote.remote))
        for child in children:
            node = self.nodes[child]
            assert node.remote is not None
            self.put(replace(node, remote=node.remote._replace(place=Place(local_id, node.remote.place.name))))

    def _inspect(self, node_id: NodeId, side: Tree) -> None:
        raise AssertionError("all digests are known here")

    def _agree(self, node_id: NodeId) -> None:
        """Note as agreed what both sides hold, as `executor` does."""
        node = self.nodes[node_id]
        local, remote = node.local, node.remote
        assert local is not None
        assert remote is not None
        assert local.digest == remote.digest
        place = remote.place if local.place == remote.place or node.ancestor is None else node.ancestor.place
        self.put(replace(node, ancestor=AgreedState(place, local.kind, local.digest, local.stamp, remote.stamp)))

    def _agree_on_place(self, node_id: NodeId) -> None:
        node = self.nodes[node_id]
        if node.ancestor is None or node.local is None or node.remote is None or node.local.place != node.remote.place:
            return
        self.put(replace(node, ancestor=node.ancestor._replace(place=node.local.place)))
