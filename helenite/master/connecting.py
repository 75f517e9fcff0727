"""Connections to Redis by URL: one server, or whichever server Redis Sentinel names at the moment.

Used by `store`, the only other module that imports redis, and by `dumping` and `audit`, which read and copy whole
spaces. A `redis+sentinel://` URL names sentinels and a service; each new connection asks them for the present master,
and a connection to a master that has been demoted ends. `fence` asks each sentinel by itself (SentinelProbe).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from helenite.core.errors import ConfigurationError, UnavailableError

__all__ = ["ResponseError", "SentinelProbe", "connect", "missing_password", "probe_sentinels", "redis_errors"]
CONNECT_S = 10.0
"""Patience with a connection, and with the pool when all its connections are in use."""
SENTINEL_S = 1.0
"""Patience with one sentinel; the others are asked next."""
FAILOVER_S = 4.0
"""Under Sentinel a server that says nothing for so long is given up: there may be another master by now."""
SENTINEL_PORT = 26379
_SENTINEL_URL = re.compile(
    r"(?P<scheme>rediss?)\+sentinel://((?P<user>[^:@/]*):(?P<password>[^@/]*)@)?"
    r"(?P<hosts>[^/@]+)/(?P<service>[^/?]+)(/(?P<db>\d+))?"
)
PASSWORD_WANTED = "it wants a password; put it into its URL: redis://:PASSWORD@HOST:PORT/DB"
FORM = "redis+sentinel://[user:password@]host:port,host:port/service/db"


@contextmanager
def redis_errors() -> Iterator[None]:
    """UnavailableError instead of what the client library raises, for who works on a Redis without a Store."""
    try:
        yield
    except RedisError as error:
        raise UnavailableError(f"Redis does not do what is asked: {missing_password(error) or error}") from error


def missing_password(error: RedisError) -> str:
    """What to do when Redis wants a password and got none, else nothing."""
    text = str(error)
    return PASSWORD_WANTED if "NOAUTH" in text or "unauthenticated" in text or "Authentication req" in text else ""


def connect(url: str, timeout_s: float, connections: int, begin: Callable[[Any], None]) -> Any:
    """A client without retries of its own: they know nothing of operation ids. Any, as redis-py is typed in part.

    `begin` is the first to use each new connection. ConfigurationError when the URL is none.
    """
    options: dict[str, Any] = {
        "protocol": 2,
        "socket_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "redis_connect_func": begin,
    }
    if not url.startswith("unix:"):
        options |= {"socket_connect_timeout": CONNECT_S, "socket_keepalive": True}
    if "+sentinel:" in url:
        return redis.Redis.from_pool(_sentinel_pool(url, connections, options))
    try:
        pool = redis.BlockingConnectionPool.from_url(url, max_connections=connections, timeout=CONNECT_S, **options)
    except ValueError as error:
        raise ConfigurationError(f"HELENITE_REDIS_URL: {error}") from None
    return redis.Redis.from_pool(pool)


class SentinelProbe:
    """One of the sentinels that a URL names, asked again and again; for one thread."""

    def __init__(self, host: str, port: int, service: str) -> None:
        self.address = f"{host}:{port}"
        self._service = service
        self._client: Any = redis.Redis(host=host, port=port, protocol=2, **_asking())

    def named_master(self) -> str:
        """The run id of the Redis that it takes for the master and sees; empty when there is none, or no answer.

        Not the address: the run id tells one process from all others, whatever names and proxies lead to it.
        """
        try:
            reply = self._client.execute_command("SENTINEL", "MASTER", self._service)
        except (RedisError, OSError):
            return ""
        told = dict(zip(reply[::2], reply[1::2], strict=True))
        is_seen = told.get(b"flags") == b"master"  # alone: not s_down, not disconnected, not in a failover
        return str(told.get(b"runid", b"").decode()) if is_seen else ""

    def close(self) -> None:
        self._client.close()


def probe_sentinels(url: str) -> tuple[SentinelProbe, ...]:
    """All sentinels that the URL names; none when it names a Redis."""
    if "+sentinel:" not in url:
        return ()
    match = _parse_sentinel_url(url)
    return tuple(SentinelProbe(*_address(item), match["service"]) for item in match["hosts"].split(","))


def _parse_sentinel_url(url: str) -> re.Match[str]:
    match = _SENTINEL_URL.fullmatch(url)
    if match is None:
        raise ConfigurationError(f"HELENITE_REDIS_URL is not of the form {FORM}")
    return match


def _asking() -> dict[str, Any]:
    return {"socket_timeout": SENTINEL_S, "socket_connect_timeout": SENTINEL_S, "retry": Retry(NoBackoff(), 0)}


def _sentinel_pool(url: str, connections: int, options: dict[str, Any]) -> Any:
    match = _parse_sentinel_url(url)
    sentinels = [_address(item) for item in match["hosts"].split(",")]
    options |= {"socket_connect_timeout": FAILOVER_S, "db": int(match["db"] or 0), "ssl": match["scheme"] == "rediss"}
    if match["password"]:
        options |= {"username": unquote(match["user"]) or None, "password": unquote(match["password"])}
    manager = Sentinel(sentinels, sentinel_kwargs=_asking())  # type: ignore[no-untyped-call]
    return SentinelConnectionPool(match["service"], manager, max_connections=connections, **options)  # type: ignore[no-untyped-call]


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host:
        return text, SENTINEL_PORT
    if not port.isdigit():
        raise ConfigurationError(f"HELENITE_REDIS_URL: {text!r} is not HOST:PORT; it should read {FORM}")
    return host.strip("[]"), int(port)
