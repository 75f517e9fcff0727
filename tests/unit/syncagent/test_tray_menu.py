"""What the tray shows of a status, what it tells unasked, and its icons."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from syncagent.status import AgentStatus, Mood, PairStatus, Recent, parse_status
from syncagent.tray.icons import COLOURS, SIZE, draw_icon
from syncagent.tray.menu import EIGHTHS, SEPARATOR, TEXT_MAX, Action, Badge, Item, menu_model
from syncagent.tray.news import LINES_MAX, find_news

HOME = PairStatus("p1", "Work", "https://d.example/documents/", Mood.IDLE, "up to date", cycles=3, is_settled=True)
OTHER = replace(HOME, id="p2", folder="Music", url="https://d.example/music/")


def find(items: tuple[Item, ...], text: str) -> Item:
    return next(item for item in items if item.text == text)


def texts(items: tuple[Item, ...]) -> list[str]:
    return [item.text for item in items]


def test_one_folder_up_to_date() -> None:
    model = menu_model(AgentStatus((HOME,)))
    assert model.badge == Badge(Mood.IDLE)
    assert model.title == "Helenite: up to date"
    assert texts(model.items) == [
        "Up to date", "", "Open folder", "Open in browser", "Recent files", "Conflicts", "", "Pause", "Quit",
    ]  # fmt: skip
    opening = find(model.items, "Open folder")
    assert opening.is_default
    assert opening.order is not None
    assert (opening.order.action, opening.order.target) == (Action.OPEN_FOLDER, HOME.folder)
    browsing = find(model.items, "Open in browser").order
    assert browsing is not None
    assert browsing.target == HOME.url
    assert texts(find(model.items, "Conflicts").children) == ["none"]


def test_several_folders_have_submenus() -> None:
    model = menu_model(AgentStatus((HOME, OTHER)))
    assert texts(model.items[:2]) == ["Work: up to date", "Music: up to date"]
    children = find(model.items, "Open folder").children
    assert [(child.text, child.order and child.order.target) for child in children] == [
        ("Work", HOME.folder),
        ("Music", OTHER.folder),
    ]


def test_nothing_to_sync() -> None:
    model = menu_model(AgentStatus())
    assert model.badge == Badge(Mood.IDLE)
    assert "No folder is synced yet" in texts(model.items)
    assert not {"Pause", "Resume"} & set(texts(model.items))


@pytest.mark.parametrize(
    ("moods", "shown"),
    [
        ("idle idle", Mood.IDLE),
        ("idle syncing", Mood.SYNCING),
        ("offline syncing", Mood.OFFLINE),
        ("offline attention", Mood.ATTENTION),
        ("paused idle", Mood.IDLE),
        ("paused paused", Mood.PAUSED),
    ],
)
def test_the_icon_is_that_of_the_folder_that_matters_most(moods: str, shown: Mood) -> None:
    one, two = (Mood(word) for word in moods.split())
    model = menu_model(AgentStatus((replace(HOME, mood=one), replace(OTHER, mood=two))))
    assert model.badge.mood is shown
    assert ("Resume" in texts(model.items)) is (moods == "paused paused")
    assert ("Pause" in texts(model.items)) is (moods != "paused paused")


@pytest.mark.parametrize(("done", "left", "eighths"), [(0, 0, 0), (0, 8, 0), (1, 7, 1), (99, 1, 7), (500, 500, 4)])
def test_progress(done: int, left: int, eighths: int) -> None:
    model = menu_model(AgentStatus((replace(HOME, mood=Mood.SYNCING, sentence="syncing", done=done, left=left),)))
    assert model.badge == Badge(Mood.SYNCING, eighths)
    assert model.items[0].text == (f"{done} of {done + left} synced" if left else "Syncing")
    assert model.title == (f"Helenite: syncing, {left} left" if left else "Helenite: syncing")


def test_a_stop_offers_its_answers() -> None:
    stop = replace(
        HOME, mood=Mood.ATTENTION, sentence="80 of 100 entries …", problem="80 of", decisions=("allow", "undo")
    )
    model = menu_model(AgentStatus((stop,)))
    answers = find(model.items, "Decide").children
    orders = [answer.order for answer in answers]
    assert [(order.action, order.target, order.pair) for order in orders if order] == [
        (Action.DECIDE, "allow", "p1"),
        (Action.DECIDE, "undo", "p1"),
    ]


def test_recent_files_and_conflicts_lead_to_them() -> None:
    conflicts = tuple(f"/d/{n} (conflicted copy 2026-11-24 anna).txt" for n in range(12))
    status = AgentStatus((replace(HOME, conflicts=conflicts),), (Recent(1, HOME.folder, "d/new.txt"),))
    model = menu_model(status)
    recent = find(model.items, "Recent files").children[0]
    assert recent.order is not None
    assert (recent.text, recent.order.target) == ("d/new.txt", f"{HOME.folder}/d/new.txt")
    shown = find(model.items, "Conflicts").children
    assert len(shown) == 11
    assert shown[-1].order is None
    assert shown[0].order is not None
    assert shown[0].order.target == HOME.folder + conflicts[0]


def test_texts_fit_a_menu() -> None:
    long = replace(HOME, mood=Mood.ATTENTION, sentence="word " * 100)
    model = menu_model(AgentStatus((long,), (Recent(1, HOME.folder, "a/" * 50 + "b\nc"),)))
    stack = list(model.items)
    while stack:
        item = stack.pop()
        stack += item.children
        assert len(item.text) <= TEXT_MAX
        assert "\n" not in item.text
        assert item == SEPARATOR or item.text


def test_a_status_crosses_the_socket() -> None:
    pair = replace(HOME, conflicts=("/a",), decisions=("allow",), troubles=("t",))
    status = AgentStatus((pair, OTHER), (Recent(1, "/x", "y"),), "shown")
    assert parse_status(asdict(status) | {"seen": 7}) == status


# News


def test_what_needs_a_person_is_told_once() -> None:
    well = AgentStatus((HOME,))
    problem = AgentStatus((replace(HOME, mood=Mood.ATTENTION, problem="the folder has no marker"),))
    note = find_news(well, problem)
    assert note is not None
    assert note.text == f"{HOME.folder}: the folder has no marker"
    assert find_news(problem, problem) is None
    assert find_news(None, problem) is not None
    assert find_news(problem, well) is None
    other = AgentStatus((replace(HOME, mood=Mood.ATTENTION, problem="another one"),))
    assert find_news(problem, other) is not None


def test_each_conflict_is_told_once_and_old_ones_never() -> None:
    one = AgentStatus((replace(HOME, conflicts=("/a",)),))
    two = AgentStatus((replace(HOME, conflicts=("/a", "/b")),))
    assert find_news(None, one) is None
    starting = AgentStatus((replace(HOME, mood=Mood.SYNCING, sentence="starting", cycles=0),))
    assert find_news(starting, one) is None
    note = find_news(one, two)
    assert note is not None
    assert note.text == f"{HOME.folder}/b"
    many = AgentStatus((replace(HOME, conflicts=tuple(f"/{n}" for n in range(20))),))
    found = find_news(AgentStatus((HOME,)), many)
    assert found is not None
    assert len(found.text.splitlines()) == LINES_MAX + 1


@pytest.mark.parametrize("mood", [Mood.SYNCING, Mood.PAUSED, Mood.OFFLINE, Mood.IDLE])
def test_nothing_else_is_told(mood: Mood) -> None:
    before = AgentStatus((HOME,))
    assert find_news(before, AgentStatus((replace(HOME, mood=mood, sentence="x", left=5, done=3),))) is None


# Icons


def luminance(colour: tuple[int, ...]) -> float:
    """WCAG 2, relative luminance."""
    parts = [value / 255 / 12.92 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4 for value in colour[:3]]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("mood", list(Mood))
def test_icons_stand_out_on_light_and_dark_panels(mood: Mood) -> None:
    for panel in ((246, 245, 244), (36, 36, 36), (0, 0, 0), (255, 255, 255)):
        assert contrast(COLOURS[mood], panel) >= 3.0  # WCAG 2, graphical objects
    image = draw_icon(Badge(mood))
    assert (image.mode, image.size) == ("RGBA", (SIZE, SIZE))
    assert image.getpixel((0, 0)) == (0, 0, 0, 0)
    raw = image.tobytes()
    pixels = [tuple(raw[at : at + 4]) for at in range(0, len(raw), 4)]
    opaque = [pixel for pixel in pixels if pixel[3] == 255]
    signs = [pixel for pixel in opaque if contrast(pixel, (255, 255, 255)) < 1.1]
    assert len(signs) > 100
    assert len(opaque) - len(signs) > 1000


def test_every_badge_has_its_own_icon() -> None:
    badges = [Badge(mood) for mood in Mood] + [Badge(Mood.SYNCING, eighths) for eighths in range(1, EIGHTHS)]
    assert len({draw_icon(badge).tobytes() for badge in badges}) == len(badges)
