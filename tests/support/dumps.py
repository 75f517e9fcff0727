"""Dumps of a namespace, and a real Redis started on one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helenite.cli.embedded_redis import EmbeddedRedis
from helenite.core.dumpfile import check_dump, extract_snapshot
from helenite.master.namespace import Namespace


def take(namespace: Namespace, path: Path) -> None:
    path.write_bytes(b"".join(namespace.dump()))


@contextmanager
def opened(path: Path, scratch: Path) -> Iterator[EmbeddedRedis]:
    """A Redis that has read the snapshot in a dump."""
    check_dump(path)
    scratch.mkdir()
    extract_snapshot(path, scratch / "dump.rdb")
    server = EmbeddedRedis(scratch, keeps=False)
    server.start()
    try:
        yield server
    finally:
        server.stop()
