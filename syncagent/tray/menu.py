"""Decides what the tray shows: from the agent's status to an icon, a title and a menu.

Used by `driver`, which gives it to pystray and carries out the orders that items stand for. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from syncagent.status import AgentStatus, Mood, PairStatus

RECENT_MAX = 10
CONFLICTS_MAX = 10
"""Shown in a submenu."""
TEXT_MAX = 60
"""Characters of an item: menus do not wrap."""
EIGHTHS = 8


class Action(StrEnum):
    """What a click can mean."""

    OPEN_FOLDER = "open folder"
    OPEN_BROWSER = "open in browser"
    OPEN_FILE = "open file"
    SHOW_FILE = "show file"
    DECIDE = "decide"
    PAUSE = "pause"
    RESUME = "resume"
    QUIT = "quit"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done; `target` is a path, a URL or a decision, `pair` the pair that it is about."""

    action: Action
    target: str = ""
    pair: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """A line of the menu. Without order and children it only says something; without text it is a separator."""

    text: str = ""
    order: Order | None = None
    children: tuple[Item, ...] = ()
    is_default: bool = False


SEPARATOR = Item()


@dataclass(frozen=True, slots=True)
class Badge:
    """Which icon. `eighths` of the work are done, while it is syncing and that is known."""

    mood: Mood
    eighths: int = 0


@dataclass(frozen=True, slots=True)
class TrayModel:
    """All that the tray shows."""

    badge: Badge
    title: str
    items: tuple[Item, ...]


_DECISIONS = {
    "allow": "Yes, delete them",
    "undo": "No, bring them back",
    "start-over": "Unite both sides, delete nothing",
}


def menu_model(status: AgentStatus) -> TrayModel:
    """What the tray shows of a status."""
    pairs = status.pairs
    title = f"Helenite: {_summary(pairs)}"
    questions = [item for pair in pairs for item in _questions(pair, is_alone=len(pairs) == 1)]
    items = (
        *(Item(_cut(_line(pair, is_alone=len(pairs) == 1))) for pair in pairs),
        *([] if pairs else [Item("No folder is synced yet")]),
        *questions,
        SEPARATOR,
        *_per_pair("Open folder", Action.OPEN_FOLDER, [(pair, pair.folder) for pair in pairs], is_default=True),
        *_per_pair("Open in browser", Action.OPEN_BROWSER, [(pair, pair.url) for pair in pairs]),
        _submenu("Recent files", _recent(status)),
        _submenu("Conflicts", _conflicts(pairs)),
        SEPARATOR,
        *_pausing(pairs),
        Item("Quit", Order(Action.QUIT)),
    )
    return TrayModel(_badge(pairs), title, items)


def overall_mood(pairs: Iterable[PairStatus]) -> Mood:
    """One word for all pairs: what needs a person first; paused only when all are."""
    moods = {pair.mood for pair in pairs}
    for mood in (Mood.ATTENTION, Mood.OFFLINE, Mood.SYNCING, Mood.IDLE, Mood.PAUSED):
        if mood in moods:
            return mood
    return Mood.IDLE


def _badge(pairs: tuple[PairStatus, ...]) -> Badge:
    mood = overall_mood(pairs)
    done, left = sum(pair.done for pair in pairs), sum(pair.left for pair in pairs)
    eighths = EIGHTHS * done // (done + left) if mood is Mood.SYNCING and left else 0
    return Badge(mood, eighths)


def _summary(pairs: tuple[PairStatus, ...]) -> str:
    match overall_mood(pairs):
        case Mood.ATTENTION:
            return "needs you"
        case Mood.OFFLINE:
            return "offline"
        case Mood.SYNCING:
            left = sum(pair.left for pair in pairs)
            return f"syncing, {left} left" if left else "syncing"
        case Mood.PAUSED:
            return "paused"
        case Mood.IDLE:
            return "up to date"


def _line(pair: PairStatus, *, is_alone: bool) -> str:
    sentence = pair.sentence
    if pair.mood is Mood.SYNCING and pair.left:
        sentence = f"{pair.done} of {pair.done + pair.left} synced"
    elif pair.mood is Mood.OFFLINE:
        sentence = f"offline: {sentence}"
    return sentence[:1].upper() + sentence[1:] if is_alone else f"{_name(pair.folder)}: {sentence}"


def _questions(pair: PairStatus, *, is_alone: bool) -> list[Item]:
    if not pair.decisions:
        return []
    title = "Decide" if is_alone else f"Decide about {_name(pair.folder)}"
    answers = [
        Item(_DECISIONS.get(word, word), Order(Action.DECIDE, target=word, pair=pair.id)) for word in pair.decisions
    ]
    return [Item(_cut(title), children=tuple(answers))]


def _per_pair(
    text: str, action: Action, targets: list[tuple[PairStatus, str]], *, is_default: bool = False
) -> list[Item]:
    """One item, or with several pairs a submenu."""
    items = [Item(_cut(_name(pair.folder)), Order(action, target=target, pair=pair.id)) for pair, target in targets]
    if len(items) == 1:
        return [Item(text, items[0].order, is_default=is_default)]
    return [_submenu(text, items)]


def _submenu(text: str, items: list[Item]) -> Item:
    return Item(text, children=tuple(items or [Item("none")]))


def _recent(status: AgentStatus) -> list[Item]:
    return [
        Item(_cut(recent.path), Order(Action.OPEN_FILE, target=f"{recent.folder}/{recent.path}"))
        for recent in status.recent[:RECENT_MAX]
    ]


def _conflicts(pairs: tuple[PairStatus, ...]) -> list[Item]:
    found = [(pair, path.lstrip("/")) for pair in pairs for path in pair.conflicts]
    items = [
        Item(_cut(path), Order(Action.SHOW_FILE, target=f"{pair.folder}/{path}"))
        for pair, path in found[:CONFLICTS_MAX]
    ]
    more = len(found) - CONFLICTS_MAX
    return [*items, Item(f"and {more} more: helenite sync conflicts")] if more > 0 else items


def _pausing(pairs: tuple[PairStatus, ...]) -> list[Item]:
    if not pairs:
        return []
    if all(pair.mood is Mood.PAUSED for pair in pairs):
        return [Item("Resume", Order(Action.RESUME))]
    return [Item("Pause", Order(Action.PAUSE))]


def _name(folder: str) -> str:
    return folder.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1] or folder


def _cut(text: str) -> str:
    """One line, without its middle if it is too long: both ends of a path tell something."""
    text = " ".join(text.split())
    if len(text) <= TEXT_MAX:
        return text
    return f"{text[: TEXT_MAX // 2 - 1]}…{text[-(TEXT_MAX // 2) :]}"
