"""The commands that look at the tree and change it: ls, tree, du, stat, mkdir, mv, cp, rm.

Cluster paths are absolute (`/a/b`). Content is moved by `transfer`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import rich
import rich.tree
import typer
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from helenite.cli.connect import DirOption, JsonOption, MasterOption, open_cluster
from helenite.client.filesystem import FileSystem
from helenite.client.names import entry_values
from helenite.core.errors import EntryExistsError, EntryNotFoundError, WrongKindError
from helenite.core.model import Condition, Entry, Expect
from helenite.core.paths import ROOT, Path, format_path, parse_path

PathArgument = Annotated[str, typer.Argument(metavar="PATH", help="Path in the cluster, such as /a/b.")]


def members(cluster: FileSystem, path: Path) -> list[Entry]:
    """A directory's members by name."""
    _, found = cluster.list(path)
    return sorted((view.entry for view in found), key=lambda entry: entry.name)


def walk(cluster: FileSystem, path: Path) -> Iterator[tuple[Path, Entry]]:
    """Everything beneath a directory, depth first, one listing a directory."""
    for entry in members(cluster, path):
        yield (*path, entry.name), entry
        if entry.is_directory:
            yield from walk(cluster, (*path, entry.name))


def ls(
    path: PathArgument = "/", directory: DirOption = None, master: MasterOption = None, as_json: JsonOption = False
) -> None:
    """List a directory, or one file."""
    where = parse_path(path)
    with open_cluster(directory, master) as cluster:
        entry = cluster.stat(where)
        entries = members(cluster, where) if entry.is_directory else [entry]
    if as_json:
        print(json.dumps([entry_values(entry) for entry in entries], indent=2))
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right")
    for entry in entries:
        when = datetime.fromtimestamp(entry.modified_at_ms / 1000, UTC).astimezone()
        size = "-" if entry.is_directory else decimal(entry.size_bytes)
        table.add_row(size, f"{when:%Y-%m-%d %H:%M}", escape(entry.name) + ("/" if entry.is_directory else ""))
    rich.print(table)


def tree(path: PathArgument = "/", directory: DirOption = None, master: MasterOption = None) -> None:
    """Show everything beneath a directory."""
    where = parse_path(path)
    with open_cluster(directory, master) as cluster:
        drawn = rich.tree.Tree(escape(format_path(where)))
        branches = {where: drawn}
        for at, entry in walk(cluster, where):
            branches[at] = branches[at[:-1]].add(escape(entry.name) + ("/" if entry.is_directory else ""))
    rich.print(drawn)


def du(
    path: PathArgument = "/", directory: DirOption = None, master: MasterOption = None, as_json: JsonOption = False
) -> None:
    """Sum up the sizes beneath a path."""
    where = parse_path(path)
    with open_cluster(directory, master) as cluster:
        top = cluster.stat(where)
        found = [entry for _, entry in walk(cluster, where)] if top.is_directory else [top]
    files = [entry for entry in found if not entry.is_directory]
    total = sum(entry.size_bytes for entry in files)
    if as_json:
        print(json.dumps({"bytes": total, "files": len(files), "directories": len(found) - len(files)}))
    else:
        print(f"{decimal(total)} in {len(files)} files and {len(found) - len(files)} directories")


def stat(path: PathArgument, directory: DirOption = None, master: MasterOption = None) -> None:
    """Show everything about one entry, as JSON."""
    with open_cluster(directory, master) as cluster:
        view = cluster.lookup(parse_path(path), with_locations=True, with_properties=True, with_locks=True)
    values = entry_values(view.entry) | {
        "extents": [
            {"chunk": f"{extent.handle:x}", "offset": extent.offset, "length": extent.length}
            for extent in view.entry.extents
        ],
        "replicas": {f"{location.handle:x}": list(location.servers) for location in view.locations},
        "properties": {name: value.decode(errors="replace") for name, value in view.properties.items()},
        "locks": [{"token": lock.token, "path": lock.path, "principal": lock.principal} for lock in view.locks],
    }
    print(json.dumps(values, indent=2))


def mkdir(
    path: PathArgument,
    parents: Annotated[bool, typer.Option("-p", "--parents", help="Make missing parents; existing is fine.")] = False,
    directory: DirOption = None,
    master: MasterOption = None,
) -> None:
    """Make a directory."""
    with open_cluster(directory, master) as cluster:
        make_directories(cluster, parse_path(path)) if parents else cluster.make_directory(parse_path(path))


def make_directories(cluster: FileSystem, path: Path) -> None:
    """Make a directory and its missing parents; WrongKindError when a file is in the way."""
    for depth in range(1, len(path) + 1):
        try:
            cluster.make_directory(path[:depth])
        except EntryExistsError:
            if not cluster.stat(path[:depth]).is_directory:
                raise WrongKindError(f"{format_path(path[:depth])} is a file") from None


def into(cluster: FileSystem, source: Path, target: Path) -> Path:
    """The habit of mv and cp: a target that is a directory takes the source under its own name."""
    try:
        is_directory = target == ROOT or cluster.stat(target).is_directory
    except EntryNotFoundError:
        return target
    return (*target, source[-1]) if is_directory and source else target


ForceOption = Annotated[bool, typer.Option("-f", "--force", help="Replace an existing target.")]


def mv(
    source: PathArgument,
    target: Annotated[str, typer.Argument(metavar="TARGET")],
    force: ForceOption = False,
    directory: DirOption = None,
    master: MasterOption = None,
) -> None:
    """Rename, in constant time; into the target if that is a directory."""
    with open_cluster(directory, master) as cluster:
        origin = parse_path(source)
        cluster.move(origin, into(cluster, origin, parse_path(target)), overwrite=force)


def cp(
    source: PathArgument,
    target: Annotated[str, typer.Argument(metavar="TARGET")],
    force: ForceOption = False,
    directory: DirOption = None,
    master: MasterOption = None,
) -> None:
    """Copy inside the cluster without moving content; directories whole."""
    with open_cluster(directory, master) as cluster:
        origin = parse_path(source)
        cluster.copy(origin, into(cluster, origin, parse_path(target)), overwrite=force)


def rm(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...")],
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="Directories too.")] = False,
    directory: DirOption = None,
    master: MasterOption = None,
) -> None:
    """Delete into the trash (see `helenite trash`)."""
    with open_cluster(directory, master) as cluster:
        for path in map(parse_path, paths):
            entry = cluster.stat(path)
            if entry.is_directory and not recursive:
                raise WrongKindError(f"{format_path(path)} is a directory; -r deletes it with everything beneath it")
            cluster.remove(path, condition=Condition(Expect.PRESENT))
