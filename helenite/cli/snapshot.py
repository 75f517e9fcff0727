"""A dump of the metadata on its way through a command: fetched from a master, opened in a Redis of its own.

Used by `dump`, which keeps it or loads it, and by `books`, which audits it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helenite.cli.embedded_redis import EmbeddedRedis
from helenite.client.filesystem import FileSystem
from helenite.core.dumpfile import DumpHeader, extract_snapshot
from helenite.core.errors import PreconditionFailedError, UnavailableError
from helenite.core.pb import common_pb2

DUMP_S = 3600.0
"""Patience with a whole dump."""


def fetch_dump(cluster: FileSystem) -> Iterator[bytes]:
    """All metadata as of one moment, piece by piece (core/dumpfile.py)."""
    for piece in cluster.rpc.admin_stream("Dump", common_pb2.Empty(), DUMP_S):
        yield piece.data


@contextmanager
def opened_dump(path: Path, header: DumpHeader) -> Iterator[str]:
    """The URL of a temporary Redis that has read a checked dump.

    PreconditionFailedError when the server here is older than the one that wrote it.
    """
    with tempfile.TemporaryDirectory(prefix="helenite-dump-") as scratch:
        extract_snapshot(path, Path(scratch) / "dump.rdb")
        server = EmbeddedRedis(Path(scratch), keeps=False)
        try:
            server.start()
        except UnavailableError as error:
            raise PreconditionFailedError(
                f"the Redis server here cannot read the dump, which Redis {header.redis_version} wrote: "
                "that version or a newer one is needed"
            ) from error
        try:
            yield server.url
        finally:
            server.stop()
