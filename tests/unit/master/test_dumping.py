"""Dumps out of one real Redis and into another: what is left behind, what is refused, what an interruption leaves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from helenite.cli.embedded_redis import EmbeddedRedis
from helenite.core.errors import HistoryLostError, PreconditionFailedError, UnavailableError
from helenite.core.model import Sequence
from helenite.master.dumping import Loader
from helenite.master.namespace import Namespace
from helenite.master.store import Store
from tests.support.dumps import opened, take
from tests.support.entries import at, mkdir, put
from tests.support.redis import open_namespace, running_redis


@contextmanager
def loader(source: EmbeddedRedis, target: str, space: str) -> Iterator[Loader]:
    made = Loader(source.url, target, space)
    try:
        yield made
    finally:
        made.close()


def names(namespace: Namespace) -> set[str]:
    return {entry.name for entry in namespace.list_directory(at("/")).entries}


def test_a_space_in_another_database_is_found(redis_url: str, tmp_path: Path) -> None:
    with open_namespace(redis_url.replace("db=0", "db=3"), "elsewhere") as namespace:
        put(namespace, "/a")
        take(namespace, tmp_path / "dump")
    with opened(tmp_path / "dump", tmp_path / "scratch") as source, running_redis() as target:
        with loader(source, target.url, "elsewhere") as loading:
            loading.prepare(replace=False)
            assert loading.load("because", lambda _: None) > 3
        with open_namespace(target.url, "elsewhere") as loaded:
            assert names(loaded) == {"a"}
        with pytest.raises(PreconditionFailedError, match="no namespace"):
            Loader(source.url, target.url, "another")


def test_deletions_ordered_before_the_dump_are_not_loaded(redis_url: str, tmp_path: Path) -> None:
    with open_namespace(redis_url, "deletions") as namespace:
        put(namespace, "/a")
        namespace._store.command("SADD", "del:1", 5)
        take(namespace, tmp_path / "dump")
    with opened(tmp_path / "dump", tmp_path / "scratch") as source, running_redis() as target:
        with loader(source, target.url, "deletions") as loading:
            loading.prepare(replace=False)
            loading.load("because", lambda _: None)
        with open_namespace(target.url, "deletions") as loaded:
            assert not loaded._store.command("EXISTS", "del:1")
            assert loaded._store.command("EXISTS", "gc_stopped")


def test_an_interrupted_load_keeps_masters_out_until_it_is_done_again(redis_url: str, tmp_path: Path) -> None:
    with open_namespace(redis_url, "interrupted") as namespace:
        put(namespace, "/a")
        take(namespace, tmp_path / "dump")
    with opened(tmp_path / "dump", tmp_path / "scratch") as source, running_redis() as target:
        with open_namespace(target.url, "interrupted") as old:
            old.acquire_leadership("someone", 100)
            epoch = old.acquire_leadership("someone", 100)[1]
            mkdir(old, "/old")
            with loader(source, target.url, "interrupted") as loading:
                with pytest.raises(PreconditionFailedError, match="--replace"):
                    loading.prepare(replace=False)
                loading.prepare(replace=True)
            with pytest.raises(UnavailableError, match="being loaded"):
                old.acquire_leadership("someone", 1000)
        store = Store(target.url, "interrupted")
        with pytest.raises(UnavailableError, match="being loaded"):
            Namespace(store, trash_s=0)
        store.close()
        with loader(source, target.url, "interrupted") as loading:
            loading.prepare(replace=False)
            loading.load("because", lambda _: None)
        with open_namespace(target.url, "interrupted") as loaded:
            assert names(loaded) == {"a"}
            assert loaded.acquire_leadership("another", 1000)[1] > epoch + 500


def test_masters_that_run_are_not_robbed(redis_url: str, tmp_path: Path) -> None:
    with open_namespace(redis_url, "running") as namespace:
        take(namespace, tmp_path / "dump")
        namespace.acquire_leadership("a master", 60_000)
        with (
            opened(tmp_path / "dump", tmp_path / "scratch") as source,
            loader(source, redis_url, "running") as loading,
            pytest.raises(PreconditionFailedError, match="stop all masters"),
        ):
            loading.prepare(replace=True)


def test_who_has_read_beyond_the_dump_scans_again(redis_url: str, tmp_path: Path) -> None:
    with open_namespace(redis_url, "feed") as namespace:
        put(namespace, "/a")
        kept = namespace.last_sequence()
        take(namespace, tmp_path / "dump")
        put(namespace, "/b")
        lost = namespace.last_sequence()
    with opened(tmp_path / "dump", tmp_path / "scratch") as source, running_redis() as target:
        with loader(source, target.url, "feed") as loading:
            loading.prepare(replace=False)
            loading.load("because", lambda _: None)
        with open_namespace(target.url, "feed") as loaded:
            now = loaded.last_sequence()
            put(loaded, "/c")
            with pytest.raises(HistoryLostError, match="lost"):
                loaded.read_feed(lost, 10)
            for token in (kept, Sequence(now), Sequence(0)):
                changes, _ = loaded.read_feed(token, 10)
                assert changes[-1].path == "/c"


@pytest.mark.parametrize("given", ["", ":wrong@"])
def test_a_redis_that_is_not_to_be_had_is_told_in_a_sentence(redis_url: str, tmp_path: Path, given: str) -> None:
    """A load is the worst moment for a traceback."""
    with open_namespace(redis_url, "passwords") as namespace:
        put(namespace, "/a")
        take(namespace, tmp_path / "dump")
    with opened(tmp_path / "dump", tmp_path / "scratch") as source, running_redis() as target:
        with redis.Redis.from_url(target.url) as admin:
            admin.config_set("requirepass", "right")
            asked = target.url.replace("unix://", f"unix://{given}")
            with loader(source, asked, "passwords") as loading, pytest.raises(UnavailableError, match="password"):
                loading.prepare(replace=False)
            with pytest.raises(UnavailableError, match="password"):
                Store(asked, "passwords")
            admin.config_set("requirepass", "")
        target.stop()
        with loader(source, target.url, "passwords") as loading, pytest.raises(UnavailableError, match="Redis"):
            loading.prepare(replace=False)
        target.start()
