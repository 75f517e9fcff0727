"""Test hosts: network namespaces of our own on one switch, so that what crosses a network does so here too.

Needs root and iproute2. Nothing outside these namespaces is touched but the name files under /etc/netns, which
`ip netns exec` lays over /etc for the processes inside.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

NETWORK = "10.77.0"
_ENTER = """
hostname "$0"; own=$1; all=$2; shift 2
if [ -d "$own" ]; then
    mount --bind "$own" /mnt && mount -t tmpfs none "$all" && mkdir "$own" && mount --move /mnt "$own" && cd "$own"
fi
exec "$@"
"""


def can_make_hosts() -> bool:
    """Whether this process may make network namespaces."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"helenite-probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode != 0:
        return False
    subprocess.run(["ip", "netns", "del", name], check=True)
    return True


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Hosts:
    """Named hosts with addresses; everyone resolves everyone's names and sees only its own part of `directory`."""

    def __init__(self, names: Sequence[str], directory: Path) -> None:
        self._directory = directory
        self._tag = f"h{os.getpid() % 100_000}"
        self.addresses = {name: f"{NETWORK}.{number}" for number, name in enumerate(names, 1)}

    def namespace(self, name: str) -> str:
        return f"{self._tag}-{name}"

    def __enter__(self) -> Self:
        switch = self.namespace("switch")
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", switch, "link", "set", "br0", "up")
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in self.addresses.items())]
        for number, (name, address) in enumerate(self.addresses.items(), 1):
            host = self.namespace(name)
            _ip("netns", "add", host)
            _ip("-n", switch, "link", "add", f"p{number}", "type", "veth", "peer", "name", "eth0", "netns", host)
            _ip("-n", switch, "link", "set", f"p{number}", "master", "br0", "up")
            _ip("-n", host, "addr", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", host, "link", "set", "eth0", "up")
            _ip("-n", host, "link", "set", "lo", "up")
            names = Path("/etc/netns") / host
            names.mkdir(parents=True, exist_ok=True)
            (names / "hosts").write_text("\n".join(lines) + "\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in ("switch", *self.addresses):
            host = self.namespace(name)
            subprocess.run(["ip", "netns", "del", host], capture_output=True, check=False)
            shutil.rmtree(Path("/etc/netns") / host, ignore_errors=True)

    def _inside(self, name: str, command: Sequence[str]) -> list[str]:
        """The command on a host: its network, its name, and of `directory` only what is its own."""
        return ["ip", "netns", "exec", self.namespace(name), "unshare", "--uts", "sh", "-c", _ENTER, name,
                str(self._directory / name), str(self._directory), *command]  # fmt: skip

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], **options: Any
    ) -> subprocess.Popen[str]:
        """Start a process on a host."""
        return subprocess.Popen(self._inside(name, command), env=dict(environment), text=True, **options)

    def run(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host to its end."""
        return subprocess.run(
            self._inside(name, command),
            env=dict(environment), text=True, capture_output=True, check=False, timeout=60, **options,
        )  # fmt: skip
