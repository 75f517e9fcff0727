"""`helenite trash`: what was deleted and can come back."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import rich
import typer
from rich.filesize import decimal
from rich.table import Table

from helenite.cli.connect import DirOption, JsonOption, MasterOption, open_cluster
from helenite.core.paths import parse_path

app = typer.Typer(help="Deleted entries.", no_args_is_help=True)


@app.command()
def ls(directory: DirOption = None, master: MasterOption = None, as_json: JsonOption = False) -> None:
    """List deleted entries, youngest first."""
    with open_cluster(directory, master) as cluster:
        items = cluster.list_trash()
    if as_json:
        print(json.dumps([asdict(item) for item in items], indent=2))
        return
    table = Table("id", "deleted", "size", "path", box=None, pad_edge=False)
    for item in items:
        when = datetime.fromtimestamp(item.deleted_at_ms / 1000, UTC).astimezone()
        size = "directory" if item.kind == "directory" else decimal(item.size_bytes)
        table.add_row(str(item.id), f"{when:%Y-%m-%d %H:%M:%S}", size, item.path)
    rich.print(table)


@app.command()
def restore(
    trash_id: Annotated[int, typer.Argument(metavar="ID", help="As `trash ls` shows it.")],
    target: Annotated[str | None, typer.Argument(help="Where to; default: where it was.")] = None,
    directory: DirOption = None,
    master: MasterOption = None,
) -> None:
    """Put a deleted entry back, with everything beneath it."""
    with open_cluster(directory, master) as cluster:
        cluster.restore(trash_id, None if target is None else parse_path(target))


@app.command()
def empty(
    ids: Annotated[list[int] | None, typer.Argument(metavar="[ID]...", help="Only these.")] = None,
    directory: DirOption = None,
    master: MasterOption = None,
) -> None:
    """Free deleted entries for good."""
    with open_cluster(directory, master) as cluster:
        cluster.empty_trash(tuple(ids or ()))
