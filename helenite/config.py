"""Settings: one frozen dataclass for each process, read from `HELENITE_*` variables.

The only reader of the environment. `from_env(environ)` is handed `os.environ` by each `__main__`. `.env.example` lists
every variable; a test compares it with SETTINGS. Sizes accept suffixes (`64MiB`, `10G`), durations are in seconds.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from helenite.core.errors import ConfigurationError
from helenite.core.model import CHUNK_BYTES_MAX, DEFAULT_CHUNK_BYTES, MIB

GIB = 1024 * MIB
_UNITS = {"": 1, "k": 1024, "m": MIB, "g": GIB, "t": 1024 * GIB}
PORT_MAX = 65_535


def environment() -> dict[str, str]:
    """The process's environment, for those who hand it on to children or to `from_env`."""
    return dict(os.environ)


def parse_size(text: str) -> int:
    """Bytes from `123`, `64MiB`, `10G`."""
    match = re.fullmatch(r"(\d+)\s*([kmgt]?)(i?b)?", text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is no size (write 500MiB or 10G)")
    return int(match[1]) * _UNITS[match[2]]


def parse_seconds(text: str) -> float:
    """A duration, perhaps none; not "nan", which no clock ever reaches."""
    seconds = float(text)
    if not 0.0 <= seconds < math.inf:
        raise ValueError(f"{text!r} is no number of seconds")
    return seconds


def parse_bool(text: str) -> bool:
    if text.lower() not in {"0", "1", "true", "false", "yes", "no", "on", "off"}:
        raise ValueError(f"{text!r} is neither yes nor no")
    return text.lower() in {"1", "true", "yes", "on"}


def parse_list(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def parse_address(text: str) -> str:
    """Check `host:port`; an empty text is allowed where the setting is optional."""
    if text and not re.fullmatch(r".+:\d{1,5}", text):
        raise ValueError(f"{text!r} is not HOST:PORT")
    if text and int(text.rpartition(":")[2]) > PORT_MAX:
        raise ValueError(f"{text!r}: a port is {PORT_MAX} at most")
    return text


def parse_addresses(text: str) -> tuple[str, ...]:
    return tuple(map(parse_address, parse_list(text)))


def setting(variable: str, default: Any, parse: Callable[[str], Any] = str, help_text: str = "") -> Any:
    """A dataclass field that `from_env` reads from HELENITE_<variable>."""
    metadata = {"variable": f"HELENITE_{variable}", "parse": parse, "help": help_text}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """Base: reads its fields, then checks them."""

    log_level: str = setting("LOG_LEVEL", "info", str, "debug, info, warning or error")
    supervised: bool = setting("SUPERVISED", False, parse_bool, "set by `helenite up`: end when the supervisor is gone")
    ready_fd: int = setting("READY_FD", -1, int, "set by `helenite up`: descriptor to write to when ready")

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Read every setting; ConfigurationError names the variable that is wrong."""
        values: dict[str, Any] = {}
        for item in fields(cls):
            variable = item.metadata["variable"]
            text = environ.get(variable, "")
            if text == "":
                continue
            try:
                values[item.name] = item.metadata["parse"](text)
            except ValueError as error:
                raise ConfigurationError(f"{variable}: {error}") from None
        made = cls(**values)
        made.validate()
        return made

    def validate(self) -> None:
        """Refuse what cannot work together."""


def _masters() -> Any:
    return setting("MASTERS", ("127.0.0.1:7600",), parse_addresses, "masters, HOST:PORT separated by commas")


@dataclass(frozen=True)
class MasterSettings(Settings):
    """One master process."""

    redis_url: str = setting(
        "REDIS_URL", "redis://127.0.0.1:6379/0", str, "Redis with the namespace: redis://, unix:// or redis+sentinel://"
    )
    redis_wait: int = setting(
        "REDIS_WAIT", 0, int, "replicas of Redis that a change must reach before it is acknowledged"
    )
    redis_wait_s: float = setting("REDIS_WAIT_S", 1.0, parse_seconds, "how long they are waited for; then 503")
    space: str = setting("SPACE", "main", str, "name of the namespace inside Redis")
    listen: str = setting("MASTER_LISTEN", "127.0.0.1:7600", parse_address, "where the master serves gRPC")
    advertise: str = setting(
        "MASTER_ADVERTISE", "", parse_address, "address that others reach this master at (default: where it listens)"
    )
    replicas: int = setting("REPLICAS", 3, int, "copies of each chunk")
    min_replicas: int = setting(
        "MIN_REPLICAS", 2, int, "copies below which a write is refused (or all servers there are, if fewer)"
    )
    chunk_bytes: int = setting("CHUNK_BYTES", DEFAULT_CHUNK_BYTES, parse_size, "largest chunk, 1MiB to 64MiB")
    suspect_after_s: float = setting(
        "SUSPECT_AFTER_S", 10.0, parse_seconds, "silence after which a chunkserver gets no new chunks"
    )
    dead_after_s: float = setting(
        "DEAD_AFTER_S", 60.0, parse_seconds, "silence after which its chunks are copied elsewhere"
    )
    trash_s: int = setting("TRASH_S", 86_400, int, "how long deleted entries can be restored; 0 = not at all")
    gc_grace_s: int = setting("GC_GRACE_S", 600, int, "how long unreferenced chunks are kept")
    orphan_age_s: int = setting(
        "ORPHAN_AGE_S", 86_400, int, "how long chunks of unfinished uploads are kept; the longest upload"
    )
    report_s: float = setting("REPORT_S", 21_600.0, parse_seconds, "how often each chunkserver reports all its chunks")
    dump_s: float = setting(
        "DUMP_S", 3600.0, parse_seconds, "how often chunkservers keep a dump of the metadata; 0 = never"
    )
    threads: int = setting("MASTER_THREADS", 24, int, "requests served at once")
    call_port: bool = setting("CALL_PORT", True, parse_bool, "answer frequent requests on a second port, without gRPC")

    def validate(self) -> None:
        if not MIB <= self.chunk_bytes <= CHUNK_BYTES_MAX:
            raise ConfigurationError("HELENITE_CHUNK_BYTES must be from 1MiB to 64MiB")
        if not 1 <= self.min_replicas <= self.replicas <= 7:
            raise ConfigurationError("it must hold that 1 <= HELENITE_MIN_REPLICAS <= HELENITE_REPLICAS <= 7")


@dataclass(frozen=True)
class ChunkserverSettings(Settings):
    """One chunkserver process."""

    masters: tuple[str, ...] = _masters()
    data_dir: str = setting(
        "CHUNK_DIR", "", str, "directory of this chunkserver's data; one directory, one chunkserver"
    )
    listen: str = setting(
        "CHUNKSERVER_LISTEN", "127.0.0.1:0", parse_address, "where it serves control gRPC (port 0 = any)"
    )
    data_listen: str = setting(
        "DATA_LISTEN", "127.0.0.1:0", parse_address, "where its data port listens (port 0 = any)"
    )
    advertise_host: str = setting(
        "ADVERTISE_HOST", "", str, "host name that others reach it at (default: where it listens)"
    )
    data_socket: str = setting(
        "DATA_SOCKET", "", str, "unix socket of the data port (default: data.sock in the data directory)"
    )
    host: str = setting("HOST_NAME", "", str, "name that placement spreads replicas over (default: this machine's)")
    rack: str = setting("RACK", "", str, "rack, for placement")
    reserve_bytes: int = setting("RESERVE_BYTES", GIB, parse_size, "disk space that chunks never use")
    capacity_bytes: int = setting("CAPACITY_BYTES", 0, parse_size, "most that chunks may use; 0 = the whole disk")
    scrub_s: float = setting(
        "SCRUB_S", 604_800.0, parse_seconds, "every replica is read and checked once in so long; 0 = never"
    )
    scrub_bytes_per_s: int = setting("SCRUB_BYTES_PER_S", 32 * MIB, parse_size, "most that this reads a second")
    is_durable: bool = setting("DURABLE", True, parse_bool, "fsync before a write is acknowledged")
    dumps_kept: int = setting("DUMPS_KEPT", 24, int, "dumps of the metadata kept here; 0 = none")
    threads: int = setting("CHUNKSERVER_THREADS", 8, int, "control requests served at once")
    connections_max: int = setting("DATA_CONNECTIONS", 512, int, "data connections served at once")

    def validate(self) -> None:
        if not self.data_dir:
            raise ConfigurationError(
                "HELENITE_CHUNK_DIR is not set: name the directory that keeps this chunkserver's data"
            )
        if self.scrub_bytes_per_s < 1 or self.scrub_s < 0:
            raise ConfigurationError("HELENITE_SCRUB_BYTES_PER_S must be above 0, HELENITE_SCRUB_S 0 or above")


@dataclass(frozen=True)
class ClientSettings(Settings):
    """What every client of the cluster needs."""

    masters: tuple[str, ...] = _masters()
    deadline_s: float = setting(
        "DEADLINE_S", 30.0, parse_seconds, "how long one metadata request or one chunk may take in all"
    )


@dataclass(frozen=True)
class ApiSettings(ClientSettings):
    """The HTTP API (`python -m helenite.client`)."""

    listen: str = setting("API_LISTEN", "127.0.0.1:8081", parse_address, "where the HTTP API listens")


@dataclass(frozen=True)
class GatewaySettings(ClientSettings):
    """The WebDAV gateway: a parent and its workers."""

    listen: str = setting("WEBDAV_LISTEN", "127.0.0.1:8080", parse_address, "where the gateway listens")
    workers: int = setting("WEBDAV_WORKERS", 0, int, "worker processes on one port, 0 = one for each core")
    threads: int = setting("WEBDAV_THREADS", 32, int, "requests served at once by each worker")
    caches: bool = setting(
        "WEBDAV_CACHES", True, parse_bool, "remember look-ups and listings while nothing has changed that they show"
    )
    tls_cert: str = setting("TLS_CERT", "", str, "certificate chain, PEM")
    tls_key: str = setting("TLS_KEY", "", str, "private key, PEM")
    allowed_hosts: tuple[str, ...] = setting(
        "ALLOWED_HOSTS", (), parse_list, "further hosts that a Destination may name, * = any"
    )
    is_open: bool = setting("OPEN", False, parse_bool, "serve everyone without users, also beyond loopback")
    trust_s: float = setting(
        "WEBDAV_TRUST_S", 60.0, parse_seconds, "how long a verified password is trusted, and a removed user may go on"
    )
    idle_timeout_s: float = setting(
        "IDLE_TIMEOUT_S", 90.0, parse_seconds, "silence after which a connection or a stalled body is given up"
    )

    def validate(self) -> None:
        if self.workers < 0:
            raise ConfigurationError("HELENITE_WEBDAV_WORKERS must be 0 or above")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ConfigurationError("HELENITE_TLS_CERT and HELENITE_TLS_KEY belong together")


@dataclass(frozen=True)
class CliSettings(Settings):
    """The `helenite` command, where options do not say otherwise."""

    directory: str = setting("DIR", "", str, "data directory of a cluster that `helenite up` runs")
    masters: tuple[str, ...] = setting("MASTERS", (), parse_addresses, "masters, HOST:PORT separated by commas")
    deadline_s: float = setting(
        "DEADLINE_S", 30.0, parse_seconds, "how long one metadata request or one chunk may take in all"
    )


SETTINGS: tuple[type[Settings], ...] = (MasterSettings, ChunkserverSettings, GatewaySettings, ApiSettings)
