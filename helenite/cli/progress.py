"""Progress for people: bars on standard error while a command works, nothing when that is no terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress, ProgressColumn


def open_progress(*columns: ProgressColumn) -> Progress:
    """Bars that are gone when the command is done; rich's usual columns unless others are given."""
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
