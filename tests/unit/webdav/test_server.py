"""The HTTP layer: each defect of stock cheroot 11.1 is shown on the stock server and absent from ours.

The applications here are bare WSGI, so that only the server is tested. webdav/COMPLIANCE.md refers to the numbers.
"""

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

from helenite.core.errors import ContentLostError
from helenite.core.process import Worker
from tests.support.gateways import make_certificate, our_server, serving, stock_server, stock_tls
from tests.support.raw_http import Client, NoAnswerError, statuses
from webdav.exchange import DRAIN_BYTES_MAX
from webdav.server import LazyTls

App = Callable[[dict[str, Any], Any], Any]
Probe = Callable[[Client], None]
PROBES: dict[str, tuple[Probe, App]] = {}
BIG = 3 * 1024 * 1024 + 17


def hello(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]


def read_a_little(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answers with the size of the first piece of the body."""
    size = str(len(environ["wsgi.input"].read(1000))).encode()
    start_response("200 OK", [("Content-Length", str(len(size)))])
    return [size]


def too_short(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "10")])
    return [b"four"]


def says_close(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "5"), ("Connection", "close")])
    return [b"hello"]


def breaks_off(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"some"
    raise ContentLostError("no replica is left")


def from_a_buffer(environ: dict[str, Any], start_response: Any) -> Iterator[Any]:
    """Each piece stands until the next one is taken."""
    start_response("200 OK", [("Content-Length", str(BIG))])
    content = (bytes(range(256)) * (BIG // 256 + 1))[:BIG]
    buffer = memoryview(bytearray(100_000))
    for at in range(0, BIG, len(buffer)):
        piece = content[at : at + len(buffer)]
        buffer[: len(piece)] = piece
        yield buffer[: len(piece)]


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
        assert connection.read_reply(patience_s=1.0).body == b"1000"


@probe("2 buffers are sent as they are", from_a_buffer)
def _(client: Client) -> None:
    assert client.get("/").body == (bytes(range(256)) * (BIG // 256 + 1))[:BIG]


@probe("3 a response that is too short ends the connection", too_short)
def _(client: Client) -> None:
    with client.connect() as connection:
        connection.send(client.head("GET", "/"))
        assert connection.read_to_end(patience_s=1.0).endswith(b"four")


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
        assert connection.read_to_end(patience_s=1.0) == b""


@probe("6 an application's Connection: close is honoured", says_close)
def _(client: Client) -> None:
    with client.connect() as connection:
        connection.send(client.head("GET", "/"))
        assert connection.read_to_end(patience_s=1.0).endswith(b"hello")


@probe("7 the head of a request is bounded")
def _(client: Client) -> None:
    assert client("GET", "/", {"X-Long": "x" * 100_000}).status == 431


@probe("8 Expect is understood in any case", read_a_little)
def _(client: Client) -> None:
    with client.connect() as connection:
        connection.send(client.head("PUT", "/", {"Content-Length": "3", "Expect": "100-Continue"}))
        assert connection.read_line(patience_s=1.0) == b"HTTP/1.1 100 Continue\r\n"
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
        assert client("GET", "/", patience_s=1.0).body == b"hello"


@probe("11 trailers of a chunked body are read", read_a_little)
def _(client: Client) -> None:
    def drain_and_answer(connection: Any) -> None:
        connection.send(client.head("PUT", "/", {"Transfer-Encoding": "chunked"}))
        connection.send(b"3\r\nabc\r\n0\r\nX-Trailer: y\r\n\r\n")

    with client.connect() as connection:
        drain_and_answer(connection)
        assert connection.read_reply().body == b"3"
        assert statuses(connection.read_to_end(patience_s=1.0)) == []


@probe("12 an unread body is not swallowed without bound")
def _(client: Client) -> None:
    with client.connect() as connection:
        connection.send(client.head("PUT", "/", {"Content-Length": str(1 << 34)}))
        assert connection.read_reply(patience_s=1.0)["Connection"] == "close"


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
            assert connection.read_reply(patience_s=1.0).status in {400, 501}, headers


@probe("15 an absolute URL is a request target")
def _(client: Client) -> None:
    assert client.get(f"{client.base}/x").status == 200


SERVERS = {"ours": our_server, "stock": stock_server}
CASES = [pytest.param(function, app, id=name) for name, (function, app) in PROBES.items()]


@pytest.mark.parametrize(("function", "app"), CASES)
def test_ours_is_right(function: Probe, app: App) -> None:
    with serving(our_server(app)) as server:
        function(Client(*server.bind_addr))


@pytest.mark.parametrize(("function", "app"), CASES)
def test_stock_has_the_defect(function: Probe, app: App) -> None:
    with serving(stock_server(app)) as server, pytest.raises((AssertionError, KeyError)):
        function(Client(*server.bind_addr))


@pytest.mark.parametrize("kind", ["ours", "stock"])
def test_a_slow_tls_handshake_stalls_nobody(kind: str, tmp_path: Path, need: Callable[..., None]) -> None:
    need("openssl")
    certificate = make_certificate(tmp_path)
    server = SERVERS[kind](hello)
    server.ssl_adapter = LazyTls(*certificate) if kind == "ours" else stock_tls(certificate)
    context = ssl.create_default_context(cafile=certificate[0])
    server.timeout = 4.0
    with serving(server), socket.create_connection(server.bind_addr):  # connects, then says nothing
        client = Client(*server.bind_addr, context=context)
        if kind == "ours":
            assert client("GET", "/", patience_s=1.0).body == b"hello"
            return
        started = threading.Event()

        def try_it() -> None:
            with contextlib.suppress(OSError, AssertionError):
                client("GET", "/", patience_s=1.0)
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


# What has no stock counterpart


def test_a_response_that_breaks_off_does_not_look_whole() -> None:
    with serving(our_server(breaks_off)) as server, Client(*server.bind_addr).connect() as connection:
        connection.send(Client(*server.bind_addr).head("GET", "/"))
        received = connection.read_to_end()
    assert b"4\r\nsome" in received, received
    assert not received.endswith(b"0\r\n\r\n")


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


def test_a_small_unread_body_keeps_the_connection() -> None:
    with serving(our_server(hello)) as server, Client(*server.bind_addr).connect() as connection:
        client = Client(*server.bind_addr)
        for _ in range(2):
            connection.send(client.head("PUT", "/", {"Content-Length": str(DRAIN_BYTES_MAX)}) + b"x" * DRAIN_BYTES_MAX)
            assert connection.read_reply().get("Connection") is None


def test_requests_may_be_pipelined() -> None:
    with serving(our_server(hello)) as server, Client(*server.bind_addr).connect() as connection:
        connection.send(Client(*server.bind_addr).head("GET", "/") * 3)
        assert [connection.read_reply().body for _ in range(3)] == [b"hello"] * 3


def test_a_busy_connection_leaves_its_thread_to_one_that_waits() -> None:
    with serving(our_server(hello, threads=1)) as server, Client(*server.bind_addr).connect() as busy:
        client = Client(*server.bind_addr)
        head = client.head("GET", "/")
        busy.send(head * 500)
        served = 0

        def go_on(stopping: threading.Event) -> None:
            nonlocal served
            while not stopping.is_set():
                assert busy.read_reply().body == b"hello"
                busy.send(head)
                served += 1

        worker = Worker("busy", go_on).start()
        try:
            for _ in range(20):
                assert client.get("/").body == b"hello"
        finally:
            worker.stop()
        assert served > 20


def test_http_1_0_closes_unless_asked() -> None:
    with serving(our_server(hello)) as server:
        with Client(*server.bind_addr).connect() as connection:
            connection.send(b"GET / HTTP/1.0\r\n\r\n")
            assert connection.read_to_end().endswith(b"hello")
        with Client(*server.bind_addr).connect() as connection:
            connection.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2)
            assert connection.read_reply()["Connection"] == "keep-alive"
            assert connection.read_reply().body == b"hello"


def test_a_body_that_stalls_is_given_up() -> None:
    with serving(our_server(read_a_little, timeout_s=0.3)) as server, Client(*server.bind_addr).connect() as connection:
        connection.send(Client(*server.bind_addr).head("PUT", "/", {"Content-Length": "10"}))
        assert connection.read_reply().status == 408


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


def test_an_idle_connection_is_closed() -> None:
    with serving(our_server(hello, timeout_s=0.3)) as server, Client(*server.bind_addr).connect() as connection:
        connection.send(Client(*server.bind_addr).head("GET", "/"))
        assert connection.read_reply().body == b"hello"
        assert connection.read_to_end() == b""


def test_a_crash_shows_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    def crashes(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        raise RuntimeError("secret")

    with serving(our_server(crashes)) as server:
        reply = Client(*server.bind_addr).get("/")
    assert reply.status == 500
    assert b"secret" not in reply.body
    assert "secret" in caplog.text


def test_a_client_that_goes_away_leaves_the_server_well() -> None:
    with serving(our_server(from_a_buffer)) as server:
        client = Client(*server.bind_addr)
        for _ in range(8):
            with client.connect() as connection:
                connection.send(client.head("GET", "/"))
                connection.read_line()
        assert len(client.get("/").body) == BIG


def test_no_answer_is_an_error_of_the_test() -> None:
    with (
        serving(our_server(hello)) as server,
        Client(*server.bind_addr).connect() as connection,
        pytest.raises(NoAnswerError),
    ):
        connection.read_reply(patience_s=0.1)
