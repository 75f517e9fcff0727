"""The two ways to keep a folder the same on two devices that are compared: our agents on a cluster, and Syncthing.

Used by `rows`. Each pair has two folders, `near` where the benchmark writes and `far` where it waits, and ends, by
process id, everything that it started. Syncthing runs as it comes, but for what keeps it on this machine (no discovery,
relays or reports), its shortest watch delay, and normal priority. One pair serves one thread.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import psutil

from helenite.core.errors import UnavailableError
from syncagent.names import STATE_DIRECTORY
from tests.bench.servers import NotInstalledError, helenite_version
from tests.support.cluster import Cluster
from tests.support.ports import free_ports
from tests.support.sync_agents import Agent
from tests.support.waiting import wait_until

QUIET_S = 300.0
START_S = 60.0
WATCH_DELAY_S = 1
"""The shortest that Syncthing takes."""
LOOPBACK = "127.0.0.1"


class Pair(ABC):
    """Two devices with one folder each."""

    near: Path
    far: Path
    own_names: frozenset[str]
    """What the program itself keeps in the folders."""

    @abstractmethod
    def is_quiet(self) -> bool:
        """Whether both devices are equal and have nothing to do."""

    @abstractmethod
    def devices(self) -> list[psutil.Process]:
        """The processes of the two devices, without a server's."""

    def servers(self) -> list[psutil.Process]:
        """The processes that both devices need besides."""
        return []

    def wait_until_quiet(self) -> None:
        wait_until(self.is_quiet, QUIET_S)


@dataclass(frozen=True, slots=True)
class Program:
    """One column of the table."""

    key: str
    title: str
    find: Callable[[], str]
    """Its version; NotInstalledError when it is not there."""
    start: Callable[[Path], AbstractContextManager[Pair]]


class HelenitePair(Pair):
    """Two of our agents, a cluster with three replicas between them."""

    own_names = frozenset({STATE_DIRECTORY})

    def __init__(self, cluster: Cluster, agents: tuple[Agent, Agent]) -> None:
        self.cluster = cluster
        self.agents = agents
        self.near, self.far = (agent.folder for agent in agents)

    def is_quiet(self) -> bool:
        try:
            return all(agent.is_settled() for agent in self.agents)
        except UnavailableError:
            return False

    def devices(self) -> list[psutil.Process]:
        return [psutil.Process(agent.process.pid) for agent in self.agents if agent.process is not None]

    def servers(self) -> list[psutil.Process]:
        return self.cluster.processes()


@contextmanager
def start_helenite(directory: Path) -> Iterator[Pair]:
    directory.mkdir(parents=True)
    with Cluster(directory / "cluster", "--workers", "2") as cluster, ExitStack() as stack:
        agents = Agent(directory, "near"), Agent(directory, "far")
        for agent in agents:
            agent.add(f"{cluster.url}bench")
            agent.start()
            stack.callback(agent.stop)
        pair = HelenitePair(cluster, agents)
        pair.wait_until_quiet()
        yield pair


class SyncthingPair(Pair):
    """Two Syncthing processes that know one another's address."""

    own_names = frozenset({".stfolder"})

    def __init__(self, directory: Path) -> None:
        self.near, self.far = directory / "near", directory / "far"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.interfaces: list[tuple[str, str]] = []  # address and key of each one's REST interface
        self.ids: list[str] = []

    def is_quiet(self) -> bool:
        """Connected, both idle with equal indexes, and each knows that the other is complete."""
        try:
            states = [self.ask(number, "/rest/db/status?folder=bench") for number in (0, 1)]
            done = [
                self.ask(number, f"/rest/db/completion?folder=bench&device={self.ids[1 - number]}") for number in (0, 1)
            ]
            ties = [self.ask(number, "/rest/system/connections")["connections"] for number in (0, 1)]
        except URLError:
            return False
        if not all(ties[number][self.ids[1 - number]]["connected"] for number in (0, 1)):
            return False
        same = len({(state["globalBytes"], state["globalFiles"], state["localFiles"]) for state in states}) == 1
        idle = all(state["state"] == "idle" and state["needTotalItems"] == 0 for state in states)
        return same and idle and all(each["completion"] == 100 for each in done)

    def devices(self) -> list[psutil.Process]:
        found = [psutil.Process(process.pid) for process in self.processes]
        return [*found, *(child for process in found for child in process.children(recursive=True))]

    def ask(self, number: int, path: str) -> Any:
        address, key = self.interfaces[number]
        request = urllib.request.Request(f"http://{address}{path}", headers={"X-API-Key": key})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)


@contextmanager
def start_syncthing(directory: Path) -> Iterator[Pair]:
    pair = SyncthingPair(directory)
    homes = [directory / f"home-{name}" for name in ("near", "far")]
    ports = free_ports(4)
    for home, folder in zip(homes, (pair.near, pair.far), strict=True):
        (folder / ".stfolder").mkdir(parents=True)
        done = _syncthing("generate", "--home", str(home), "--no-default-folder", "--skip-port-probing")
        pair.ids.append(_found(r"Device ID: (\S+)", done.stdout + done.stderr))
    for number, home in enumerate(homes):
        config = home / "config.xml"
        folder = (pair.near, pair.far)[number]
        text = config.read_text()
        pair.interfaces.append((f"{LOOPBACK}:{ports[number]}", _found(r"<apikey>(\S+)</apikey>", text)))
        config.write_text(_configured(text, pair, number, folder, ports))
    with ExitStack() as stack:
        for home in homes:
            command = ["syncthing", "serve", "--home", str(home), "--no-browser", "--no-restart", "--no-upgrade"]
            log = stack.enter_context((home / "log").open("wb"))
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            stack.callback(_end, process)
            pair.processes.append(process)
        wait_until(pair.is_quiet, START_S)
        yield pair


def _configured(text: str, pair: SyncthingPair, number: int, folder: Path, ports: list[int]) -> str:
    """Its own fresh configuration with both devices, the folder, and nothing that leaves this machine."""
    options = {
        "listenAddress": f"tcp://{LOOPBACK}:{ports[2 + number]}", "globalAnnounceEnabled": "false",
        "localAnnounceEnabled": "false", "relaysEnabled": "false", "natEnabled": "false", "urAccepted": "-1",
        "autoUpgradeIntervalH": "0", "crashReportingEnabled": "false", "stunKeepaliveStartS": "0",
        "reconnectionIntervalS": "1", "setLowPriority": "false",
    }  # fmt: skip
    for name, value in options.items():
        text = re.sub(f"<{name}>[^<]*</{name}>", f"<{name}>{value}</{name}>", text, count=1)
    text = re.sub("(<gui [^>]*>\\s*)<address>[^<]*</address>", f"\\1<address>{pair.interfaces[-1][0]}</address>", text)
    devices = "".join(
        f'<device id="{device}" name="{at}"><address>tcp://{LOOPBACK}:{ports[2 + at]}</address></device>'
        for at, device in enumerate(pair.ids)
    )
    shared = "".join(f'<device id="{device}"></device>' for device in pair.ids)
    text = re.sub(r"<device id=.*?</device>", devices, text, count=1, flags=re.DOTALL)
    return text.replace(
        "</configuration>",
        f'<folder id="bench" path="{folder}" type="sendreceive" rescanIntervalS="3600" fsWatcherEnabled="true"'
        f' fsWatcherDelayS="{WATCH_DELAY_S}">{shared}</folder></configuration>',
    )


def _syncthing(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("syncthing") is None:
        raise NotInstalledError("apt install syncthing")
    return subprocess.run(["syncthing", *arguments], capture_output=True, text=True, check=True, timeout=60)


def _syncthing_version() -> str:
    return _found(r"syncthing (\S+)", _syncthing("--version").stdout)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.wait(10)


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None, f"no {pattern} in {text[:500]!r}"
    return match[1]


PROGRAMS = (
    Program("helenite", "Helenite (two agents, three replicas)", helenite_version, start_helenite),
    Program("syncthing", f"Syncthing (watch delay {WATCH_DELAY_S} s)", _syncthing_version, start_syncthing),
)
