"""`helenite up`: a whole cluster on this machine, in the foreground, with one command."""

from __future__ import annotations

import errno
import logging
import os
import random
import socket
import sys
import threading
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from helenite.cli.cluster_dir import DEFAULT_DIR, ClusterDir, ClusterInfo
from helenite.cli.embedded_redis import EmbeddedRedis
from helenite.cli.supervisor import Program, Supervisor
from helenite.config import environment
from helenite.core.errors import ConfigurationError, UnavailableError
from helenite.core.process import start_logging, stop_event_on_signals

log = logging.getLogger(__name__)

READY_S = 120.0
"""Patience with a start; Redis may have much to load before."""
CHECK_S = 0.25
RESTART_S = 2.0
PORTS = range(20_000, 32_768)
"""Below those of outgoing connections on every system."""
PORT_ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class UpPlan:
    """What to run."""

    directory: Path
    host: str
    port: int
    chunkservers: int
    masters: int
    replicas: int
    workers: int
    is_durable: bool
    tls_cert: str
    tls_key: str


def up(
    directory: Annotated[Path, typer.Option("--dir", envvar="HELENITE_DIR", help="Where all data lies.")] = DEFAULT_DIR,
    host: Annotated[str, typer.Option(help="Address to serve on; other than loopback needs users.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port of the drive; 0 = any free one.")] = 8080,
    chunkservers: Annotated[int, typer.Option(min=1, max=64, help="Chunkservers to run.")] = 3,
    masters: Annotated[int, typer.Option(min=1, max=8, help="Masters to run.")] = 1,
    replicas: Annotated[int, typer.Option(min=1, max=7, help="Copies of each chunk.")] = 3,
    workers: Annotated[int, typer.Option(min=0, max=64, help="Gateway processes; 0 = one for each core.")] = 0,
    relaxed: Annotated[
        bool, typer.Option("--relaxed", help="Acknowledge before fsync: faster, a power cut loses.")
    ] = False,
    tls_cert: Annotated[str, typer.Option("--tls-cert", help="Certificate chain, PEM.")] = "",
    tls_key: Annotated[str, typer.Option("--tls-key", help="Private key, PEM.")] = "",
) -> None:
    """Run everything in the foreground until Ctrl-C; the same --dir again resumes with everything."""
    port = port or _free_ports(host, 1)[0]
    plan = UpPlan(
        directory, host, port, chunkservers, masters, replicas, workers,
        not relaxed, tls_cert, tls_key,
    )  # fmt: skip
    start_logging("warning")
    run(plan, stop_event_on_signals())


def run(plan: UpPlan, stopping: threading.Event) -> None:
    """Start everything, say so once requests succeed, supervise until `stopping` is set, stop in order."""
    place = ClusterDir(plan.directory)
    place.create()
    inherited = environment()
    with place.lock():
        redis = None
        supervisor = Supervisor()
        try:
            redis_url = inherited.get("HELENITE_REDIS_URL", "")
            if not redis_url:
                redis = EmbeddedRedis(place.redis, durable=plan.is_durable)
                redis.start()
                redis_url = redis.url
            master_addresses = tuple(
                f"127.0.0.1:{port}" for port in _free_ports("127.0.0.1", plan.masters, but_not=plan.port)
            )
            children = inherited | shared_environment(plan, master_addresses, redis_url)
            supervisor.start(*master_programs(place, master_addresses, children))
            supervisor.start(*chunkserver_programs(place, plan, children))
            supervisor.start(gateway_program(place, plan, children))
            if supervisor.wait_ready(READY_S, stopping):
                place.save_info(ClusterInfo(os.getpid(), master_addresses, _url(plan)))
                if missing := supervisor.waiting_for():
                    log.warning("started without %s", missing)
                print(f"Helenite is ready: {_url(plan)}", flush=True)
                _supervise(supervisor, redis, stopping)
        finally:
            place.forget_info()
            supervisor.stop()
            if redis is not None:
                redis.stop()


def _supervise(supervisor: Supervisor, redis: EmbeddedRedis | None, stopping: threading.Event) -> None:
    while not stopping.wait(CHECK_S):
        supervisor.check()
        if redis is not None and redis.poll() is not None:
            restart(redis, stopping)


def restart(redis: EmbeddedRedis, stopping: threading.Event) -> None:
    """Start Redis again; one that cannot (a full disk, say) is tried again later: reads of content need no Redis."""
    log.warning("Redis has ended and is started again")
    try:
        redis.start()
    except UnavailableError as error:
        log.warning("%s", error)
        stopping.wait(RESTART_S)


def shared_environment(plan: UpPlan, masters: tuple[str, ...], redis_url: str) -> dict[str, str]:
    """Settings that every child gets."""
    settings = {
        "HELENITE_REDIS_URL": redis_url,
        "HELENITE_MASTERS": ",".join(masters),
        "HELENITE_REPLICAS": str(plan.replicas),
        "HELENITE_DURABLE": "1" if plan.is_durable else "0",
    }
    if plan.replicas < 2:
        settings["HELENITE_MIN_REPLICAS"] = "1"
    return settings


def master_programs(place: ClusterDir, masters: tuple[str, ...], inherited: dict[str, str]) -> list[Program]:
    return [
        Program(name, _module("helenite.master"), inherited | {"HELENITE_MASTER_LISTEN": address}, place.log(name))
        for name, address in ((f"master-{number}", address) for number, address in enumerate(masters, 1))
    ]


def chunkserver_programs(place: ClusterDir, plan: UpPlan, inherited: dict[str, str]) -> list[Program]:
    """Each gets a host name of its own: on one machine placement must still use all of them."""
    return [
        Program(
            f"chunkserver-{number}",
            _module("helenite.chunkserver"),
            inherited | {"HELENITE_CHUNK_DIR": str(place.chunkserver(number))},
            place.log(f"chunkserver-{number}"),
            is_replaceable=True,
        )
        for number in range(1, plan.chunkservers + 1)
    ]


def gateway_program(place: ClusterDir, plan: UpPlan, inherited: dict[str, str]) -> Program:
    settings = {
        "HELENITE_WEBDAV_LISTEN": f"{plan.host}:{plan.port}",
        "HELENITE_WEBDAV_WORKERS": str(plan.workers),
        "HELENITE_TLS_CERT": plan.tls_cert,
        "HELENITE_TLS_KEY": plan.tls_key,
    }
    return Program("gateway", _module("webdav"), inherited | settings, place.log("gateway"))


def _module(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", name)


def _url(plan: UpPlan) -> str:
    host = f"[{plan.host}]" if ":" in plan.host else plan.host
    return f"{'https' if plan.tls_cert else 'http'}://{host}:{plan.port}/"


def _free_ports(host: str, count: int, but_not: int = 0) -> list[int]:
    """Ports that nobody uses. None that the system gives to outgoing connections: it could be gone in a moment."""
    tried = random.Random().sample(PORTS, PORT_ATTEMPTS)
    found = list(islice((port for port in tried if port != but_not and _is_free(host, port)), count))
    if len(found) < count:
        raise ConfigurationError(f"no free port was found on {host}; name one with --port")
    return found


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise ConfigurationError(f"cannot listen on {host}: {error.strerror}") from None
    return True
