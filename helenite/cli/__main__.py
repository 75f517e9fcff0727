"""The `helenite` command: gathers the commands, turns errors into one sentence and an exit status.

Exit status: 0 done; 1 refused or failed; 2 wrong usage or settings; 3 the cluster cannot be reached. `fsck` has its
own (see there).
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType

import typer

from helenite.cli import sync, up
from helenite.core.errors import ConfigurationError, HeleniteError, UnavailableError

app = typer.Typer(
    name="helenite",
    help="The disks of a few machines as one network drive.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def gather(first_word: str) -> None:
    """Register the commands: all, or `up` alone, which stays in memory for as long as the cluster runs."""
    app.command()(up.up)
    if first_word == "up":
        app.callback()(lambda: None)  # so that typer still expects the command's name
        return
    if first_word == "sync":
        app.add_typer(sync.load_app(), name="sync")  # it needs nothing of the client
        return
    from helenite.cli import dump, files, fsck, gc, server, status, transfer, trash, user  # noqa: PLC0415 - these import the client

    app.command()(status.status)
    app.command()(fsck.fsck)
    app.command()(dump.dump)
    app.command()(dump.load)
    commands: list[Callable[..., None]] = [
        *(files.ls, files.tree, files.du, files.stat, files.mkdir, files.mv, files.cp, files.rm),
        *(transfer.put, transfer.get, transfer.cat),
    ]
    for command in commands:
        app.command()(command)
    app.add_typer(trash.app, name="trash")
    app.add_typer(gc.app, name="gc")
    app.add_typer(server.app, name="server")
    app.add_typer(user.app, name="user")
    app.add_typer(typer.Typer(help="Keep a local folder and a folder on the server equal."), name="sync")


def main() -> None:
    """Entry point."""
    first_word = sys.argv[1] if len(sys.argv) > 1 else ""
    if first_word not in {"up", "sync"}:  # which run on and listen for signals themselves
        end_in_order()
    try:
        gather(first_word)
        app()
    except ConfigurationError as error:
        fail(error, 2)
    except UnavailableError as error:
        fail(error, 3)
    except (HeleniteError, OSError) as error:
        fail(error, 1)


def end_in_order() -> None:
    """Let SIGTERM and SIGHUP end as Ctrl-C does: temporary files, and a temporary Redis with all metadata, go."""

    def end(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)


def fail(error: Exception, status: int) -> None:
    """Say what is wrong and end."""
    said = str(error)
    if isinstance(error, OSError) and error.strerror:  # without "[Errno 2]"
        said = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    print(f"helenite: {said}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
