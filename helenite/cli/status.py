"""`helenite status`: who is there, how the chunks are, how full it is."""

from __future__ import annotations

import json
from typing import Any

import rich
from rich.filesize import decimal
from rich.table import Table

from helenite.cli.connect import DirOption, JsonOption, MasterOption, open_cluster
from helenite.core.pb import common_pb2, master_pb2


def status(directory: DirOption = None, master: MasterOption = None, as_json: JsonOption = False) -> None:
    """Show masters, chunkservers, gateways, chunks and space."""
    with open_cluster(directory, master) as cluster:
        reply = cluster.rpc.admin("GetStatus", common_pb2.Empty())
    values = to_values(reply)
    if as_json:
        print(json.dumps(values, indent=2))
    else:
        show(values)


def to_values(reply: master_pb2.StatusReply) -> dict[str, Any]:
    """The JSON that scripts get."""

    def member(message: master_pb2.Member) -> dict[str, Any]:
        return {"id": message.id, "address": message.address, "pid": message.pid, "state": message.state}

    def chunkserver(message: common_pb2.Chunkserver) -> dict[str, Any]:
        return {
            "id": message.id,
            "address": message.address,
            "pid": message.pid,
            "state": message.state,
            "host": message.host,
            "chunks": message.chunk_count,
            "used_bytes": message.used_bytes,
            "free_bytes": message.free_bytes,
        }

    def progress(message: master_pb2.Progress) -> dict[str, Any]:
        return {
            "waiting": message.waiting,
            "under_way": message.under_way,
            "chunks_per_s": round(message.chunks_per_s, 1),
            "left_s": message.left_s,
        }

    return {
        "cluster": reply.cluster_id,
        "masters": [member(message) for message in reply.masters],
        "chunkservers": [chunkserver(message) for message in reply.chunkservers],
        "gateways": [member(message) for message in reply.gateways],
        "chunks": {
            "total": reply.chunks_total,
            "under_replicated": reply.chunks_under_replicated,
            "lost": reply.chunks_lost,
        },
        "repair": progress(reply.repair),
        "rebalance": progress(reply.rebalance),
        "deleting_stopped": reply.deleting_stopped,
        "replica_target": reply.replica_target,
        "files": reply.usage.file_count,
        "directories": reply.usage.directory_count,
        "bytes": reply.usage.file_bytes,
        "free_bytes": reply.usage.free_bytes,
        "sequence": reply.sequence,
    }


def show(values: dict[str, Any]) -> None:
    """The same for people."""
    table = Table(box=None, pad_edge=False)
    for title in ("", "id", "address", "pid", "state", "chunks", "used", "free"):
        table.add_column(
            title,
            justify="right" if title in {"chunks", "used", "free"} else "left",
            overflow="fold",
            no_wrap=title in {"", "address", "pid", "state"},
        )
    for kind in ("masters", "chunkservers", "gateways"):
        for item in values[kind]:
            row = [kind[:-1], str(item["id"]), item["address"], str(item["pid"]), item["state"]]
            if kind == "chunkservers":
                row += [str(item["chunks"]), decimal(item["used_bytes"]), decimal(item["free_bytes"])]
            table.add_row(*row)
    rich.print(table)
    chunks = values["chunks"]
    print(
        f"\n{values['files']} files, {values['directories']} directories, {decimal(values['bytes'])}; "
        f"room for {decimal(values['free_bytes'])} more"
    )
    health = "all replicas in place"
    if chunks["lost"] or chunks["under_replicated"]:
        health = f"{chunks['under_replicated']} under-replicated, {chunks['lost']} lost (helenite fsck names the files)"
    print(f"{chunks['total']} chunks, {health}")
    show_progress("repair", "chunks to copy", values["repair"])
    show_progress("rebalance", "chunks to move", values["rebalance"])
    if values["deleting_stopped"]:
        print(f"nothing is deleted: {values['deleting_stopped']} (see `helenite gc`)")


def show_progress(name: str, what: str, progress: dict[str, Any]) -> None:
    """A line about work that is going on; none when there is none."""
    if progress["waiting"] or progress["under_way"]:
        left = f", about {progress['left_s']} s left" if progress["left_s"] else ""
        pace = f"{progress['under_way']} at once, {progress['chunks_per_s']} a second{left}"
        print(f"{name}: {progress['waiting']} {what}, {pace}")
