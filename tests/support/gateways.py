"""Gateways in this process for tests: ours on a file system in memory, and WsgiDAV on cheroot as they come (`stock`).

The stock one exists so that a test for a defect can show that it would have failed.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from cheroot import wsgi
from cheroot.ssl.builtin import BuiltinSSLAdapter
from wsgidav.fs_dav_provider import FilesystemProvider
from wsgidav.wsgidav_app import WsgiDAVApp

from helenite.core.process import Worker
from tests.support.memory_filesystem import MemoryFileSystem
from tests.support.raw_http import Client
from webdav.app import Application
from webdav.server import LazyTls, Server

THREADS = 4
TIMEOUT_S = 8.0
QUICK_HASH = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@contextlib.contextmanager
def serving(server: Any) -> Iterator[Any]:
    """Run a cheroot server of either kind in threads."""
    server.expiration_interval = 0.05  # also how long stopping takes
    server.prepare()
    accepting = Worker("accept", lambda _: server.serve()).start()
    try:
        yield server
    finally:
        server.stop()
        accepting.stop()


def our_server(app: Any, *, timeout_s: float = TIMEOUT_S, threads: int = THREADS) -> Server:
    return Server(("127.0.0.1", 0), app, threads=threads, timeout_s=timeout_s)


def stock_server(app: Any) -> wsgi.Server:
    server = wsgi.Server(("127.0.0.1", 0), app, numthreads=THREADS)
    server.error_log = lambda *_, **__: None
    return server


@contextlib.contextmanager
def our_gateway(
    file_system: MemoryFileSystem | None = None, *, user: str = "", tls: tuple[str, str] | None = None, **options: Any
) -> Iterator[Client]:
    """Our gateway; with `user`, that user exists with the password `secret`."""
    file_system = file_system or MemoryFileSystem()
    if user:
        file_system.rpc.users[user] = QUICK_HASH.hash("secret")
    server = our_server(Application(file_system, **options))  # type: ignore[arg-type]
    if tls is not None:
        server.ssl_adapter = LazyTls(*tls)
    with serving(server):
        yield Client(*server.bind_addr)


@contextlib.contextmanager
def stock_gateway(root: Path, *, user: str = "", provider: Any = None, **config: Any) -> Iterator[Client]:
    logging.getLogger("wsgidav").setLevel(logging.CRITICAL + 1)
    users: Any = {user: {"password": "secret"}} if user else True
    app = WsgiDAVApp(
        {
            "provider_mapping": {"/": provider or FilesystemProvider(str(root))},
            "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
            "simple_dc": {"user_mapping": {"*": users}},
            "lock_storage": True,
            "logging": {"enable": False},
            "verbose": 0,
            **config,
        }
    )
    with serving(stock_server(app)) as server:
        yield Client(*server.bind_addr)


def with_credentials(client: Client, user: str, password: str) -> Client:
    return replace(client, credentials=base64.b64encode(f"{user}:{password}".encode()).decode())


def make_certificate(directory: Path) -> tuple[str, str]:
    """A self-signed certificate for localhost and its key; needs openssl."""
    certificate, key = directory / "cert.pem", directory / "key.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run(
        [*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True, timeout=30
    )
    return str(certificate), str(key)


def stock_tls(certificate: tuple[str, str]) -> BuiltinSSLAdapter:
    return BuiltinSSLAdapter(*certificate)
