"""The commands that carry content: put, get, cat, with progress on a terminal. `-` is standard input or output."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as LocalPath
from typing import IO, Annotated, BinaryIO

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from helenite.cli.connect import DirOption, MasterOption, open_cluster
from helenite.cli.files import into, make_directories, walk
from helenite.cli.progress import open_progress
from helenite.client.filesystem import FileSystem
from helenite.client.reader import Reader
from helenite.core.errors import EntryNotFoundError, WrongKindError
from helenite.core.model import MIB, Entry
from helenite.core.paths import Path, format_path, parse_path

PIECE_BYTES = MIB
RemoteArgument = Annotated[str, typer.Argument(metavar="PATH", help="Path in the cluster, such as /a/b.")]


class Transfer:
    """Moves content between files here and files in the cluster, and shows how far it is."""

    def __init__(self, cluster: FileSystem, progress: Progress) -> None:
        self._cluster = cluster
        self._progress = progress

    def upload(self, source: LocalPath, target: Path) -> None:
        """One file, keeping its modification time."""
        with source.open("rb") as file:
            state = os.fstat(file.fileno())
            self._write(file, target, state.st_size, state.st_mtime_ns // 1_000_000)

    def upload_stream(self, file: BinaryIO, target: Path) -> None:
        """All that comes from `file`."""
        self._write(file, target, None, 0)

    def upload_tree(self, source: LocalPath, target: Path) -> None:
        """A directory with everything beneath it; symbolic links are left out, and said so."""
        make_directories(self._cluster, target)
        for item in sorted(source.iterdir()):
            to = (*target, item.name)
            if item.is_symlink() or not (item.is_dir() or item.is_file()):
                print(f"helenite: left out, neither file nor directory: {item}", file=sys.stderr)
            elif item.is_dir():
                self.upload_tree(item, to)
            else:
                self.upload(item, to)

    def download(self, source: Path, target: LocalPath) -> None:
        """One file, swapped in when it is complete, keeping its modification time. A device or pipe is written to."""
        with self._cluster.open(source) as reader:
            if target.exists() and not target.is_file():
                with target.open("wb") as device:
                    self._read(reader, device)
                return
            with tempfile.NamedTemporaryFile("wb", dir=target.parent, prefix=".helenite-", delete=False) as file:
                try:
                    self._read(reader, file)
                except BaseException:
                    LocalPath(file.name).unlink()
                    raise
            modified_ns = reader.entry.modified_at_ms * 1_000_000
            os.utime(file.name, ns=(modified_ns, modified_ns))
            LocalPath(file.name).chmod(0o666 & ~_umask())
            LocalPath(file.name).replace(target)

    def download_tree(self, source: Path, target: LocalPath) -> None:
        """A directory with everything beneath it."""
        target.mkdir(exist_ok=True)
        for path, entry in walk(self._cluster, source):
            here = target.joinpath(*path[len(source) :])
            if entry.is_directory:
                here.mkdir(exist_ok=True)
            else:
                self.download(path, here)

    def _read(self, reader: Reader, file: IO[bytes]) -> None:
        task = self._progress.add_task(reader.entry.name, total=reader.size_bytes)
        for piece in reader.iterate():
            file.write(piece)
            self._progress.advance(task, len(piece))

    def _write(self, file: BinaryIO, target: Path, size_bytes: int | None, modified_at_ms: int) -> None:
        task = self._progress.add_task(format_path(target), total=size_bytes)
        with self._cluster.create(target, size_bytes=size_bytes, modified_at_ms=modified_at_ms) as writer:
            while piece := file.read(PIECE_BYTES):
                writer.write(piece)
                self._progress.advance(task, len(piece))
            writer.commit()


@contextmanager
def open_transfer(cluster: FileSystem) -> Iterator[Transfer]:
    """A transfer whose progress bars show on a terminal only."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with open_progress(*columns) as progress:
        yield Transfer(cluster, progress)


def put(
    sources: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Local files or directories; - is standard input.")
    ],
    target: RemoteArgument,
    directory: DirOption = None,
    master: MasterOption = None,
) -> None:
    """Copy local files and directories into the cluster."""
    with open_cluster(directory, master) as cluster, open_transfer(cluster) as transfer:
        where = parse_path(target)
        if len(sources) > 1 and not cluster.stat(where).is_directory:
            raise WrongKindError(f"{target} is no directory, but there are several sources")
        for source in sources:
            if source == "-":
                transfer.upload_stream(sys.stdin.buffer, where)
                continue
            local = LocalPath(source)
            to = into(cluster, (local.resolve().name,), where)
            transfer.upload_tree(local, to) if local.is_dir() else transfer.upload(local, to)


def get(
    source: RemoteArgument,
    target: Annotated[str, typer.Argument(metavar="FILE", help="Local file or directory; - is standard output.")] = ".",
    directory: DirOption = None,
    master: MasterOption = None,
) -> None:
    """Copy a file or a directory from the cluster."""
    with open_cluster(directory, master) as cluster:
        path = parse_path(source)
        if target == "-":
            _print_content(cluster, path)
            return
        entry = cluster.stat(path)
        local = _local_target(entry, LocalPath(target))
        with open_transfer(cluster) as transfer:
            transfer.download_tree(path, local) if entry.is_directory else transfer.download(path, local)


def cat(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...")],
    directory: DirOption = None,
    master: MasterOption = None,
) -> None:
    """Print files."""
    with open_cluster(directory, master) as cluster:
        for path in paths:
            _print_content(cluster, parse_path(path))


def _print_content(cluster: FileSystem, path: Path) -> None:
    with cluster.open(path) as reader:
        for piece in reader.iterate():
            sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def _local_target(entry: Entry, target: LocalPath) -> LocalPath:
    if target.is_dir():
        return target / (entry.name or "root")
    if not target.parent.is_dir():
        raise EntryNotFoundError(f"there is no directory {target.parent}")
    return target


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
