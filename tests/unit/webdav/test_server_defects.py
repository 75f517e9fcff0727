"""The HTTP layer: each defect of stock cheroot 11.1 is shown on the stock server and absent from ours.

The applications here are bare WSGI, so that only the server is tested. webdav/COMPLIANCE.md refers to the numbers.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helenite.core.process import Worker
from tests.support.gateways import make_certificate, our_server, serving, stock_server, stock_tls
from tests.support.raw_http import Client, statuses
from tests.support.wsgi_apps import BIG_CONTENT, App, from_a_buffer, hello, read_a_little
from webdav.server import LazyTls

Probe = Callable[[Client], None]
PROBES: dict[str, tuple[Probe, App]] = {}
SILENT_S = 1.0
"""After this, the stock server will not say any more."""


def too_short(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "10")])
    return [b"four"]


def says_close(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "5"), ("Connection", "close")])
    return [b"hello"]


def is_multiprocess(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    text = str(environ["wsgi.multiprocess"]).encode()
    start_response("200 OK", [("Content-Length", str(len(text)))])
    return [text]


def probe(name: str, app: App = hello) -> Callable[[Probe], Probe]:
    def register(function: Probe) -> Probe:
        PROBES[name] = (function, app)
        return function

    return register


@probe("1 a large chunk is handed on while it arrives", read_a_little)
def _(client: Client) -> None:
    with client.connect() as connection:
        connection.send(client.head("PUT", "/", {"Transfer-Encoding": "chunked"}) + b"4000000\r\n" + b"x" * 1000)
        assert connection.read_reply(patience_s=client.patience_s).body == b"1000"


@probe("2 buffers are sent as they are", from_a_buffer)
def _(client: Client) -> None:
    assert client.get("/").body == BIG_CONTENT


@probe("3 a response that is too short ends the connection", too_short)
def _(client: Client) -> None:
    with client.connect() as connection:
        connection.send(client.head("GET", "/"))
        assert connection.read_to_end(patience_s=client.patience_s).endswith(b"four")


@probe("4 more than ten connections may be idle")
def _(client: Client) -> None:
    with contextlib.ExitStack() as stack:
        for connection in [stack.enter_context(client.connect()) for _ in range(15)]:
            connection.send(client.head("GET", "/"))
            assert connection.read_reply().get("Connection") is None


@probe("5 Connection is a list of options in any case")
def _(client: Client) -> None:
    with client.connect() as connection:
        connection.send(client.head("GET", "/", {"Connection": "TE, Close"}))
        assert connection.read_reply()["Connection"] == "close"
        assert connection.read_to_end(patience_s=client.patience_s) == b""


@probe("6 an application's Connection: close is honoured", says_close)
def _(client: Client) -> None:
    with client.connect() as connection:
        connection.send(client.head("GET", "/"))
        assert connection.read_to_end(patience_s=client.patience_s).endswith(b"hello")


@probe("7 the head of a request is bounded")
def _(client: Client) -> None:
    assert client("GET", "/", {"X-Long": "x" * 100_000}).status == 431


@probe("8 Expect is understood in any case", read_a_little)
def _(client: Client) -> None:
    with client.connect() as connection:
        connection.send(client.head("PUT", "/", {"Content-Length": "3", "Expect": "100-Continue"}))
        assert connection.read_line(patience_s=client.patience_s) == b"HTTP/1.1 100 Continue\r\n"
        assert connection.read_line() == b"\r\n"
        connection.send(b"abc")
        assert connection.read_reply().body == b"3"


@probe("9 100 Continue waits for the first read")
def _(client: Client) -> None:
    with client.connect() as connection:
        connection.send(client.head("PUT", "/", {"Content-Length": "3", "Expect": "100-continue"}))
        assert b" 200 " in connection.read_line()


@probe("10 silent connections hold no threads")
def _(client: Client) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(client.connect())
        assert client("GET", "/", patience_s=client.patience_s).body == b"hello"


@probe("11 trailers of a chunked body are read", read_a_little)
def _(client: Client) -> None:
    def drain_and_answer(connection: Any) -> None:
        connection.send(client.head("PUT", "/", {"Transfer-Encoding": "chunked"}))
        connection.send(b"3\r\nabc\r\n0\r\nX-Trailer: y\r\n\r\n")

    with client.connect() as connection:
        drain_and_answer(connection)
        assert connection.read_reply().body == b"3"
        assert statuses(connection.read_to_end(patience_s=client.patience_s)) == []


@probe("12 an unread body is not swallowed without bound")
def _(client: Client) -> None:
    with client.connect() as connection:
        connection.send(client.head("PUT", "/", {"Content-Length": str(1 << 34)}))
        assert connection.read_reply(patience_s=client.patience_s)["Connection"] == "close"


@probe("13 an application knows that it runs in several processes", is_multiprocess)
def _(client: Client) -> None:
    assert client.get("/").body == b"True"


@probe("14 framing that two servers may read differently is refused")
def _(client: Client) -> None:
    for headers in (
        {"Content-Length": "5", "Transfer-Encoding": "chunked"},
        {"Content-Length": "+5"},
        {"Content-Length": "5, 5"},
        {"Transfer-Encoding": "chunked, chunked"},
    ):
        with client.connect() as connection:
            connection.send(client.head("PUT", "/", headers) + b"hello")
            assert connection.read_reply(patience_s=client.patience_s).status in {400, 501}, headers


@probe("15 an absolute URL is a request target")
def _(client: Client) -> None:
    assert client.get(f"{client.base}/x").status == 200


CASES = [pytest.param(function, app, id=name) for name, (function, app) in PROBES.items()]


@pytest.mark.parametrize(("function", "app"), CASES)
def test_ours_is_right(function: Probe, app: App) -> None:
    with serving(our_server(app)) as server:
        function(Client(*server.bind_addr))


@pytest.mark.parametrize(("function", "app"), CASES)
def test_stock_has_the_defect(function: Probe, app: App) -> None:
    with serving(stock_server(app)) as server, pytest.raises((AssertionError, KeyError)):
        function(Client(*server.bind_addr, patience_s=SILENT_S))


@pytest.mark.parametrize("kind", ["ours", "stock"])
def test_a_slow_tls_handshake_stalls_nobody(kind: str, tmp_path: Path, need: Callable[..., None]) -> None:
    need("openssl")
    certificate = make_certificate(tmp_path)
    server = our_server(hello) if kind == "ours" else stock_server(hello)
    server.ssl_adapter = LazyTls(*certificate) if kind == "ours" else stock_tls(certificate)
    context = ssl.create_default_context(cafile=certificate[0])
    server.timeout = 20.0 if kind == "ours" else 4.0
    with serving(server), socket.create_connection(server.bind_addr):  # connects, then says nothing
        client = Client(*server.bind_addr, context=context)
        if kind == "ours":
            assert client("GET", "/", patience_s=10.0).body == b"hello"
            return
        started = threading.Event()

        def try_it() -> None:
            with contextlib.suppress(OSError, AssertionError):
                client("GET", "/", patience_s=SILENT_S)
                started.set()

        with _in_thread(try_it):
            assert not started.wait(1.2)


@contextlib.contextmanager
def _in_thread(body: Callable[[], None]) -> Iterator[None]:
    worker = Worker("trying", lambda _: body()).start()
    try:
        yield
    finally:
        worker.stop()
