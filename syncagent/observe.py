"""Looks at the server and brings the journal's remote tree up to date.

Used by `engine`: with the changes since a token where the server tells them, else by a walk that leaves out what has
the same tag as at the last walk. Who is who is the server's resource id; a file that a program deleted and made again
under its name (as rclone does) is still that file. One look is one transaction; a listing that fails leaves its part as
it was, and nothing is gone but from directories that were listed completely. One thread.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field, replace

from helenite.core.errors import HeleniteError, ProtocolError, SequenceExpiredError, UnavailableError
from helenite.core.paths import ROOT, Path
from syncagent import doings
from syncagent.journal import Journal
from syncagent.limbo import Limbo
from syncagent.model import ROOT_ID, Kind, NodeId, Place, RemoteState, Tree, Trouble
from syncagent.ports import Remote, RemoteEntry
from syncagent.selection import Selection

ROUNDS_MAX = 10_000
"""Truncated answers in a row, each with a new token: a server that goes on like that is broken."""
CHANGES_MAX = 100_000
"""Changes in memory before they are applied: about 50 MB."""
TROUBLES_MAX = 5
"""So many directories may fail in one look; more say that the server is not well, and nothing is taken from it."""
TOKEN = "token"
ROOT_TAG = "root tag"


@dataclass(slots=True)
class RemoteLook:
    """What a look found."""

    gone: list[NodeId] = field(default_factory=list)
    removed: list[Path] | None = None
    """What the server says is removed, known or not; None: a walk tells no such thing."""
    troubles: list[Trouble] = field(default_factory=list)


def observe_changes(remote: Remote, journal: Journal, selection: Selection) -> RemoteLook | None:
    """Learn what has changed on the server since the last look; None when only a walk can tell.

    Raises:
        SequenceExpiredError: the server no longer knows; walk everything.
        UnavailableError, ProtocolError: the server cannot be reached or makes no sense; the journal is as before.
    """
    token = journal.fact(TOKEN)
    if not token:
        return None
    with journal.transaction():
        return _Look(remote, journal, selection).changes(token)


def observe_tree(remote: Remote, journal: Journal, selection: Selection, *, everything: bool) -> RemoteLook:
    """Walk over the server's tree; `everything`: also where the tags say that nothing has changed.

    Raises:
        UnavailableError, ProtocolError: the server cannot be reached or makes no sense; the journal is as before.
    """
    with journal.transaction():
        return _Look(remote, journal, selection).walk(everything=everything)


def ask_again(journal: Journal, directory: NodeId, token: str) -> None:
    """Have the next look tell once more what became of a directory's entries since this token."""
    journal.note(TOKEN, token)
    journal.note(ROOT_TAG, "")
    while directory != ROOT_ID:  # a walk leaves out nothing on the way there
        try:
            node = journal.node(directory)
        except KeyError:
            return  # it is gone
        if node.remote is None:
            return
        journal.put(replace(node, remote=node.remote._replace(walked="")))
        directory = node.remote.place.parent


class _Look:
    """One look."""

    def __init__(self, remote: Remote, journal: Journal, selection: Selection) -> None:
        self._remote = remote
        self._journal = journal
        self._selection = selection
        self._limbo = Limbo(journal, Tree.REMOTE)
        self._found = RemoteLook()
        self._fresh: dict[Place, NodeId] = {}  # nodes that this look has added
        self._walked: list[tuple[NodeId, str]] = []
        self._names_all = False
        self._doing = ""  # what marks directories as ours (`doings`); a walk has seen what is in them
        self._unites = False  # a first sync: what has one name on both sides is one

    def walk(self, *, everything: bool) -> RemoteLook:
        """List the folder and what is in it, but for directories with the tag of the last walk."""
        token, tag, known = self._remote.token(), self._remote.walk_tag(ROOT), self._journal.fact(ROOT_TAG)
        pages = self._remote.walk() if token and (everything or not known) else None
        if pages is not None:
            self._take_all(pages)
            try:
                token = self._take_changes(token)
            except SequenceExpiredError as error:
                raise UnavailableError(f"too much has changed while the tree was walked over: {error}") from error
        elif everything or not tag or tag != known:
            self._list([(ROOT_ID, ROOT)], everything=everything)
        self._finish()
        doings.end_look(self._journal)
        complete = not self._found.troubles
        self._journal.note(ROOT_TAG, tag if complete else "")
        self._journal.note(TOKEN, token if complete else "")
        for node_id, walk_tag in self._walked if complete else ():
            node = self._journal.node(node_id)
            if node.remote is not None and node.remote.walked != walk_tag:
                self._journal.put(replace(node, remote=node.remote._replace(walked=walk_tag)))
        return self._found

    def changes(self, token: str) -> RemoteLook:
        """Take over what the server says has changed."""
        self._found.removed = []
        self._doing = doings.mark(self._journal)
        token = self._take_changes(token)
        self._finish()
        doings.end_look(self._journal)
        self._journal.note(TOKEN, "" if self._found.troubles else token)
        return self._found

    def _take_all(self, pages: Iterator[Sequence[RemoteEntry]]) -> None:
        """Enter everything there is; who is not among it is looked for."""
        self._unites = not self._journal.has_agreements
        directories: dict[Path, NodeId] = {ROOT: ROOT_ID}
        twins_read: set[NodeId] = set()
        for page in pages:
            self._journal.look_for(entry.stamp.resource for entry in page)
            for entry in page:
                parent = directories.get(entry.path[:-1])
                if parent is None or not self._is_included(entry):
                    continue  # its directory is left out, or was made meanwhile: the changes tell
                if self._unites and parent not in twins_read:
                    self._journal.read_ahead(Tree.LOCAL, parent)  # the twins of what is in it
                    twins_read.add(parent)
                node, _ = self._enter(Place(parent, entry.path[-1]), entry)
                if entry.kind is Kind.DIRECTORY:
                    directories[entry.path] = node
                    self._walked.append((node, entry.walk_tag))
        for missing in self._journal.side_ids(Tree.REMOTE):
            if missing not in self._limbo.claimed:
                self._limbo.take(self._journal.node(missing))

    def _take_changes(self, token: str) -> str:
        """Enter what has changed since a token; the new one."""
        token, entries, removed, answer_count = self._gather(token)
        arrived = [entry for entry in entries if self._moves_directory(entry)]
        # Each answer names paths as they were at its moment. Across several, a directory that was moved in between
        # makes them ambiguous; only a walk tells then.
        if answer_count > 1 and arrived:
            raise SequenceExpiredError("a directory was moved among changes that fill several answers")
        ours = [entry for entry in entries if self._names_all and self._is_ours(entry)]
        for entry in sorted(entries, key=lambda entry: (len(entry.path), entry.path)):
            self._change(entry)
        for path in removed:
            self._remove(path)
        named = {entry.stamp.resource for entry in entries}
        for entry in [*arrived, *ours]:
            self._clear_out(entry, named)
        if self._found.removed is not None:
            self._found.removed += removed
        return token

    def _gather(self, token: str) -> tuple[str, list[RemoteEntry], list[Path], int]:
        """All changes since a token: the new token, the last word on each entry, what is removed, how many answers."""
        entries: dict[str, RemoteEntry] = {}
        removed: dict[Path, None] = {}
        for answer_count in range(1, ROUNDS_MAX + 1):
            answer = self._remote.changes(token)
            self._names_all = answer.names_all
            removed.update(dict.fromkeys(answer.removed))
            for entry in answer.changed:
                if entry.path in removed and entry.kind is Kind.DIRECTORY:
                    raise SequenceExpiredError(
                        f"{entry.path} went away and came back: what is in it now is not certain"
                    )
                entries[entry.stamp.resource] = entry
                removed.pop(entry.path, None)
            token = answer.token
            if answer.is_complete:
                return token, list(entries.values()), list(removed), answer_count
            if len(entries) + len(removed) > CHANGES_MAX:
                raise SequenceExpiredError(f"more than {CHANGES_MAX} changes: a walk costs less memory")
        raise ProtocolError(f"the server's list of changes has no end after {ROUNDS_MAX} answers")

    def _moves_directory(self, entry: RemoteEntry) -> bool:
        if entry.kind is not Kind.DIRECTORY or not entry.path:
            return False
        node = self._journal.find_resource(entry.stamp.resource)
        return node is not None and self._resolve(entry.path) != node.id

    def _is_ours(self, entry: RemoteEntry) -> bool:
        node = self._journal.find_resource(entry.stamp.resource) if entry.kind is Kind.DIRECTORY else None
        return node is not None and doings.is_ours(node, self._doing)

    def _clear_out(self, directory: RemoteEntry, named: Container[str]) -> None:
        """What was in a directory that was moved, or that we have made or moved, and is not in it now.

        A server need not name what was removed there: to one who knows entries by their paths, all that was beneath the
        old path is gone, and what is beneath the new one is named, or to be listed.
        """
        node = self._journal.find_resource(directory.stamp.resource)
        if node is None:
            return  # left out
        if not self._names_all:
            self._list([(node.id, directory.path)], everything=True)
            return
        stack = self._journal.children_nodes(Tree.REMOTE, node.id)
        while stack:
            inside = stack.pop()
            if inside.kind is Kind.DIRECTORY and not doings.is_ours(inside, self._doing):  # else it has its own turn
                stack += self._journal.children_nodes(Tree.REMOTE, inside.id)
            if inside.remote is not None and inside.remote.stamp.resource not in named:
                self._limbo.take(inside)

    def _change(self, entry: RemoteEntry) -> None:
        if not entry.path or not self._is_included(entry):
            return
        parent = self._resolve(entry.path[:-1])
        if parent is None or (parent != ROOT_ID and self._journal.node(parent).kind is not Kind.DIRECTORY):
            # Its directory is left out, or the server does not name it though it should.
            if all(self._selection.includes(entry.path[:end], is_directory=True) for end in range(1, len(entry.path))):
                raise SequenceExpiredError(f"the changes do not name the directory of {entry.path}")
            return
        node, is_new = self._enter(Place(parent, entry.path[-1]), entry)
        if is_new and entry.kind is Kind.DIRECTORY and not self._names_all:
            self._list([(node, entry.path)], everything=True)

    def _remove(self, path: Path) -> None:
        node_id = self._resolve(path)
        if node_id is not None and node_id != ROOT_ID:  # else it was moved, or went with its directory
            self._limbo.take(self._journal.node(node_id))

    def _list(self, stack: list[tuple[NodeId, Path]], *, everything: bool) -> None:
        """List directories and those inside them."""
        while stack:
            directory, path = stack.pop()
            try:
                entries = self._remote.list(path)
            except HeleniteError as error:
                if directory == ROOT_ID or len(self._found.troubles) >= TROUBLES_MAX:
                    raise
                self._found.troubles.append(Trouble(path, str(error)))
                continue
            for entry in entries:
                if self._is_included(entry):
                    stack += self._list_entry(directory, entry, everything=everything)
            names = {entry.path[-1] for entry in entries}
            for node in self._journal.children_nodes(Tree.REMOTE, directory):
                if node.remote is not None and node.remote.place.name not in names:
                    self._limbo.take(node)

    def _list_entry(self, directory: NodeId, entry: RemoteEntry, *, everything: bool) -> list[tuple[NodeId, Path]]:
        """Enter one entry of a listing; if it is a directory with news beneath, it is to be listed too."""
        node, is_new = self._enter(Place(directory, entry.path[-1]), entry)
        if entry.kind is not Kind.DIRECTORY:
            return []
        state = self._journal.node(node).remote
        is_known = not is_new and state is not None and entry.walk_tag != "" and state.walked == entry.walk_tag
        if is_known and not everything:
            return []
        self._walked.append((node, entry.walk_tag))
        return [(node, entry.path)]

    def _enter(self, place: Place, entry: RemoteEntry) -> tuple[NodeId, bool]:
        """Bring one entry into the tree; its node, and whether what is beneath it is unknown."""
        resource = entry.stamp.resource
        known = self._journal.find_resource(resource)
        waiting = self._limbo.find(resource)
        walked = ""
        if known is not None and known.kind is entry.kind:
            node_id, is_new = known.id, False
            walked = known.remote.walked if known.remote else ""
        elif waiting is not None and waiting[1].kind is entry.kind:
            node_id, is_new = waiting[0], False
        else:
            if known is not None:  # it has become another kind of thing (a link begins as a file): no longer that node
                self._limbo.take(known)
            node_id, is_new = self._find_known(place, entry.kind) or self._journal.new_id(), True
            self._fresh[place] = node_id
        self._limbo.claim(node_id, RemoteState(place, entry.kind, entry.stamp, entry.digest, walked))
        return node_id, is_new

    def _find_known(self, place: Place, kind: Kind) -> NodeId | None:
        """Who is back where it was agreed to be; on a first sync, who has the name on the other side."""
        if self._unites:
            return self._twin(place, kind)
        back = self._journal.find_missing(Tree.REMOTE, place, kind)
        return None if back is None or back.id in self._limbo.claimed else back.id

    def _twin(self, place: Place, kind: Kind) -> NodeId | None:
        """The new local node of this name: `pairs` would find the two to be one, some steps later."""
        twin = self._journal.child(Tree.LOCAL, *place)
        if twin is None:
            return None
        node = self._journal.node(twin)
        return twin if node.kind is kind and node.remote is None and node.ancestor is None else None

    def _finish(self) -> None:
        """Who is still looked for is gone, but for files that were made again under their names."""
        for place, fresh_id in () if self._limbo.is_empty else self._fresh.items():
            fresh = self._journal.node(fresh_id)
            if fresh.remote is None or fresh.remote.place != place or fresh.kind is Kind.DIRECTORY:
                continue
            old = self._limbo.replaced_at(place, fresh.kind)
            if old is not None and fresh.ancestor is None and fresh.local is None:
                self._limbo.put(fresh, None)
                self._limbo.claim(old, fresh.remote)
        self._found.gone = self._limbo.finish()

    def _is_included(self, entry: RemoteEntry) -> bool:
        included = self._selection.includes(entry.path, is_directory=entry.kind is Kind.DIRECTORY)
        if not included:
            node = self._journal.find_resource(entry.stamp.resource)
            if node is not None:
                self._journal.forget_tree(node.id)
        return included

    def _resolve(self, path: Path) -> NodeId | None:
        node: NodeId | None = ROOT_ID
        for name in path:
            node = None if node is None else self._journal.child(Tree.REMOTE, node, name)
        return node
