"""The values of a sync: nodes, and what each of the three trees says about them.

A *node* is one file, directory or link that the agent follows, whatever its name; `Node` puts side by side what was
last agreed (the ancestor), what a scan saw in the local folder, and what the server listed. A tree is the set of nodes
that have a state in it, linked by their places. Used by every module of the agent. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, NewType, Protocol

from helenite.core.errors import EntryNotFoundError
from helenite.core.paths import Path

NodeId = NewType("NodeId", int)
ROOT_ID = NodeId(0)
"""The synced folder itself, in all three trees."""


class Kind(StrEnum):
    """What a node is; it never changes: another kind under the same name is another node."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"


class Tree(StrEnum):
    """One of the three trees."""

    ANCESTOR = "ancestor"
    LOCAL = "local"
    REMOTE = "remote"

    @property
    def other_side(self) -> Tree:
        """The side that a change on this one is carried to."""
        return Tree.REMOTE if self is Tree.LOCAL else Tree.LOCAL


SIDES = (Tree.LOCAL, Tree.REMOTE)


class Place(NamedTuple):
    """Where a node is: a name in a directory. Directories are meant by id, so moving one moves nothing else."""

    parent: NodeId
    name: str


class LocalStamp(NamedTuple):
    """What the file system says of an entry; while it is equal, the content is taken to be equal.

    The time of the last change of the inode is part of it: an edit that keeps size and mtime does not keep that.
    Of a directory only the inode counts.
    """

    inode: int
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    executable: bool = False

    def same_content_as(self, other: LocalStamp) -> bool:
        """Whether this is surely the other file moved: same inode, and neither size nor time of change differ."""
        return (self.inode, self.size, self.mtime_ns) == (other.inode, other.size, other.mtime_ns)


class RemoteStamp(NamedTuple):
    """What the server says of an entry. The resource is its id for ever (RFC 5842); the ETag changes with content.

    A directory has no ETag here: it would change with everything beneath. None: the server keeps no such attribute.
    """

    resource: str
    etag: str = ""
    size: int = 0
    mtime_ms: int | None = None
    executable: bool | None = None


class LocalState(NamedTuple):
    """A node as the last scan saw it; `digest` is None until somebody had a reason to read the content."""

    place: Place
    kind: Kind
    stamp: LocalStamp
    digest: bytes | None = None


class RemoteState(NamedTuple):
    """A node as the server last listed it; `digest` is None when the server did not say.

    `walked` is for directories: the ETag under which everything beneath was last listed, empty when unknown. One that
    this device has brought to its place since the last look has another mark there (`doings`).
    """

    place: Place
    kind: Kind
    stamp: RemoteStamp
    digest: bytes | None = None
    walked: str = ""


class AgreedState(NamedTuple):
    """The last moment at which both sides were known to hold the same: where, what, and how each side looked then."""

    place: Place
    kind: Kind
    digest: bytes | None
    local: LocalStamp
    remote: RemoteStamp


State = AgreedState | LocalState | RemoteState


@dataclass(frozen=True, slots=True)
class Node:
    """One node in the three trees; None where it is absent."""

    id: NodeId
    ancestor: AgreedState | None = None
    local: LocalState | None = None
    remote: RemoteState | None = None

    def state(self, tree: Tree) -> State | None:
        if tree is Tree.LOCAL:
            return self.local
        return self.remote if tree is Tree.REMOTE else self.ancestor

    @property
    def kind(self) -> Kind:
        state = self.remote or self.local or self.ancestor
        assert state is not None, f"node {self.id} is in no tree"
        return state.kind

    @property
    def only_side(self) -> Tree | None:
        """The side that alone has the node; None when both or neither have it."""
        if (self.local is None) is (self.remote is None):
            return None
        return Tree.REMOTE if self.local is None else Tree.LOCAL

    @property
    def is_settled(self) -> bool:
        """Whether both sides look as they did when they last agreed: nothing to do."""
        agreed, local, remote = self.ancestor, self.local, self.remote
        if agreed is None or local is None or remote is None:
            return False
        same_places = agreed.place == local.place == remote.place
        return same_places and local.stamp == agreed.local and remote.stamp == agreed.remote


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why something at a path could not be looked at or brought over this time; a value, because the rest goes on."""

    path: Path
    reason: str


class View(Protocol):
    """The three trees, to be looked at. While a plan is made they do not change.

    The local and the remote one are trees: the parent of a node that is there is there, and names are unique. The
    ancestor is a record of each node by itself, and nobody looks for children in it.
    """

    def node(self, node: NodeId) -> Node:
        """The node; KeyError when there is none."""
        ...

    def child(self, side: Tree, parent: NodeId, name: str) -> NodeId | None:
        """Who has exactly this name in this directory of this side."""
        ...

    def children(self, side: Tree, parent: NodeId) -> Iterable[NodeId]:
        """Everything directly in this directory of this side."""
        ...


def path_of(view: View, side: Tree, node: NodeId) -> Path:
    """The path of a node on one side; EntryNotFoundError when it, or a directory above, is not there."""
    names: list[str] = []
    while node != ROOT_ID:
        try:
            state = view.node(node).state(side)
        except KeyError:
            state = None
        if state is None:
            raise EntryNotFoundError(f"node {node} is not on the {side} side")
        names.append(state.place.name)
        node = state.place.parent
    return tuple(reversed(names))
