"""The HTTP layer under TLS."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

from tests.support.gateways import make_certificate, our_server, serving
from tests.support.raw_http import Client
from tests.support.wsgi_apps import BIG, from_a_buffer, hello
from webdav.server import LazyTls


def test_files_travel_through_tls(tmp_path: Path, need: Callable[..., None]) -> None:
    need("openssl")
    certificate = make_certificate(tmp_path)
    server = our_server(from_a_buffer)
    server.ssl_adapter = LazyTls(*certificate)
    with serving(server):
        client = Client(*server.bind_addr, context=ssl.create_default_context(cafile=certificate[0]))
        assert len(client.get("/").body) == BIG


def test_plain_http_to_a_tls_port_ends_without_harm(tmp_path: Path, need: Callable[..., None]) -> None:
    need("openssl")
    certificate = make_certificate(tmp_path)
    server = our_server(hello)
    server.ssl_adapter = LazyTls(*certificate)
    with serving(server):
        with Client(*server.bind_addr).connect() as connection:
            connection.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            connection.read_to_end()
        secure = Client(*server.bind_addr, context=ssl.create_default_context(cafile=certificate[0]))
        assert secure.get("/").body == b"hello"
