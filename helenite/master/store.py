"""The door to Redis: connections, scripts, pipelines, and Redis' troubles as errors of ours.

With `connecting` the master's only import of redis. `namespace` uses it and knows neither connections nor scripts.
Thread-safe: each call takes a connection of the pool. Whatever is asked may be asked again, since mutations carry an
operation id: a call whose connection broke (Redis was restarted) is repeated on a new one.

The key space. Every key begins with `{space}:`. Records: core/record.py. "msgpack" values are maps.

    cluster              hash: id, capability_key, created_at_ms
    d:<directory id>     hash: name -> record; d:0 holds the root's record (id 1) under the empty name
    q                    hash: directory id -> 4 x u64: highest sequence, files, directories and bytes beneath it
    e:<id>:<revision>    string: extents of a file that has more than fit into its record
    x:<id>               hash: dead properties, `{namespace}name` -> XML element
    seq, next_id, next_handle, last_server    counters: feed, entries, chunks, chunkservers
    life                 string: the Redis process that was here last; another one makes the first three leap
    lives                zset: "end:start" of handles from end up to before start, never given out -> start
    r                    hash: chunk handle -> count of extents that name it; absent = 1
    c:<handle / 128>     hash: handle % 128 -> replicas, packed u16 ids of chunkservers
    feed                 stream: <sequence>-0 -> c = msgpack [verb, path, source, id, kind, directory ids, replaced?]
    feed_gaps            zset: "last:first" of sequences after last and before first, never given out -> first
    loading              string: while a dump is being loaded; no master starts or leads meanwhile
    op:<operation id>    string: msgpack outcome of a mutation, for two minutes
    locks                hash: token -> msgpack lock with its entry's id and the ids above it
    l:<id>               set: tokens of an entry's own locks
    b:<directory id>     set: tokens of the locks on the directory and beneath it
    trash, trash_at      hash: sequence of the removal -> msgpack item; the same sequences in order
    trash_floor          items up to this sequence were emptied
    staging              hash: id of a directory that is being copied -> time of the last progress
    gc, gc_dirs          lists: records whose content is to be released; directories to take apart
    gc_cursor            string: how far the first of gc_dirs has been scanned
    freed                zset: chunk without references -> since when
    del:<server id>      set: chunks that left the table, to be deleted on this chunkserver
    surplus:<server id>  set: chunks that stay, of which this chunkserver is to delete its replica
    mended               string: msgpack id and batch of the last repair of the books, mends = how many batches ever
    handle_samples       zset: last handle given out at some moment of the last day -> when
    orphan_floor         string: chunks up to this handle that no record names are orphans; none is committed
    lives_checked        string: where the newest gap of `lives` ended when all chunkservers had reported
    gc_stopped           string: msgpack since_ms, reason; while it stands, nothing is deleted
    gc_waits             string: why deletions wait just now (the fence), for some seconds
    gc_accepted          string: unknown chunks up to this handle are orphans: a person said so
    progress             string: msgpack progress of the leader's repair and rebalancing, for some seconds
    leader, epoch        the leader's lease; its fencing number
    servers, members, users    hashes: id or name -> msgpack
    draining             set: chunkservers that are to be emptied
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgpack
from redis import exceptions

from helenite.core.errors import (
    ConfigurationError,
    DeadlineExceededError,
    HeleniteError,
    InsufficientStorageError,
    UnavailableError,
    error_from_code,
)
from helenite.master.connecting import FAILOVER_S, connect, missing_password
from helenite.master.dumping import snapshot

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0
"""No script takes a tenth of this; a Redis that does is as good as gone."""
CONNECTIONS_MAX = 320
"""More than a master has threads: gRPC's, those of the call port, its loops. They are made when they are needed."""
WATCHERS_MAX = 256
"""Connections that wait for the feed."""
WATCH_S_MAX = 60.0
ATTEMPTS = 3
"""Of one call whose connection breaks: a restart of Redis breaks all idle connections, and some calls meet two."""
WAIT_S = 1.0
"""Patience with replicas of Redis, where they are waited for."""
WITNESS_S = 0.25
"""The same where a heartbeat's reply is held up by it: a healthy replica takes a millisecond."""
_SCRIPTS = Path(__file__).parent / "scripts"
_PRELUDES = re.compile(r"-- prelude: ([a-z ]+)\n")
_T = TypeVar("_T")

Call = tuple[str, dict[str, Any]]
"""A script's name and its request."""


class Store:
    """One space in one Redis."""

    def __init__(
        self, url: str, space: str, *, timeout_s: float = TIMEOUT_S, wait_replicas: int = 0, wait_s: float = WAIT_S
    ) -> None:
        """Connect and load the scripts; UnavailableError when Redis does not answer yet.

        With `wait_replicas` a mutation is acknowledged only when so many replicas of Redis have it.
        """
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", space):
            raise ConfigurationError(f"HELENITE_SPACE {space!r} may consist of letters, digits and _ . - only")
        self.space = space
        self.prefix = f"{{{space}}}:"
        self._sources = {
            path.stem: _assemble(path) for path in _SCRIPTS.glob("*.lua") if not path.stem.startswith("prelude_")
        }
        self._hashes: dict[str, str] = {}
        if "+sentinel:" in url:
            timeout_s = min(timeout_s, FAILOVER_S)
        self._wait_replicas = wait_replicas
        self._wait_s = wait_s
        self._client = connect(url, timeout_s, CONNECTIONS_MAX, self._begin)
        self._watcher = connect(url, WATCH_S_MAX + timeout_s, WATCHERS_MAX, self._begin)
        self._is_closed = False
        self._guard(self._load_scripts)

    def close(self) -> None:
        """Drop all connections; whoever waits for an answer or for the feed gets UnavailableError at once."""
        self._is_closed = True
        self._client.close()
        self._watcher.close()

    def run(self, script: str, request: dict[str, Any], *, is_mutation: bool = False) -> list[Any]:
        """Run one script: its results, or the error that it answered."""
        result = self.run_all([(script, request)], is_mutation=is_mutation)[0]
        if isinstance(result, HeleniteError):
            raise result
        return result

    def run_all(self, calls: Sequence[Call], *, is_mutation: bool = False) -> list[list[Any] | HeleniteError]:
        """Run scripts in order in one round trip, each on its own: results or errors, one for each call.

        UnavailableError when a mutation has not reached enough replicas in time: it has happened, and asking again
        waits again.
        """
        packed = [(script, msgpack.packb(request, use_bin_type=False)) for script, request in calls]
        replicas = self._wait_replicas if is_mutation else 0
        replies = self._guard(lambda: self._execute(packed, replicas))
        if any(isinstance(reply, exceptions.NoScriptError) for reply in replies):
            self._guard(self._load_scripts)
            missing = [i for i, reply in enumerate(replies) if isinstance(reply, exceptions.NoScriptError)]
            again = self._guard(lambda: self._execute([packed[i] for i in missing], replicas))
            for i, reply in zip(missing, again, strict=True):
                replies[i] = reply
        return [_result(reply) for reply in replies]

    def run_witnessed(self, script: str, request: dict[str, Any]) -> tuple[list[Any], bool]:
        """Run one script: its results, and whether replicas have all that it wrote, and with that all from before.

        One replica at least, or as many as mutations wait for. They are asked only when the first result is not empty.
        """
        packed = msgpack.packb(request, use_bin_type=False)
        return self._guard(lambda: self._run_witnessed(script, packed))

    def command(self, name: str, key: str, *arguments: Any) -> Any:
        """A single command on one key of the space."""
        return self._guard(lambda: self._client.execute_command(name, self.prefix + key, *arguments))

    def wait_for_change(self, after: int, wait_s: float) -> None:
        """Return when the feed has something after a sequence, or when the time is over."""
        milliseconds = int(min(wait_s, WATCH_S_MAX) * 1000)
        if milliseconds > 0:
            streams: Any = {self.prefix + "feed": f"{after}-0"}
            self._guard(lambda: self._watcher.xread(streams, count=1, block=milliseconds))

    def snapshot(self) -> Iterator[bytes]:
        """All data of this Redis as of one moment, in its own format (RDB), while everything goes on."""
        connection = self._guard(self._client.connection_pool.make_connection)
        try:
            self._guard(connection.connect)
            # The socket itself, which redis-py has authenticated and perhaps encrypted: a snapshot is no reply.
            yield from snapshot(connection._sock)  # noqa: SLF001
        except OSError as error:
            raise UnavailableError(f"Redis' snapshot broke off: {error}") from error
        finally:
            connection.disconnect()

    def version(self) -> str:
        """Of the Redis server."""
        return str(self._guard(lambda: self._client.info("server"))["redis_version"])

    def _execute(self, packed: list[tuple[str, bytes]], replicas: int) -> list[Any]:
        if len(packed) == 1 and replicas == 0:
            script, request = packed[0]
            try:
                return [self._client.execute_command("EVALSHA", self._hashes[script], 1, self.prefix, request)]
            except exceptions.ResponseError as error:
                return [error]
        pipeline = self._client.pipeline(transaction=False)
        for script, request in packed:
            pipeline.execute_command("EVALSHA", self._hashes[script], 1, self.prefix, request)
        if replicas:
            pipeline.execute_command("WAIT", replicas, int(self._wait_s * 1000))
        replies: list[Any] = pipeline.execute(raise_on_error=False)
        if replicas:
            _require_replicas(replies.pop(), replicas)
        return replies

    def _run_witnessed(self, script: str, packed: bytes) -> tuple[list[Any], bool]:
        client = self._client.client()  # one connection for both: WAIT speaks of what was written on it
        try:
            try:
                reply = client.execute_command("EVALSHA", self._hashes[script], 1, self.prefix, packed)
            except exceptions.NoScriptError:
                reply = client.execute_command("EVAL", self._sources[script], 1, self.prefix, packed)
            results = _result(reply)
            if isinstance(results, HeleniteError):
                raise results
            wanted = max(1, self._wait_replicas)
            is_witnessed = not results[0] or client.execute_command("WAIT", wanted, int(WITNESS_S * 1000)) >= wanted
            return results, bool(is_witnessed)
        finally:
            client.close()

    def _begin(self, connection: Any) -> None:
        """The first thing on each new connection: see that a Redis which lost its newest writes repeats no number."""
        connection.on_connect()
        request = msgpack.packb({"random": secrets.randbits(48)})
        connection.send_command("EVAL", self._sources["begin_life"], 1, self.prefix, request)
        _, has_leapt = connection.read_response()
        if has_leapt:
            log.warning("another Redis process answers than before: counters leap, as its newest writes may be missing")

    def _load_scripts(self) -> None:
        for name, source in self._sources.items():
            self._hashes[name] = self._client.script_load(source)

    def _guard(self, call: Callable[[], _T]) -> _T:
        """Repeat a call when its connection broke, and translate what cannot be helped."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return call()
            except exceptions.RedisError as error:
                is_broken = isinstance(error, exceptions.ConnectionError)
                is_loading = isinstance(error, exceptions.BusyLoadingError)
                if attempt == ATTEMPTS or self._is_closed or is_loading or not is_broken:
                    raise _translate(error) from error
                log.info("the connection to Redis broke and is made anew: %s", error)
            except OSError as error:  # redis-py reads its own version from a file, and no descriptor may be left
                raise UnavailableError(f"no connection to Redis can be made: {error}") from error
        raise AssertionError("the last attempt returns or raises")


def _require_replicas(reply: Any, wanted: int) -> None:
    if isinstance(reply, exceptions.RedisError):
        raise reply
    if reply < wanted:
        raise exceptions.ConnectionError(f"NOREPLICAS only {reply} of {wanted} replicas of Redis have the change")


def _assemble(path: Path) -> str:
    """A script with the preludes that its first line names."""
    source = path.read_text()
    names = _PRELUDES.match(source)
    assert names is not None, f"{path.name} names no prelude"
    preludes = [(_SCRIPTS / f"prelude_{name}.lua").read_text() for name in names[1].split()]
    return "\n".join([*preludes, source])


def _result(reply: Any) -> list[Any] | HeleniteError:
    """A script's answer without its leading status, or what went wrong."""
    if isinstance(reply, exceptions.RedisError):
        return _translate(reply)
    code, *results = reply
    return error_from_code(code.decode(), results[0].decode(errors="replace")) if code else results


def _translate(error: exceptions.RedisError) -> HeleniteError:
    text, advice = str(error), missing_password(error)
    if isinstance(error, exceptions.OutOfMemoryError) or "OOM " in text:
        return InsufficientStorageError("the metadata store is full: delete something, or raise Redis' maxmemory")
    if isinstance(error, exceptions.TimeoutError):
        return DeadlineExceededError(f"the metadata store did not answer in time: {text}")
    if isinstance(error, exceptions.ReadOnlyError | exceptions.ClusterDownError | exceptions.MasterDownError):
        return UnavailableError(f"Redis is failing over: {text}")
    if (
        isinstance(error, exceptions.ResponseError)
        and not advice
        and not text.startswith(("MISCONF", "READONLY", "MASTERDOWN", "BUSY", "NOREPLICAS"))
    ):
        log.error("Redis refused a command: %s", text)
        return HeleniteError(f"the metadata store failed: {text}")
    return UnavailableError(f"the metadata store does not answer: {advice or text}")
