"""Shows the agent's status as an icon, and passes on what a person clicks. The one door to pystray.

A thin client of the daemon: it waits for news on the control socket and makes what `menu` and `news` decide. pystray
rebuilds a menu as a whole, and one that is open closes: so it is changed only when it is another, and once a second at
most. Threading: pystray's loop has the main thread; one other waits for news; clicks come on the main thread.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pystray

from helenite.core.errors import HeleniteError, UnavailableError
from syncagent.control import ask
from syncagent.settings import Home
from syncagent.status import AgentStatus, parse_status
from syncagent.tray.icons import draw_icon
from syncagent.tray.menu import SEPARATOR, Action, Item, Order, TrayModel, menu_model
from syncagent.tray.news import find_news

PACE_S = 1.0
"""Between two changes of what is shown."""


class TrayDriver:
    """The icon of one home."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._stopping = threading.Event()
        self._shown: TrayModel | None = None
        self._icon = pystray.Icon("helenite-sync", title="Helenite")

    def run(self, on_shown: Callable[[], None]) -> None:
        """Show the icon until the daemon ends or the person quits; `on_shown` is called once it is there."""
        self._icon.run(lambda _: self._follow(on_shown))

    def _follow(self, on_shown: Callable[[], None]) -> None:
        """Wait for news, again and again; pystray runs this on a thread of its own."""
        seen, before = 0, None
        try:
            while not self._stopping.is_set():
                answer = ask(self._home, "watch", seen=seen)
                now, seen = parse_status(answer), answer["seen"]
                self._show(menu_model(now))
                if before is None:
                    self._icon.visible = True
                    on_shown()
                self._tell(before, now)
                before = now
                self._stopping.wait(PACE_S)
        except UnavailableError:
            pass  # the daemon has ended, and so does its icon
        finally:
            self._icon.stop()

    def _show(self, model: TrayModel) -> None:
        shown, self._shown = self._shown, model
        if shown is None or shown.badge != model.badge:
            self._icon.icon = draw_icon(model.badge)
        if shown is None or shown.title != model.title:
            self._icon.title = model.title
        if shown is None or shown.items != model.items:
            self._icon.menu = pystray.Menu(*map(self._make_item, model.items))

    def _tell(self, before: AgentStatus | None, now: AgentStatus) -> None:
        note = find_news(before, now)
        if note is not None and self._icon.HAS_NOTIFICATION:
            self._icon.notify(note.text, note.title)

    def _make_item(self, item: Item) -> Any:
        if item == SEPARATOR:
            return pystray.Menu.SEPARATOR
        if item.children:
            return pystray.MenuItem(item.text, pystray.Menu(*map(self._make_item, item.children)))
        order = item.order
        if order is None:
            return pystray.MenuItem(item.text, None, enabled=False)
        return pystray.MenuItem(item.text, lambda: self._obey(order), default=item.is_default)

    def _obey(self, order: Order) -> None:
        """Carry out a click. What goes wrong shows in the status, or is told as news."""
        try:
            self._carry_out(order)
        except (HeleniteError, OSError) as error:
            if self._icon.HAS_NOTIFICATION:
                self._icon.notify(str(error), "Helenite")

    def _carry_out(self, order: Order) -> None:
        match order.action:
            case Action.OPEN_FOLDER | Action.OPEN_FILE:
                open_path(Path(order.target))
            case Action.SHOW_FILE:
                open_path(Path(order.target).parent)
            case Action.OPEN_BROWSER:
                webbrowser.open(order.target)
            case Action.PAUSE | Action.RESUME:
                self._home.pause("", is_paused=order.action is Action.PAUSE)
                ask(self._home, "reload")
            case Action.DECIDE:
                ask(self._home, "decide", pair=order.pair, decision=order.target)
            case Action.QUIT:
                self._stopping.set()
                ask(self._home, "quit")


def open_path(path: Path) -> None:
    """Open a file or folder with the program that the person has for it; of what is gone, the folder around it."""
    while not path.exists() and path != path.parent:
        path = path.parent
    if sys.platform == "win32":
        os.startfile(path)
    else:
        program = "open" if sys.platform == "darwin" else "xdg-open"
        subprocess.Popen([program, str(path)], stdin=subprocess.DEVNULL, start_new_session=True)
