"""Takes the README's picture of the tray: `python -m tests.support.tray_picture syncagent/screenshots/tray.png`.

An agent syncs a few files on a screen that nobody sees; the panel draws its icon and its menu, light and dark.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from PIL import Image

from tests.support.desktops import panel, screen, session_bus
from tests.support.gateways import our_gateway
from tests.support.memory_filesystem import MemoryFileSystem
from tests.support.sync_agents import Agent
from tests.support.waiting import wait_until

FILES = ("invoices/2026-11.pdf", "letter to the bank.odt", "photos/harbour.jpg", "todo.txt")
COLOURS = 64
"""In the picture: small, and nobody sees a difference."""


def take_picture(target: Path, base: Path) -> None:
    with ExitStack() as stack:
        gateway = stack.enter_context(our_gateway(MemoryFileSystem()))
        environment = stack.enter_context(screen()) | stack.enter_context(session_bus(base))
        shown = stack.enter_context(panel(environment))
        agent = Agent(base, "Work", environment)
        agent.add(f"http://{gateway.host}:{gateway.port}/work")
        agent.start("--log-level", "info")
        for number, name in enumerate(reversed(FILES), 1):
            file = agent.folder / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(b"x" * 1000)
            wait_until(lambda number=number: len(shown.labels("Recent files")) == number, 20)
        wait_until(lambda: shown.title() == "Helenite: up to date", 20)
        pictures = []
        for dark in (False, True):
            file = base / f"{dark}.png"
            shown.ask("picture", str(file), dark, "Recent files")
            pictures.append(Image.open(file).convert("RGB"))
        agent.stop()
    whole = Image.new("RGB", (sum(picture.width for picture in pictures), max(picture.height for picture in pictures)))
    whole.paste(pictures[0], (0, 0))
    whole.paste(pictures[1], (pictures[0].width, 0))
    target.parent.mkdir(parents=True, exist_ok=True)
    whole.quantize(COLOURS).save(target, optimize=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        take_picture(Path(sys.argv[1]), Path(directory))
