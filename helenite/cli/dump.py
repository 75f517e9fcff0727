"""`helenite dump` and `helenite load`: all metadata as a file, and back into an empty Redis.

A dump is made while everything runs. A load needs all masters stopped: it works on the Redis of a `helenite up`
directory or on the one that a URL names. Content is not in it; that stays on the chunkservers.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from helenite.cli.cluster_dir import DEFAULT_DIR, ClusterDir
from helenite.cli.connect import DirOption, JsonOption, MasterOption, open_cluster
from helenite.cli.embedded_redis import EmbeddedRedis
from helenite.cli.progress import open_progress
from helenite.cli.snapshot import fetch_dump, opened_dump
from helenite.config import CliSettings, environment
from helenite.core.dumpfile import DumpHeader, check_dump, newest_dump
from helenite.core.errors import EntryNotFoundError, WrongKindError
from helenite.master.dumping import Loader


def dump(
    file: Annotated[str, typer.Argument(help="Where to write it; - is standard output.")] = "",
    directory: DirOption = None,
    master: MasterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write all metadata, as of one moment, to a file while the cluster runs."""
    with open_cluster(directory, master) as cluster, open_progress() as progress:
        pieces = fetch_dump(cluster)
        task = progress.add_task("dumping", total=None)
        if file == "-":
            for piece in pieces:
                sys.stdout.buffer.write(piece)
            return
        target = Path(file or f"helenite-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.dump").absolute()
        header = _write(target, pieces, lambda count: progress.update(task, advance=count))
    size = target.stat().st_size
    if as_json:
        print(json.dumps({"file": str(target), "bytes": size, "sequence": header.sequence}))
    else:
        print(f"{target}: {size} bytes, all metadata up to change {header.sequence}")


def load(
    file: Annotated[str, typer.Argument(help="The dump, or `latest`: the newest that the chunkservers of DIR keep.")],
    directory: DirOption = None,
    redis: Annotated[str, typer.Option("--redis", help="Load into this Redis instead (URL).")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Throw away the metadata that is there.")] = False,
) -> None:
    """Load a dump into the Redis of a cluster that does not run; --dir DIR names it, or --redis URL."""
    place = ClusterDir(directory or Path(CliSettings.from_env(environment()).directory or DEFAULT_DIR))
    path, header = _find(file, place)
    if redis:
        count = _load(path, header, redis, replace=replace)
    else:
        place.create()
        with place.lock(), _running(EmbeddedRedis(place.redis)) as server:
            count = _load(path, header, server.url, replace=replace)
    moment = datetime.fromtimestamp(header.created_at_ms / 1000, UTC)
    print(f"{count} keys of {moment:%Y-%m-%d %H:%M:%S} UTC are loaded. Start the cluster, then: helenite fsck")
    print("Nothing is deleted until you say `helenite gc resume`: chunks written after the dump may still be wanted.")


def _find(file: str, place: ClusterDir) -> tuple[Path, DumpHeader]:
    """An undamaged dump and its header."""
    if file != "latest":
        return Path(file), check_dump(Path(file))
    found = newest_dump(sorted(place.root.glob("chunkserver-*/dumps")))
    if found is None:
        raise EntryNotFoundError(f"no chunkserver under {place.root} keeps an undamaged dump")
    print(f"loading {found[0]}", file=sys.stderr)
    return found


def _load(path: Path, header: DumpHeader, target_url: str, *, replace: bool) -> int:
    moment = datetime.fromtimestamp(header.created_at_ms / 1000, UTC)
    reason = f"the metadata was loaded from a dump of {moment:%Y-%m-%d %H:%M:%S} UTC"
    with opened_dump(path, header) as source_url, open_progress() as progress:
        loader = Loader(source_url, target_url, header.space)
        try:
            loader.prepare(replace=replace)
            task = progress.add_task("loading", total=loader.count())
            return loader.load(reason, lambda count: progress.advance(task, count))
        finally:
            loader.close()


def _write(target: Path, pieces: Iterator[bytes], on_piece: Callable[[int], None]) -> DumpHeader:
    """Write a file, whole or not at all."""
    if not target.parent.is_dir():
        raise EntryNotFoundError(f"there is no directory {target.parent}")
    if target.exists() and not target.is_file():
        raise WrongKindError(f"{target} is no file that could be replaced; - is standard output")
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".helenite-")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as out:
            for piece in pieces:
                out.write(piece)
                on_piece(len(piece))
            out.flush()
            os.fsync(out.fileno())
        header = check_dump(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return header


@contextmanager
def _running(server: EmbeddedRedis) -> Iterator[EmbeddedRedis]:
    server.start()
    try:
        yield server
    finally:
        server.stop()
