"""Knows which uploads may have come to more than their own reply tells, because the server was looked at meanwhile.

An upload ends on the server before its reply is taken over here. If somebody else moves or deletes the new entry at
once, and the agent learns that from the server before it takes over the reply, then it hears of the end of an entry
whose beginning it does not know yet, and cannot make anything of it. The upload would then be written down for ever as
it was when it ended. So what a look at the server says is removed is kept for as long as uploads are under way that
began before; if such a one went to that place, the changes since its beginning have to be asked for once more. So they
have if the directory that it was to go into has another path by now: it may have come into another one of that name.

Used by `transfers`. Pure; one thread.
"""

from __future__ import annotations

from collections.abc import Iterable

from helenite.core.paths import Path
from syncagent.model import NodeId

REMOVED_MAX = 10_000
"""Paths in memory; with more, every upload that is under way is asked about."""


class Overlaps:
    """The uploads of one pair."""

    def __init__(self) -> None:
        self._count = 0  # of looks
        self._blind_at = 0  # the last look that may have missed anything
        self._began: dict[NodeId, tuple[int, str]] = {}  # after how many looks, and with which token
        self._removed: dict[Path, int] = {}  # in which look it was said to be removed

    def begin(self, node: NodeId, token: str) -> None:
        """An upload begins; `token` is what the server's changes have been asked up to."""
        self._began[node] = (self._count, token)

    def look(self, removed: Iterable[Path] | None) -> None:
        """The server was looked at, and says that these are removed; None: it does not say what is."""
        self._count += 1
        if not self._began:
            self._removed.clear()
            return
        if removed is not None:
            self._removed.update(dict.fromkeys(removed, self._count))
        if removed is None or len(self._removed) > REMOVED_MAX:
            self._removed.clear()
            self._blind_at = self._count

    def end(self, node: NodeId, target: Path, *, is_renamed: bool = False) -> str | None:
        """An upload to this path, renamed since or not, is over; from which token to ask again; None: no need to."""
        began_at, token = self._began.pop(node, (self._count, ""))
        around = (target[:end] for end in range(1, len(target) + 1))
        is_doubtful = (
            is_renamed or self._blind_at > began_at or any(self._removed.get(path, 0) > began_at for path in around)
        )
        return token if is_doubtful else None

    def clear(self) -> None:
        """Nothing is under way any more."""
        self._began.clear()
        self._removed.clear()
