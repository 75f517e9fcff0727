"""Another Redis process may have lost its newest writes: no id, handle or sequence is given out twice."""

from __future__ import annotations

import shutil
from pathlib import Path

from helenite.cli.embedded_redis import EmbeddedRedis
from helenite.core.model import ChunkHandle
from helenite.master.namespace import Namespace
from tests.support.entries import at, mkdir, put
from tests.support.redis import open_namespace
from tests.support.redis_audit import audit

COUNTERS = ("next_handle", "next_id", "seq")


def counters(namespace: Namespace) -> dict[str, int]:
    return {name: int(namespace._store.command("GET", name)) for name in COUNTERS}


def gaps(namespace: Namespace) -> list[tuple[int, int]]:
    found = namespace._store.command("ZRANGE", "lives", 0, -1)
    return [(int(end), int(start)) for end, start in (member.split(b":") for member in found)]


def table(namespace: Namespace) -> tuple[set[ChunkHandle], int]:
    """All handles of the chunk table and the number of pages that it took."""
    handles: set[ChunkHandle] = set()
    cursor = pages = 0
    while True:
        page, cursor = namespace.scan_chunks(cursor)
        handles.update(handle for handle, _ in page)
        pages += 1
        if cursor == 0:
            return handles, pages


def test_an_older_copy_repeats_no_number(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis")
    server.start()
    try:
        with open_namespace(server.url, "main") as namespace:
            put(namespace, "/old")
            server.stop()
            shutil.copytree(tmp_path / "redis", tmp_path / "copy")
            server.start()
            for i in range(50):
                put(namespace, f"/new{i}")
            before = counters(namespace)
            lost = table(namespace)[0]
            server.stop()
            shutil.rmtree(tmp_path / "redis")
            shutil.copytree(tmp_path / "copy", tmp_path / "redis")
            server.start()
            put(namespace, "/newer")
            after = counters(namespace)
            assert {entry.name for entry in namespace.list_directory(at("/")).entries} == {"newer", "old"}
            assert after["next_handle"] != before["next_handle"]
            fresh = table(namespace)[0]
            assert len(fresh) == 2
            assert len(fresh & lost) == 1, "only the old file's chunk is known from before"
            ((end, start),) = gaps(namespace)
            unknown = lost - fresh
            assert all(end <= handle < start or handle > after["next_handle"] for handle in unknown), "never given out"
            audit(namespace._store)
    finally:
        server.stop()


def test_restarts_leap_once_each_and_join_their_gaps(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    server.start()
    try:
        with open_namespace(server.url, "main") as namespace:
            put(namespace, "/a")
            first = counters(namespace)
            for _ in range(3):
                server.stop()
                server.start()
                mkdir(namespace, f"/d{namespace.last_sequence()}")
            assert len(gaps(namespace)) == 1, "no handle was given out in between"
            ((end, start),) = gaps(namespace)
            assert end == first["next_handle"] + 1
            assert start == counters(namespace)["next_handle"] + 1
            assert start % 128 == 0
            put(namespace, "/b")
            server.stop()
            server.start()
            put(namespace, "/c")
            assert len(gaps(namespace)) == 2
            now = counters(namespace)
            assert all(now[name] > first[name] + 4 * 2**28 for name in COUNTERS)
            handles, pages = table(namespace)
            assert (len(handles), pages) == (3, 1), "gaps are stepped over"
            audit(namespace._store)
    finally:
        server.stop()


def test_a_new_connection_to_the_same_process_leaps_nowhere(redis_url: str) -> None:
    with open_namespace(redis_url) as namespace:
        put(namespace, "/a")
        before = counters(namespace)
        namespace._store._client.connection_pool.disconnect()
        put(namespace, "/b")
        after = counters(namespace)
        assert after == {name: before[name] + 1 for name in COUNTERS}
        assert gaps(namespace) == []
