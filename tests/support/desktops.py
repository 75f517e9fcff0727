"""A desktop for tests: a screen (Xvfb), a session bus, and a panel that shows icons (`tray_host`)."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from syncagent.tray.icons import draw_icon
from syncagent.tray.menu import Badge
from tests.support.waiting import wait_until

HOST = Path(__file__).with_name("tray_host.py")
SYSTEM_PYTHON = "/usr/bin/python3"
"""PyGObject is the system's, not ours."""
BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "x">
<busconfig><type>session</type><listen>unix:path={path}</listen><policy context="default">
<allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>
"""
"""Nothing is started by the bus, so that nothing is left."""
END_S = 10


class Panel:
    """The panel's process, as a test asks it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, order: str, *given: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([order, given]) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise LookupError(answer["error"])
        return answer["answer"]

    def look(self) -> dict[str, Any]:
        """The icon; empty while there is none, or while it changes."""
        with contextlib.suppress(LookupError):
            found: dict[str, Any] = self.ask("look")
            return found
        return {}

    def title(self) -> str:
        return str(self.look().get("title", ""))

    def shows(self, badge: Badge) -> bool:
        """Whether the icon is exactly this one."""
        path = self.look().get("icon")
        try:
            content = Path(path).read_bytes() if path else b""
        except FileNotFoundError:
            return False  # it is being changed
        return bool(content) and Image.open(BytesIO(content)).tobytes() == draw_icon(badge).tobytes()

    def labels(self, *path: str) -> list[str]:
        """The texts of a menu."""
        items = self.look().get("items", [])
        for label in path:
            items = next((item["items"] for item in items if item["label"] == label), [])
        return [item["label"] for item in items]

    def click(self, *labels: str) -> None:
        """Click an item as soon as it is there; menus are made anew now and then, under the hand."""

        def is_clicked() -> bool:
            with contextlib.suppress(LookupError):
                self.ask("click", labels)
                return True
            return False

        wait_until(is_clicked)

    def notes(self) -> list[list[str]]:
        found: list[list[str]] = self.ask("notes")
        return found


@contextlib.contextmanager
def screen() -> Iterator[dict[str, str]]:
    """A screen that nobody sees; the environment by which programs find it."""
    read, write = os.pipe()
    arguments = ["Xvfb", "-displayfd", str(write), "-screen", "0", "800x600x24", "-nolisten", "tcp"]
    with _running(arguments, pass_fds=(write,), stderr=subprocess.DEVNULL), os.fdopen(read) as number:
        os.close(write)
        yield {"DISPLAY": f":{number.readline().strip()}", "NO_AT_BRIDGE": "1", "GIO_USE_VFS": "local"}


@contextlib.contextmanager
def session_bus(directory: Path) -> Iterator[dict[str, str]]:
    """A session bus; the environment by which programs find it."""
    path, config = directory / "bus", directory / "bus.conf"
    config.write_text(BUS.format(path=path))
    arguments = ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address=1"]
    with _running(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as daemon:
        yield {"DBUS_SESSION_BUS_ADDRESS": daemon.stdout.readline().strip()}


@contextlib.contextmanager
def panel(environment: dict[str, str]) -> Iterator[Panel]:
    """A panel on a screen and a bus."""
    arguments = [SYSTEM_PYTHON, str(HOST)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with _running(arguments, env=os.environ | environment, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        yield Panel(process)


@contextlib.contextmanager
def _running(arguments: list[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    with subprocess.Popen(arguments, **options) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(END_S)
