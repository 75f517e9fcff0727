"""The tray's process: `python -m syncagent.tray HOME`, started by the daemon (`companion`).

Says on standard output `shown` when the icon is there. When there can be none it says why on standard error and ends
with 1; whatever else goes wrong ends it too, and its last line tells.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from syncagent.settings import Home
from syncagent.tray.desktop import find_obstacle


def main() -> None:
    obstacle = find_obstacle(os.environ)
    if obstacle:
        sys.exit(obstacle)
    from syncagent.tray.driver import TrayDriver  # noqa: PLC0415 - imports pystray, which needs what was checked

    TrayDriver(Home(Path(sys.argv[1]))).run(lambda: print("shown", flush=True))


if __name__ == "__main__":
    main()
