"""`helenite server`: empty a chunkserver and forget it."""

from __future__ import annotations

import threading
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from helenite.cli.connect import DirOption, MasterOption, open_cluster
from helenite.cli.progress import open_progress
from helenite.core.pb import master_pb2

app = typer.Typer(help="Chunkservers.", no_args_is_help=True)
IdArgument = Annotated[int, typer.Argument(metavar="ID", help="As `helenite status` shows it.")]
POLL_S = 1.0


@app.command()
def drain(
    server_id: IdArgument,
    undo: Annotated[bool, typer.Option("--undo", help="Let it take new chunks again.")] = False,
    directory: DirOption = None,
    master: MasterOption = None,
) -> None:
    """Copy a chunkserver's chunks elsewhere; returns when no chunk depends on it any more."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    request = master_pb2.DrainRequest(id=server_id, is_off=undo)
    with open_cluster(directory, master) as cluster, open_progress(*columns) as progress:
        left = total = cluster.rpc.admin("Drain", request).dependent_chunks
        task = progress.add_task("copying chunks", total=total)
        while left > 0 and not undo:
            threading.Event().wait(POLL_S)
            left = cluster.rpc.admin("Drain", request).dependent_chunks
            total = max(total, left)
            progress.update(task, total=total, completed=total - left)
    print(f"chunkserver {server_id} " + ("takes chunks again" if undo else "holds nothing that is needed: it can go"))


@app.command()
def remove(server_id: IdArgument, directory: DirOption = None, master: MasterOption = None) -> None:
    """Forget a chunkserver that has been drained, or is dead and made up for, and stopped."""
    with open_cluster(directory, master) as cluster:
        cluster.rpc.admin("RemoveServer", master_pb2.ServerRequest(id=server_id))
