"""Knows which directories of the server this device has made there, or moved, since it last looked.

Of a directory that has come to its place the server tells what is in it now, and not what was removed there since: who
has not seen it come knows nothing of that. But who has brought it there does: what the journal has in it, and the next
look does not name, is gone. Used by `records` and `observe`. One thread.
"""

from __future__ import annotations

from syncagent.journal import Journal
from syncagent.model import Node

LOOKS = "looks"


def mark(journal: Journal) -> str:
    """What a directory that we bring to its place now has instead of a walk tag. No tag is like it, nor later marks."""
    return f"since look {journal.fact(LOOKS) or 0}"


def is_ours(node: Node, present: str) -> bool:
    """Whether we brought the directory to its place since the look before this one; `present`: the mark until now.

    Empty: none is ours. (A tag that is not known is empty, too.)
    """
    return bool(present) and node.remote is not None and node.remote.walked == present


def end_look(journal: Journal) -> None:
    """What we bring from now on comes after this look."""
    journal.note(LOOKS, (journal.fact(LOOKS) or 0) + 1)
