"""Looks at the local folder and brings the journal's local tree up to date.

Used by `engine`, for the directories that watchers called dirty or for all. Who is who: a file that has the name of a
known file is that file, even if a program put another inode in its place (a safe save). What has a new name is a known
node moved if it has its inode and, so that a reused inode fools nobody, also its size and time (of a directory: a child
of its). Everything else is new. Only at the end of a look is anything gone, and only from directories that could be
read. One look is one transaction; memory grows with what is new or missing, not with the folder. One thread.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from helenite.core.errors import EntryNotFoundError, PermissionDeniedError, UnavailableError, WrongKindError
from helenite.core.paths import Path
from syncagent.journal import Journal
from syncagent.limbo import Limbo
from syncagent.model import ROOT_ID, Kind, LocalStamp, LocalState, Node, NodeId, Place, Tree, Trouble, path_of
from syncagent.names import NameRules, is_aside, is_conflict_copy
from syncagent.ports import Folder, Listing, Seen
from syncagent.selection import Selection


@dataclass(slots=True)
class LocalLook:
    """What a look found."""

    entry_count: int = 0
    gone: list[NodeId] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)


def scan(
    folder: Folder, journal: Journal, selection: Selection, rules: NameRules, dirty: Iterable[Path] | None = None
) -> LocalLook:
    """Look at some directories, or at everything. UnavailableError when the folder itself is not there."""
    with journal.transaction():
        look = _Look(folder, journal, selection, rules)
        look.everything = dirty is None
        for directory in [ROOT_ID] if dirty is None else _resolve(journal, dirty):
            look.at(directory)
        return look.finish()


def lasting_troubles(folder: Folder, known: Iterable[Trouble], dirty: Collection[Path]) -> list[Trouble]:
    """The troubles of earlier looks in directories that were not looked at again, if what they are about is there."""
    return [
        trouble
        for trouble in known
        if trouble.path not in dirty and trouble.path[:-1] not in dirty and _is_there(folder, trouble.path)
    ]


def _is_there(folder: Folder, path: Path) -> bool:
    try:
        return folder.see(path) is not None
    except UnavailableError:
        return True  # nobody may look


def _resolve(journal: Journal, paths: Iterable[Path]) -> list[NodeId]:
    """The known directories that hold what is called dirty; parents first."""
    found: dict[NodeId, int] = {}
    for path in paths:
        node, depth = ROOT_ID, 0
        for name in path:
            child = journal.child(Tree.LOCAL, node, name)
            if child is None or journal.node(child).kind is not Kind.DIRECTORY:
                break
            node, depth = child, depth + 1
        found[node] = depth
    return sorted(found, key=found.__getitem__)


class _Look:
    """One look: a walk over directories, with those whose entries are elsewhere in limbo."""

    def __init__(self, folder: Folder, journal: Journal, selection: Selection, rules: NameRules) -> None:
        self._folder = folder
        self._journal = journal
        self._selection = selection
        self._rules = rules
        self._limbo = Limbo(journal, Tree.LOCAL)
        self._visited: set[NodeId] = set()
        self._found = LocalLook()
        self._is_first = journal.is_empty  # then everything is new
        self.everything = False

    def finish(self) -> LocalLook:
        self._found.gone = self._limbo.finish()
        return self._found

    def at(self, node: NodeId) -> None:
        """Look at a directory, wherever this look has found it by now, and as far as needed at those inside it.

        If another one has its name by now, or none, what that holds says nothing of it: then look around it.
        """
        try:
            path = path_of(self._journal, Tree.LOCAL, node)
            while not self._is_itself(node, path):
                state = self._journal.node(node).local
                assert state is not None
                node, path = state.place.parent, path[:-1]
        except EntryNotFoundError:
            return  # it is being looked for
        stack = [(node, path)]
        while stack:
            directory, where = stack.pop()
            if directory not in self._visited:
                self._visited.add(directory)
                stack += self._list(directory, where)

    def _is_itself(self, node: NodeId, path: Path) -> bool:
        """Whether the directory of this path is the one that the journal has there."""
        if node == ROOT_ID:
            return True
        try:
            seen = self._folder.see(path)
        except UnavailableError:
            return True  # nobody may look, as the listing will say
        return seen is not None and _is_same(self._journal.node(node), seen)

    def _list(self, directory: NodeId, path: Path) -> list[tuple[NodeId, Path]]:
        """Compare one directory with the journal; the directories inside that have to be looked at too."""
        listing = self._read(directory, path)
        if listing is None:
            return []
        self._found.entry_count += len(listing.entries)
        known = self._known(directory)
        for name, reason in listing.unreadable.items():
            known.pop(self._normal(name), None)
            self._found.troubles.append(Trouble((*path, name), reason))
        arrived = []
        deeper: list[tuple[NodeId, Path]] = []
        for seen in self._included(listing.entries, path, known):
            node = known.get(self._normal(seen.name))
            if node is None or not _is_same(node, seen):
                arrived.append(seen)
                continue
            del known[self._normal(seen.name)]
            self._refresh(node, seen)
            if self.everything:
                deeper.append((node.id, (*path, seen.name)))
        for node in known.values():
            self._limbo.take(node)
        for seen in arrived:
            child = self._identify(Place(directory, self._normal(seen.name)), seen, path)
            deeper.append((child, (*path, seen.name)))
        return [(child, where) for child, where in deeper if self._journal.node(child).kind is Kind.DIRECTORY]

    def _included(self, entries: Sequence[Seen], path: Path, known: dict[str, Node]) -> Iterator[Seen]:
        """The entries that are synced; what is not any more is forgotten, and stays where it is."""
        for seen in entries:
            if self._selection.includes((*path, seen.name), is_directory=seen.kind is Kind.DIRECTORY):
                yield seen
            elif (node := known.pop(self._normal(seen.name), None)) is not None:
                self._journal.forget_tree(node.id)

    def _known(self, directory: NodeId) -> dict[str, Node]:
        """What the journal has in a directory, by name."""
        nodes = self._journal.children_nodes(Tree.LOCAL, directory)
        return {node.local.place.name: node for node in nodes if node.local is not None}

    def _read(self, directory: NodeId, path: Path) -> Listing | None:
        """A directory that went away is looked for; one that cannot be read stays as it was last seen."""
        try:
            return self._folder.list(path)
        except (EntryNotFoundError, WrongKindError, PermissionDeniedError) as error:
            if directory == ROOT_ID:
                raise
            node = self._journal.node(directory)
            if isinstance(error, PermissionDeniedError):
                self._found.troubles.append(Trouble(path, str(error)))
            elif node.local is not None:
                self._limbo.take(node)
            return None

    def _refresh(self, node: Node, seen: Seen) -> None:
        """A known node at its known place; its content is unknown if its stamp is another."""
        assert node.local is not None
        if node.local.stamp != seen.stamp:
            self._limbo.put(node, LocalState(node.local.place, node.kind, seen.stamp))
        self._limbo.claimed.add(node.id)

    def _identify(self, place: Place, seen: Seen, parent: Path) -> NodeId:
        """Who a new name belongs to: a node that was moved, one that is back, or a new one."""
        if self._is_first:
            node_id = self._journal.new_id()
            self._limbo.claim(node_id, LocalState(place, seen.kind, seen.stamp))
            return node_id
        moved = self._find_moved(seen, parent)
        if moved is not None:
            node, stamp = moved
            state = LocalState(place, seen.kind, seen.stamp)
            if node.local is not None and stamp == seen.stamp:
                state = LocalState(place, seen.kind, seen.stamp, node.local.digest)
            self._limbo.claim(node.id, state)
            return node.id
        back = self._journal.find_missing(Tree.LOCAL, place, seen.kind)
        known = back.id if back is not None and back.id not in self._limbo.claimed else None
        node_id = self._journal.new_id() if known is None else known
        self._limbo.claim(node_id, LocalState(place, seen.kind, seen.stamp))
        return node_id

    def _find_moved(self, seen: Seen, parent: Path) -> tuple[Node, LocalStamp] | None:
        candidates = {node.id: node for node in self._journal.find_inode(seen.stamp.inode)}
        in_limbo = self._limbo.find(seen.stamp.inode)
        if in_limbo is not None and isinstance(in_limbo[1], LocalState):
            candidates[in_limbo[0]] = Node(in_limbo[0], local=in_limbo[1])
        for node in candidates.values():
            known_name, stamp = _last_seen(node)
            if node.id in self._limbo.claimed or node.kind is not seen.kind:
                continue
            if is_conflict_copy(seen.name) and known_name != seen.name:
                continue  # the agent itself made this copy; the node is the one that kept the name
            path = (*parent, seen.name)
            if self._is_evident(node, stamp, seen, path) and not self._is_still_there(node, seen, path):
                return node, stamp
        return None

    def _is_evident(self, node: Node, stamp: LocalStamp, seen: Seen, path: Path) -> bool:
        """Whether the same inode is the same thing, and not one that the file system has given out again."""
        if seen.kind is not Kind.DIRECTORY:
            return stamp.same_content_as(seen.stamp)
        if is_aside(seen.name):
            return True
        children = {
            child.local.stamp.inode for child in self._journal.children_nodes(Tree.LOCAL, node.id) if child.local
        }
        try:
            return not children or any(entry.stamp.inode in children for entry in self._folder.list(path).entries)
        except (EntryNotFoundError, PermissionDeniedError, WrongKindError):
            return False

    def _is_still_there(self, node: Node, seen: Seen, path: Path) -> bool:
        """Whether the old place holds the node even now: a second hard link here, or a safe save there."""
        old = self._old_path(node)
        if old is None:
            return False
        there = self._folder.see(old)
        if there is None or there.kind is not seen.kind:
            return False
        if seen.kind is Kind.DIRECTORY or there.stamp.inode == seen.stamp.inode:
            same_name = old[:-1] == path[:-1] and self._rules.key(old[-1]) == self._rules.key(path[-1])
            return there.stamp.inode == seen.stamp.inode and not same_name  # `foo` answers where it is `Foo` now
        return True

    def _old_path(self, node: Node) -> Path | None:
        """Where the node was, if the directories above are still known."""
        if node.local is None:
            return None
        parent = node.local.place.parent
        try:
            return (*path_of(self._journal, Tree.LOCAL, parent), node.local.place.name)
        except EntryNotFoundError:
            return None

    def _normal(self, name: str) -> str:
        """One spelling for names of which the disk takes two for one."""
        return unicodedata.normalize("NFC", name) if self._rules.ignores_normalization else name


def _is_same(node: Node, seen: Seen) -> bool:
    """Whether an entry is the node of that name: a file always, a directory only with its inode."""
    assert node.local is not None
    if node.kind is not seen.kind:
        return False
    return seen.kind is not Kind.DIRECTORY or node.local.stamp == seen.stamp


def _last_seen(node: Node) -> tuple[str, LocalStamp]:
    """Name and stamp of a node when it was last on the local disk."""
    if node.local is not None:
        return node.local.place.name, node.local.stamp
    assert node.ancestor is not None
    return node.ancestor.place.name, node.ancestor.local
