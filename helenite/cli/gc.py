"""`helenite gc`: whether unneeded chunks are deleted, why not, and a person's word that they should be.

The master stops all deletions when chunks tell that its metadata is older than they are. Under Redis Sentinel they wait
while it is not sure that its Redis is the master.
"""

from __future__ import annotations

import typer

from helenite.cli.connect import DirOption, MasterOption, open_cluster
from helenite.core.pb import common_pb2

app = typer.Typer(help="Deletion of chunks that nothing needs.", invoke_without_command=True)


@app.callback()
def show(context: typer.Context, directory: DirOption = None, master: MasterOption = None) -> None:
    """Say whether deletions go on."""
    if context.invoked_subcommand is not None:
        return
    with open_cluster(directory, master) as cluster:
        status = cluster.rpc.admin("GetStatus", common_pb2.Empty())
    if not status.deleting_stopped:
        print("chunks that nothing needs are deleted")
        return
    print(f"nothing is deleted: {status.deleting_stopped}")
    if not status.deleting_stopped_at_ms:
        print("Deletions go on by themselves when the sentinels and replicas of Redis are back.")
        return
    print(
        "If Redis was restored from an older copy, stop everything and put the newer one back, if there is one.\n"
        "If this metadata is the right one, `helenite gc resume` deletes the chunks that it does not know."
    )


@app.command()
def resume(directory: DirOption = None, master: MasterOption = None) -> None:
    """The metadata is right: delete again, also chunks that it does not know."""
    with open_cluster(directory, master) as cluster:
        was_stopped = cluster.rpc.admin("ResumeDeleting", common_pb2.Empty()).was_stopped
    print("deletions go on" if was_stopped else "deletions had not been stopped")
