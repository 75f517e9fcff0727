"""What a stretch of the feed comes to for one collection: who is gone, who must be looked at again, up to where.

Used by `syncing`, which looks at what is there now. Several changes of one place count once. A report tells each place
once, so where a directory is gone and another one has come to the same place, the stretch is cut in between: the first
report says that it is gone with all that was beneath it, the next one what is there now. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

from helenite.core.errors import SequenceExpiredError
from helenite.core.model import Change, Kind
from helenite.core.paths import Path, is_within, parse_path
from webdav.tokens import Token

ARRIVALS = frozenset({"make_directory", "move", "copy", "restore_trashed"})
"""Verbs after which everything beneath the path is news. (fsck puts lost directories back as `make_directory`.)"""


class Fate(Enum):
    """What became of a place."""

    GONE = auto()
    CHANGED = auto()
    """The entry itself."""
    ARRIVED = auto()
    """The entry with everything beneath it."""


@dataclass(slots=True)
class Place:
    """`was_there`: a client that knows the state before the stretch may know an entry here. `kind`: the last known."""

    fate: Fate
    kind: Kind
    was_there: bool


@dataclass(slots=True)
class Stretch:
    """The outcome. `end` is the token of exactly the changes that count; `is_cut` tells that there are more."""

    end: Token
    places: dict[Path, Place] = field(default_factory=dict)
    is_cut: bool = False

    def tell(self) -> dict[Path, Place]:
        """The places to report, parents first: what lies beneath one that is gone or has arrived goes with it."""
        covered = {path for path, place in self.places.items() if place.fate is not Fate.CHANGED}
        return {
            path: self.places[path]
            for path in sorted(self.places)
            if not any(path[:length] in covered for length in range(len(path)))
        }


def is_relevant(change: Change, home: Path) -> bool:
    """Whether a change concerns anything beneath `home`, or `home` itself."""
    target = parse_path(change.path)
    if is_within(target, home) or (change.verb in ARRIVALS | {"remove"} and is_within(home, target)):
        return True
    source = _left(change)
    return source is not None and (is_within(source, home) or is_within(home, source))


def _left(change: Change) -> Path | None:
    """The place that a move leaves."""
    return parse_path(change.source) if change.verb == "move" else None


def collapse(
    changes: Iterable[Change], home: Path, start: Token, *, is_deep: bool, places_max: int, is_cautious: bool = False
) -> Stretch:
    """Put relevant changes after `start` together.

    `is_cautious` cuts inside moves and after the first directory that has arrived, so that a report can be truncated
    there. SequenceExpiredError when the collection itself came, went or was replaced: what was known of it is void.
    """
    stretch = Stretch(start)
    steps = _Steps(stretch.places, home, is_deep=is_deep)
    is_half = start.is_half
    for change in changes:
        steps.refuse_own_fate(change)
        if stretch.places and len(stretch.places) + 2 > places_max:
            stretch.is_cut = True
        elif not is_half and (steps.replaces_tree(change) or (is_cautious and steps.is_internal_move(change))):
            steps.leave_all(change)
            stretch.end, stretch.is_cut = Token(change.sequence, is_half=True), True
        elif steps.returns(change):
            stretch.is_cut = True
        else:
            if not is_half:
                steps.leave_all(change)
            steps.come(change)
            is_half = False
            stretch.end = Token(change.sequence)
            stretch.is_cut = is_cautious and change.verb in ARRIVALS and change.kind is Kind.DIRECTORY
        if stretch.is_cut:
            break
    return stretch


class _Steps:
    """Applies one change after the other to the places."""

    def __init__(self, places: dict[Path, Place], home: Path, *, is_deep: bool) -> None:
        self._places = places
        self._home = home
        self._is_deep = is_deep

    def refuse_own_fate(self, change: Change) -> None:
        """SequenceExpiredError when the collection came or went with this change."""
        left = _left(change)
        comes_or_goes = change.verb in ARRIVALS or change.verb == "remove"
        if (left is not None and is_within(self._home, left)) or (
            comes_or_goes and is_within(self._home, parse_path(change.path))
        ):
            raise SequenceExpiredError("the collection itself is another one since; list it again")

    def replaces_tree(self, change: Change) -> bool:
        """Whether the change takes the place of an entry that a client must be told is gone first."""
        target = parse_path(change.path)
        return (
            change.replaced is not None
            and self._needs_two_reports(change.replaced, change.kind)
            and self._is_noted(target)
            and not self._is_news(target)
        )

    def is_internal_move(self, change: Change) -> bool:
        """Whether the change concerns two members."""
        left = _left(change)
        return left is not None and self._is_member(left) and self._is_member(parse_path(change.path))

    def returns(self, change: Change) -> bool:
        """Whether the change brings something to a place of which this stretch says that it is gone."""
        place = self._places.get(parse_path(change.path))
        return (
            place is not None
            and place.fate is Fate.GONE
            and place.was_there
            and self._needs_two_reports(place.kind, change.kind)
        )

    def _needs_two_reports(self, old: Kind, new: Kind) -> bool:
        """Whether "changed" alone would leave a client with what was beneath, or with the link of another kind."""
        return old is not new or (self._is_deep and old is Kind.DIRECTORY)

    def leave_all(self, change: Change) -> None:
        """Note what is no longer where it was: the first half of a change."""
        left, target = _left(change), parse_path(change.path)
        if left is not None:
            self._leave(left, change.kind)
        if change.verb == "remove":
            self._leave(target, change.kind)
        elif self.replaces_tree(change):
            self._leave(target, change.replaced or Kind.DIRECTORY)

    def come(self, change: Change) -> None:
        """Note what is there now: the second half."""
        path = parse_path(change.path)
        if change.verb == "remove" or not self._is_noted(path):
            return
        place = self._places.get(path)
        has_arrived = change.verb in ARRIVALS
        was_there = place.was_there if place is not None else not has_arrived or change.replaced is not None
        is_tree = has_arrived or (place is not None and place.fate is Fate.ARRIVED)
        fate = Fate.ARRIVED if self._is_deep and is_tree else Fate.CHANGED
        self._places[path] = Place(fate, change.kind, was_there)

    def _leave(self, path: Path, kind: Kind) -> None:
        if self._is_noted(path):
            place = self._places.get(path)
            self._places[path] = Place(Fate.GONE, kind, was_there=place is None or place.was_there)

    def _is_member(self, path: Path) -> bool:
        return len(path) > len(self._home) and is_within(path, self._home)

    def _is_noted(self, path: Path) -> bool:
        """Whether a place counts by itself. With level 1, what lies deeper is a change of the member above it."""
        if not self._is_member(path):
            return False
        if self._is_deep:
            return not self._is_news(path[:-1], however=True)
        member = path[: len(self._home) + 1]
        if member != path:
            self._places.setdefault(member, Place(Fate.CHANGED, Kind.DIRECTORY, was_there=True))
        return member == path

    def _is_news(self, path: Path, *, however: bool = False) -> bool:
        """Whether a place, or one above it, has arrived and is told as a whole, so that no client knows what was there.

        Of the place itself a client may know an entry that was there before, unless `however` it is.
        """
        for length in range(len(path), len(self._home), -1):
            place = self._places.get(path[:length])
            if place is not None and place.fate is Fate.ARRIVED:
                return however or length < len(path) or not place.was_there
        return False
