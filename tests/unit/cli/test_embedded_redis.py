"""The Redis of `helenite up` starts after a power cut with what was synced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from helenite.cli.embedded_redis import PIECE_BYTES, EmbeddedRedis


@contextmanager
def running(directory: Path) -> Iterator[redis.Redis]:
    server = EmbeddedRedis(directory)
    server.start()
    try:
        with redis.Redis.from_url(server.url) as client:
            yield client
    finally:
        server.stop()


def log_of(directory: Path) -> Path:
    (found,) = directory.glob("appendonlydir/*.incr.aof")
    return found


@pytest.mark.parametrize(
    "torn",
    [b"\0" * 100, b"\0" * (2 * PIECE_BYTES + 1), b"*3\r\n$3\r\nSET\r\n$1\r\nc\r\n$5\r\n\0\0", b""],
    ids=["zeros", "many zeros", "half a command, then zeros", "nothing"],
)
def test_what_was_synced_is_there_after_the_power_failed(tmp_path: Path, torn: bytes) -> None:
    with running(tmp_path) as client:
        client.set("a", b"\0" * 50)
        client.set("b", "b")
    whole = log_of(tmp_path).read_bytes()
    log_of(tmp_path).write_bytes(whole + torn)
    with running(tmp_path) as client:
        assert client.mget("a", "b", "c") == [b"\0" * 50, b"b", None]
    assert log_of(tmp_path).read_bytes() == whole
