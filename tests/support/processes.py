"""The processes of a running cluster by their parts, and what they use: for tests that kill, stop and measure them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.cluster import Cluster

ROLES = {
    "-m helenite.master": "master",
    "-m helenite.chunkserver": "chunkserver",
    "-m webdav --worker": "worker",
    "-m webdav": "gateway",
    "redis-server": "redis",
}
"""What stands in a command line, the more special first."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process uses."""

    role: str
    pid: int
    resident_bytes: int
    descriptors: int
    threads: int


def role_of(process: psutil.Process) -> str:
    command = " ".join(process.cmdline())
    return next((role for text, role in ROLES.items() if text in command), "supervisor")


def of_role(cluster: Cluster, role: str) -> list[psutil.Process]:
    """The running processes of one part, in the order of their data directories or listening addresses."""
    found: list[tuple[str, psutil.Process]] = []
    for process in cluster.processes():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if role_of(process) == role:
                found.append((_place(process), process))
    return [process for _, process in sorted(found, key=lambda item: item[0])]


def _place(process: psutil.Process) -> str:
    environment = process.environ()
    return environment.get("HELENITE_CHUNK_DIR") or environment.get("HELENITE_MASTER_LISTEN") or f"{process.pid:08}"


def data_directory(chunkserver: psutil.Process) -> Path:
    return Path(chunkserver.environ()["HELENITE_CHUNK_DIR"])


def usage(cluster: Cluster) -> list[Usage]:
    """Memory, descriptors and threads of every process."""
    found: list[Usage] = []
    for process in cluster.processes():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess), process.oneshot():
            role = role_of(process)
            found.append(Usage(role, process.pid, process.memory_info().rss, process.num_fds(), process.num_threads()))
    return found
