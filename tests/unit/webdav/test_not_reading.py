"""Clients that ask and never read: they are given up without ado, and hold up nobody."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateways import make_certificate, our_server, serving
from tests.support.raw_http import Client
from webdav.server import LazyTls


class Endless:
    """An answer that is longer than any client cares to read; `ended` when its last piece was asked for."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.ended = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            while True:
                yield bytes(1 << 20)
                self.began.set()
        finally:
            self.ended.set()


@contextlib.contextmanager
def not_reading(client: Client, *, tls: bool) -> Iterator[None]:
    """A client that asks and never reads."""
    plain = socket.create_connection((client.host, client.port))
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with context.wrap_socket(plain) if tls else plain as connection:
        connection.sendall(client.head("GET", "/"))
        yield


@pytest.mark.parametrize("tls", [False, True])
def test_a_client_that_does_not_read_is_given_up_without_ado(
    tls: bool, tmp_path: Path, need: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    need("openssl")
    app = Endless()
    server = our_server(app, timeout_s=0.5)
    if tls:
        server.ssl_adapter = LazyTls(*make_certificate(tmp_path))
    with serving(server), not_reading(Client(*server.bind_addr), tls=tls):
        assert app.ended.wait(30)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("tls", [False, True])
def test_a_client_that_does_not_read_does_not_hold_up_the_end(
    tls: bool,
    tmp_path: Path,
    need: Callable[..., None],
) -> None:
    need("openssl")
    app = Endless()
    server = our_server(app, timeout_s=60)
    server.shutdown_timeout = 0.5
    if tls:
        server.ssl_adapter = LazyTls(*make_certificate(tmp_path))
    with contextlib.ExitStack() as client:
        with serving(server):
            client.enter_context(not_reading(Client(*server.bind_addr), tls=tls))
            assert app.began.wait(30)
            began = time.monotonic()
        assert time.monotonic() - began < 30
