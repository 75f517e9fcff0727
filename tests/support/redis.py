"""A real Redis in a directory of its own, and namespaces in it; each namespace is a space that no other test sees."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helenite.cli.embedded_redis import EmbeddedRedis
from helenite.master.namespace import Namespace
from helenite.master.store import Store


@contextmanager
def running_redis(*, durable: bool = False) -> Iterator[EmbeddedRedis]:
    """A server that is stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="helenite-test-") as directory:
        server = EmbeddedRedis(Path(directory), durable=durable)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def open_namespace(url: str, space: str = "", trash_s: int = 3600) -> Iterator[Namespace]:
    """A namespace, in a fresh space unless one is named."""
    namespace = Namespace(Store(url, space or f"test-{secrets.token_hex(6)}"), trash_s=trash_s)
    try:
        yield namespace
    finally:
        namespace.close()
