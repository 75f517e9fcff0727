"""Ports for programs that are told theirs before they listen."""

from __future__ import annotations

import errno
import random
import socket

PORTS = range(12_000, 20_000)
"""Below those that the system gives to outgoing connections and to who asks for any port, which would take one of these
between the choice and its use; and below those that `helenite up` chooses from."""
_left = iter(random.Random().sample(PORTS, len(PORTS)))
"""None is given away twice: the first may not be in use yet."""


def free_port() -> int:
    """A port on loopback that nobody uses."""
    return next(port for port in _left if _is_free(port))


def free_ports(count: int) -> list[int]:
    return [free_port() for _ in range(count)]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
    return True
