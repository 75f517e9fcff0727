"""gRPC servers and channels with the project's limits, and the address that a server is known by.

Used by the `__main__` of each service and by those who call one. Create everything here after the fork.
"""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import grpc

from helenite.core.errors import ConfigurationError

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
"""Largest gRPC message: a page of a listing or the extents of a 1 TiB file stay well below it."""
GRPC_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.so_reuseport", 0),
    # A master that comes back after a long outage must be heard at once, not after the default's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


def reachable_host(host: str) -> str:
    """Where others reach who listens on `host`: there, or at this machine's name when it listens everywhere."""
    return socket.gethostname() if host in {"0.0.0.0", "::", "[::]"} else host


def make_grpc_server(threads: int) -> grpc.Server:
    """A server with the project's limits; more than `threads` requests at once wait, four times as many are refused."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="grpc")
    return grpc.server(pool, options=GRPC_OPTIONS, maximum_concurrent_rpcs=4 * threads)


def bind_grpc(server: grpc.Server, address: str) -> int:
    """Bind to `host:port` (0 = any) and return the port; ConfigurationError when that cannot be had."""
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:  # all that grpc says
        port = 0
    if port == 0:
        raise ConfigurationError(f"cannot listen on {address}: the port is taken, or the address is not this machine's")
    return port
