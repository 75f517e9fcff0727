"""Redis in trouble: restarted, full, gone, killed in the middle of writes."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helenite.cli.embedded_redis import EmbeddedRedis
from helenite.core import errors
from helenite.core.errors import HeleniteError
from helenite.core.model import Sequence
from helenite.master.mutations import EmptyTrash, MakeDirectory, Mutation
from helenite.master.namespace import Namespace
from helenite.master.store import Store
from tests.support.entries import at, copy, fresh_commit, mkdir, put, remove
from tests.support.redis import open_namespace, running_redis
from tests.support.redis_audit import audit
from tests.support.waiting import wait_until


def test_forgotten_scripts_are_loaded_again(namespace: Namespace) -> None:
    namespace._store._client.script_flush()
    mkdir(namespace, "/a")
    namespace._store._client.script_flush()
    batch: list[tuple[bytes, Mutation]] = [
        (secrets.token_bytes(16), fresh_commit(namespace, f"/a/{i}")) for i in range(10)
    ]
    namespace._store._client.script_flush()
    assert not [result for result in namespace.mutate(batch) if isinstance(result, HeleniteError)]


def test_a_restart_costs_no_error(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    server.start()
    try:
        with open_namespace(server.url, "main") as namespace:
            with ThreadPoolExecutor(16) as pool:
                list(pool.map(lambda i: put(namespace, f"/f{i}"), range(100)))
            server.stop()
            with pytest.raises(errors.UnavailableError):
                put(namespace, "/g")
            server.start()
            with ThreadPoolExecutor(16) as pool:
                list(pool.map(lambda i: put(namespace, f"/g{i}"), range(100)))
            assert namespace.usage().file_count == 200
    finally:
        server.stop()


def test_an_answer_that_comes_too_late_is_nobody_elses() -> None:
    with running_redis() as server:
        with open_namespace(server.url, "main") as patient:
            mkdir(patient, "/a")
            mkdir(patient, "/b")
        namespace = Namespace(Store(server.url, "main", timeout_s=1.0), trash_s=60)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(errors.DeadlineExceededError):
                namespace.lookup(at("/a"))
            operation = secrets.token_bytes(16)
            with pytest.raises(errors.DeadlineExceededError):
                namespace.mutate([(operation, MakeDirectory(at("/c")))])
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert namespace.lookup(at("/b")).name == "b"
        (outcome,) = namespace.mutate([(operation, MakeDirectory(at("/c")))])
        assert not isinstance(outcome, HeleniteError), "it was done, and its repeat says so"
        namespace.close()


def test_closing_ends_those_who_wait(redis_url: str) -> None:
    with open_namespace(redis_url) as namespace, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(namespace.read_feed, Sequence(0), 10, 60.0)
        wait_until(lambda: namespace._store._client.info("clients")["blocked_clients"])
        namespace.close()
        with pytest.raises(errors.UnavailableError):
            waiting.result(timeout=5)


def test_no_redis_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(errors.UnavailableError, match="does not answer"):
        Store(f"unix://{tmp_path}/none.sock", "main")
    for url in ("http://h/", "none"):
        with pytest.raises(errors.ConfigurationError):
            Store(url, "main")
    with pytest.raises(errors.ConfigurationError):
        Store("unix:///x", "a space")


def test_without_a_descriptor_for_a_connection_redis_is_unavailable(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """redis-py lets such an error through; a loop that does not know it would end the master."""

    def no_descriptor(*_: object) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(namespace._store._client, "execute_command", no_descriptor)
    with pytest.raises(errors.UnavailableError, match="too many open files"):
        namespace.leader_id()


def test_a_full_redis_refuses_writes_but_reads_and_deletes() -> None:
    with running_redis() as server, open_namespace(server.url) as namespace:
        mkdir(namespace, "/d")
        put(namespace, "/d/f")
        put(namespace, "/g")
        _, epoch = namespace.acquire_leadership("m", 60_000)
        commit = fresh_commit(namespace, "/h")
        before = namespace.last_sequence()
        namespace._store._client.config_set("maxmemory", "1")
        with pytest.raises(errors.InsufficientStorageError, match="full"):
            namespace.apply(commit)
        with pytest.raises(errors.InsufficientStorageError):
            mkdir(namespace, "/x")
        with pytest.raises(errors.InsufficientStorageError):
            copy(namespace, "/d", "/x")
        assert namespace.last_sequence() == before
        assert namespace.lookup(at("/d/f")).entry.size_bytes == 100
        assert namespace.acquire_leadership("m", 60_000) == (True, epoch)
        remove(namespace, "/d")
        remove(namespace, "/g")
        namespace.apply(EmptyTrash())
        while namespace.collect_garbage(epoch, trash_s=0, grace_s=0):
            audit(namespace._store)
        assert namespace._store.command("HLEN", "d:2") == 0
        namespace._store._client.config_set("maxmemory", "0")
        namespace.apply(commit)
        audit(namespace._store)


def test_nothing_acknowledged_is_lost_when_redis_is_killed(tmp_path: Path) -> None:
    """Writers and a collector at work, Redis killed three times: the books are right, acknowledged files are there."""
    server = EmbeddedRedis(tmp_path)
    server.start()
    try:
        with open_namespace(server.url, "main") as namespace:
            acknowledged: set[str] = set()
            for kill in range(3):
                _run_until_killed(server, namespace, acknowledged, f"{kill}")
                server.stop()
                server.start()
                audit(namespace._store)
                assert acknowledged <= {stored.name for stored in namespace.list_directory(()).entries}
    finally:
        server.stop()


def _run_until_killed(server: EmbeddedRedis, namespace: Namespace, acknowledged: set[str], name: str) -> None:
    _, epoch = namespace.acquire_leadership("m", 600_000)
    enough = threading.Event()

    def write(writer: int) -> None:
        with contextlib.suppress(errors.UnavailableError):
            for i in itertools.count():
                put(namespace, f"/{name}-{writer}-{i}", 2)
                acknowledged.add(f"{name}-{writer}-{i}")
                put(namespace, f"/{name}-{writer}-{i}", 1)
                if i == 40:
                    enough.set()

    def collect() -> None:
        with contextlib.suppress(errors.UnavailableError):
            while True:
                namespace.collect_garbage(epoch, trash_s=0, grace_s=0)

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(collect), *(pool.submit(write, writer) for writer in range(3))]
        assert enough.wait(60)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        for future in running:
            future.result(60)
