"""Redis under Sentinel: a failover costs seconds, doubles nothing, and what WAIT acknowledged is not lost."""

from __future__ import annotations

import secrets
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helenite.core.errors import ConfigurationError, HeleniteError, UnavailableError
from helenite.core.model import Entry
from helenite.master.connecting import FORM
from helenite.master.mutations import MakeDirectory
from helenite.master.namespace import Namespace
from helenite.master.store import Store
from tests.support.entries import at
from tests.support.redis_audit import audit
from tests.support.sentinels import Sentinels, running_sentinels
from tests.support.waiting import wait_until

PATIENCE_S = 40.0


def make_surely(namespace: Namespace, name: str) -> bool:
    """Make a directory as a client does, asking again with one operation id; whether it was created, once."""
    operation = secrets.token_bytes(16)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            (result,) = namespace.mutate([(operation, MakeDirectory(at(f"/{name}")))])
        except UnavailableError:
            if time.monotonic() > deadline:
                raise
            threading.Event().wait(0.1)
            continue
        assert not isinstance(result, HeleniteError), result
        return result.is_created


def write_across(namespace: Namespace, sentinels: Sentinels, how: signal.Signals) -> set[str]:
    """Directories acknowledged by eight writers while the master of the sentinels goes away."""
    made: set[str] = set()
    ending = threading.Event()

    def write(number: int) -> None:
        for i in range(100_000):
            if ending.is_set():
                return
            name = f"{number}-{i}"
            assert make_surely(namespace, name)
            made.add(name)

    with ThreadPoolExecutor(8) as pool:
        writers = [pool.submit(write, number) for number in range(8)]
        try:
            wait_until(lambda: len(made) > 200, 20)
            old = sentinels.master()
            sentinels.send(old, how)
            wait_until(lambda: sentinels.master() != old, 30)
            count = len(made)
            wait_until(lambda: len(made) > count + 200, PATIENCE_S)
        finally:
            ending.set()
        for writer in writers:
            writer.result()
    if how is signal.SIGSTOP:
        sentinels.send(old, signal.SIGCONT)
        wait_until(lambda: sentinels.replica_count() == 1, 40)
        assert make_surely(namespace, "after the old master came back as a replica")
    return made


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_with_wait_a_failover_loses_nothing_that_was_acknowledged(tmp_path: Path, how: signal.Signals) -> None:
    with running_sentinels(tmp_path) as sentinels:
        namespace = Namespace(Store(sentinels.url, "main", wait_replicas=1, wait_s=0.5), trash_s=0)
        try:
            # Without a replica nothing is acknowledged: it comes back, or the test brings a second one.
            made = _with_replica_afterwards(namespace, sentinels, how)
            names = {entry.name for entry in _all(namespace)}
            assert made <= names
            audit(namespace._store)
        finally:
            namespace.close()


def _with_replica_afterwards(namespace: Namespace, sentinels: Sentinels, how: signal.Signals) -> set[str]:
    """The new master has no replica until somebody starts one; WAIT holds all acknowledgements until then."""
    old = sentinels.master()
    bringing = threading.Thread(target=_bring_back, args=(sentinels, old, how))
    bringing.start()
    try:
        return write_across(namespace, sentinels, how)
    finally:
        bringing.join()


def _bring_back(sentinels: Sentinels, old: int, how: signal.Signals) -> None:
    wait_until(lambda: sentinels.master() != old, 60)
    if how is signal.SIGKILL:
        sentinels.start_server(old, None)
    else:
        sentinels.send(old, signal.SIGCONT)


def test_without_wait_service_is_back_and_nothing_is_doubled(tmp_path: Path) -> None:
    with running_sentinels(tmp_path) as sentinels:
        namespace = Namespace(Store(sentinels.url, "main"), trash_s=0)
        try:
            made = write_across(namespace, sentinels, signal.SIGKILL)
            names = [entry.name for entry in _all(namespace)]
            assert len(names) == len(set(names))
            lost = made - set(names)
            assert len(lost) <= 8 * 2, f"replication is asynchronous, but {len(lost)} is more than what was in flight"
            audit(namespace._store)
        finally:
            namespace.close()


def test_without_enough_replicas_a_change_is_not_acknowledged(tmp_path: Path) -> None:
    with running_sentinels(tmp_path) as sentinels:
        namespace = Namespace(Store(sentinels.url, "main", wait_replicas=1, wait_s=0.2), trash_s=0)
        try:
            assert make_surely(namespace, "a")
            replica = next(port for port in sentinels.servers if port != sentinels.master())
            sentinels.send(replica, signal.SIGSTOP)
            operation = secrets.token_bytes(16)
            for _ in range(2):  # the repeat must not pass for acknowledged either
                with pytest.raises(UnavailableError, match="replicas"):
                    namespace.mutate([(operation, MakeDirectory(at("/b")))])
            assert namespace.lookup(at("/a")).name == "a", "reads go on"
            sentinels.send(replica, signal.SIGCONT)
            wait_until(lambda: _is_acknowledged(namespace, operation), 20)
        finally:
            namespace.close()


def _is_acknowledged(namespace: Namespace, operation: bytes) -> bool:
    try:
        (result,) = namespace.mutate([(operation, MakeDirectory(at("/b")))])
    except UnavailableError:
        return False
    return not isinstance(result, HeleniteError) and result.is_created


def _all(namespace: Namespace) -> Iterator[Entry]:
    cursor = 0
    while True:
        page = namespace.list_directory((), cursor=cursor)
        yield from (stored.entry for stored in page.entries)
        cursor = page.cursor
        if cursor == 0:
            return


@pytest.mark.parametrize(
    "url",
    ["redis+sentinel://h", "redis+sentinel:///service", "redis+sentinel://h:x/service", "redis+sentinel://h/s/db/x"],
)
def test_a_url_that_is_none_is_told_with_its_form(url: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        Store(url, "main")
    assert FORM in str(error.value)
