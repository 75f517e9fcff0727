"""A panel for tests: a StatusNotifier host with a notification service, which does what lines on standard input say.

Runs as a program of its own under a Python that has PyGObject (the system's), so it imports nothing of ours. One JSON
line in, one out: `look` tells the icon and its menu as a panel sees them over D-Bus, `click` clicks an item by its
labels, `notes` tells the notifications so far, `picture` draws the icon and the menu as a panel would, into a file.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import gi

gi.require_version("Gdk", "3.0")
gi.require_version("Gtk", "3.0")
from gi.repository import Gdk, GdkPixbuf, Gio, GLib, Gtk  # noqa: E402 - the versions have to be said before

WATCHER = "org.kde.StatusNotifierWatcher"
ITEM = "org.kde.StatusNotifierItem"
MENU = "com.canonical.dbusmenu"
NOTIFICATIONS = "org.freedesktop.Notifications"
ANSWER_MS = 5_000
FIELDS = ["label", "enabled", "type", "children-display"]
INTERFACES = f"""<node>
<interface name="{WATCHER}">
  <method name="RegisterStatusNotifierItem"><arg type="s" direction="in"/></method>
  <method name="RegisterStatusNotifierHost"><arg type="s" direction="in"/></method>
  <property name="IsStatusNotifierHostRegistered" type="b" access="read"/>
  <property name="ProtocolVersion" type="i" access="read"/>
  <property name="RegisteredStatusNotifierItems" type="as" access="read"/>
</interface>
<interface name="{NOTIFICATIONS}">
  <method name="Notify">
    <arg type="s" direction="in"/><arg type="u" direction="in"/><arg type="s" direction="in"/>
    <arg type="s" direction="in"/><arg type="s" direction="in"/><arg type="as" direction="in"/>
    <arg type="a{{sv}}" direction="in"/><arg type="i" direction="in"/><arg type="u" direction="out"/>
  </method>
  <method name="CloseNotification"><arg type="u" direction="in"/></method>
</interface>
</node>"""


class Host:
    """What a desktop has for icons."""

    def __init__(self) -> None:
        self.bus = Gio.bus_get_sync(Gio.BusType.SESSION)
        self.item: tuple[str, str] | None = None
        self.notes: list[list[str]] = []
        watcher, notifications = Gio.DBusNodeInfo.new_for_xml(INTERFACES).interfaces
        self.bus.register_object("/StatusNotifierWatcher", watcher, self.hear, self.read, None)
        self.bus.register_object("/org/freedesktop/Notifications", notifications, self.hear, None, None)
        for name in (WATCHER, NOTIFICATIONS):
            Gio.bus_own_name_on_connection(self.bus, name, Gio.BusNameOwnerFlags.NONE, None, None)

    def hear(self, _bus: Any, sender: str, _path: str, _interface: str, name: str, given: Any, call: Any) -> None:
        if name == "RegisterStatusNotifierItem":
            self.item = (sender, given.unpack()[0])
            call.return_value(None)
        elif name == "Notify":
            self.notes.append(list(given.unpack()[3:5]))
            call.return_value(GLib.Variant("(u)", (len(self.notes),)))
        else:
            call.return_value(None)

    def read(self, _bus: Any, _sender: str, _path: str, _interface: str, name: str) -> Any:
        items = [] if self.item is None else ["".join(self.item)]
        return {
            "IsStatusNotifierHostRegistered": GLib.Variant("b", True),
            "ProtocolVersion": GLib.Variant("i", 0),
            "RegisteredStatusNotifierItems": GLib.Variant("as", items),
        }[name]

    def ask(self, path: str, interface: str, method: str, given: Any) -> Any:
        assert self.item is not None
        return self.bus.call_sync(self.item[0], path, interface, method, given, None, 0, ANSWER_MS, None).unpack()

    def property(self, name: str) -> Any:
        assert self.item is not None
        given = GLib.Variant("(ss)", (ITEM, name))
        return self.ask(self.item[1], "org.freedesktop.DBus.Properties", "Get", given)[0]

    def menu(self) -> list[dict[str, Any]]:
        given = GLib.Variant("(iias)", (0, -1, FIELDS))
        return describe(self.ask(self.property("Menu"), MENU, "GetLayout", given)[1])["items"]

    def look(self) -> dict[str, Any]:
        if self.item is None:
            return {}
        found = {"icon": self.property("IconName"), "title": self.property("Title"), "status": self.property("Status")}
        return {**found, "items": self.menu()}

    def click(self, labels: list[str]) -> None:
        items = self.menu()
        for label in labels[:-1]:
            items = find(items, label)["items"]
        target = find(items, labels[-1])
        if not target["enabled"]:
            raise LookupError(f"{labels[-1]} cannot be clicked")
        given = GLib.Variant("(isvu)", (target["id"], "clicked", GLib.Variant("s", ""), 0))
        self.ask(self.property("Menu"), MENU, "Event", given)

    def picture(self, file: str, dark: bool, opened: str) -> None:
        """A panel with the icon, its menu open, and one of the submenus beside it."""
        Gtk.Settings.get_default().set_property("gtk-application-prefer-dark-theme", dark)
        look = self.look()
        icon = GdkPixbuf.Pixbuf.new_from_file_at_size(look["icon"], 24, 24)
        window = Gtk.OffscreenWindow()
        across = Gtk.Box(orientation=Gtk.Orientation.HORIZONTAL)
        bar = Gtk.Box(orientation=Gtk.Orientation.HORIZONTAL, margin=5)
        bar.pack_end(Gtk.Label(label="10:24", margin_start=10, margin_end=6), False, False, 0)
        bar.pack_end(Gtk.Image.new_from_pixbuf(icon), False, False, 0)
        whole = Gtk.Box(orientation=Gtk.Orientation.VERTICAL)
        whole.pack_start(bar, False, False, 0)
        whole.pack_start(Gtk.Separator(), False, False, 0)
        if opened:
            across.pack_start(drawn(find(look["items"], opened)["items"]), False, False, 0)
        across.pack_end(drawn(look["items"]), False, False, 0)
        whole.pack_start(across, False, False, 0)
        window.add(whole)
        window.show_all()
        for _ in range(1_000):
            if not Gtk.events_pending():
                break
            Gtk.main_iteration()
        window.get_pixbuf().savev(file, "png", [], [])
        window.destroy()


def describe(layout: Any) -> dict[str, Any]:
    number, fields, children = layout
    return {
        "id": number,
        "label": fields.get("label", "").replace("__", "_"),
        "enabled": fields.get("enabled", True),
        "is_separator": fields.get("type") == "separator",
        "items": [describe(child) for child in children],
    }


def find(items: list[dict[str, Any]], label: str) -> dict[str, Any]:
    for item in items:
        if item["label"] == label:
            return item
    raise LookupError(f"no {label!r} among {[item['label'] for item in items]}")


def drawn(items: list[dict[str, Any]]) -> Gtk.Widget:
    """A menu as it looks when it is open."""
    frame = Gtk.Frame(margin=6, valign=Gtk.Align.START)
    column = Gtk.Box(orientation=Gtk.Orientation.VERTICAL, margin=4)
    frame.add(column)
    for item in items:
        if item["is_separator"]:
            column.pack_start(Gtk.Separator(margin=3), False, False, 0)
            continue
        text = item["label"] + ("   ▸" if item["items"] else "")
        label = Gtk.Label(label=text, xalign=0, margin_start=10, margin_end=10, margin_top=3, margin_bottom=3)
        label.set_sensitive(item["enabled"])
        column.pack_start(label, False, False, 0)
    return frame


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    host = Host()
    loop = GLib.MainLoop()

    def obey(_channel: Any, _condition: Any) -> bool:
        line = sys.stdin.readline()
        if not line:
            loop.quit()
            return False
        order, given = json.loads(line)
        try:
            answer = {"answer": host.notes if order == "notes" else getattr(host, order)(*given)}
        except (LookupError, GLib.Error) as error:
            answer = {"error": str(error)}
        say(json.dumps(answer))
        return True

    GLib.io_add_watch(GLib.IOChannel(0), GLib.PRIORITY_DEFAULT, GLib.IOCondition.IN | GLib.IOCondition.HUP, obey)
    Gdk.init([])
    say("ready")
    loop.run()


if __name__ == "__main__":
    main()
