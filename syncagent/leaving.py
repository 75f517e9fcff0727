"""Takes folders that a person left out off this device: their local copies go to the local trash, the server keeps all.

Used by `engine`. A folder that is synced already goes on being synced until everything in it is on the server; then the
journal forgets it, and only then, so that a crash in between can look like no deletion, it is moved to the trash. What
was never synced (it was left out from the beginning) stays where it is, on both sides. One thread.
"""

from __future__ import annotations

from helenite.core.errors import HeleniteError
from helenite.core.paths import Path, format_path, parse_path
from syncagent.journal import Journal
from syncagent.model import ROOT_ID, Kind, LocalStamp, NodeId, Tree, Trouble, path_of
from syncagent.ports import Folder
from syncagent.selection import Selection

LEFT = "left out"
"""The fact in the journal: the folders that are left out and not to be synced any more."""
SELECTION = "selection"
"""The fact in the journal: by which rules both sides were last looked at."""


class Leaving:
    """The folders of one pair that are, or are to be, left out."""

    def __init__(self, folder: Folder, journal: Journal) -> None:
        self._folder = folder
        self._journal = journal

    def selection(self, wanted: Selection) -> Selection:
        """What to sync now: with the folders that are still to be brought to the server before they may go."""
        known = self._left()
        left = {path for path in wanted.excluded if path in known or self._find(path) is None}
        if left != known:
            self._note(left)
        return wanted.excluding(left)

    def clear(self, wanted: Selection) -> list[Trouble]:
        """Trash what is left out and has come to rest; why something could not go yet."""
        troubles = []
        for path in wanted.excluded:
            node = None if path in self._left() else self._find(path)
            reason = "" if node is None else self._leave(path, node, wanted)
            if reason:
                troubles.append(Trouble(path, f"it is left out, but stays on this device: {reason}"))
        return troubles

    def _leave(self, path: Path, top: NodeId, wanted: Selection) -> str:
        """Trash one folder; why not."""
        beneath: dict[Path, LocalStamp] = {}
        nodes = list(self._journal.subtree(Tree.LOCAL, top))
        for node in nodes:
            if not node.is_settled or node.local is None:
                return "it has changes that the server does not have"
            beneath[path_of(self._journal, Tree.LOCAL, node.id)] = node.local.stamp
        rules = wanted.excluding(())

        def goes_along(place: Path, kind: Kind) -> bool:
            return not rules.includes(place, is_directory=kind is Kind.DIRECTORY)

        with self._journal.transaction():
            left = self._left() | {path}
            self._journal.forget_tree(top)
            self._note(left)
            self._journal.note(SELECTION, wanted.excluding(left).key)
        try:
            self._folder.trash(path, beneath, goes_along)
        except HeleniteError as error:  # somebody is using it: it goes on being synced until the next attempt
            with self._journal.transaction():
                for node in nodes:
                    self._journal.put(node)
                self._note(self._left() - {path})
                self._journal.note(SELECTION, None)
            return str(error)
        return ""

    def _find(self, path: Path) -> NodeId | None:
        """The node that is known to be there on the local side."""
        node: NodeId | None = ROOT_ID
        for name in path:
            node = None if node is None else self._journal.child(Tree.LOCAL, node, name)
        return node

    def _left(self) -> set[Path]:
        return {parse_path(text) for text in self._journal.fact(LEFT) or ()}

    def _note(self, left: set[Path]) -> None:
        self._journal.note(LEFT, sorted(format_path(path) for path in left))
