"""Which entries are synced at all: `.heleniteignore` with the rules of gitignore, and folders that a person left out.

Used by `scan` and `observe`, so that what is left out is in neither tree: it is not there to be compared, let alone to
be deleted. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

import pathspec

from helenite.core.paths import Path, is_within
from syncagent.names import STATE_DIRECTORY

DEFAULT_RULES = (".~lock.*#", "~$*", ".DS_Store", "._.DS_Store", "Thumbs.db", "desktop.ini", ".nfs*", ".fuse_hidden*")
"""Files that programs and systems leave beside documents; a line `!…` in the ignore file takes one back."""


class Selection:
    """The answer for one ignore file and one set of folders."""

    def __init__(self, ignore_file: str = "", excluded: Iterable[Path] = ()) -> None:
        self._ignore_file = ignore_file
        self._ignored = pathspec.GitIgnoreSpec.from_lines([*DEFAULT_RULES, *ignore_file.splitlines()])
        self.excluded = tuple(sorted(excluded))
        self.key = repr((ignore_file, self.excluded))
        """Another when anything about the selection is another."""

    def excluding(self, folders: Iterable[Path]) -> Selection:
        """The same rules with other folders left out."""
        other = tuple(sorted(folders))
        return self if other == self.excluded else Selection(self._ignore_file, other)

    def includes(self, path: Path, *, is_directory: bool) -> bool:
        """Whether an entry is synced, its parent directories being so."""
        if path[0] == STATE_DIRECTORY or any(is_within(path, folder) for folder in self.excluded):
            return False
        text = "/".join(path)
        return not self._ignored.match_file(f"{text}/" if is_directory else text)
