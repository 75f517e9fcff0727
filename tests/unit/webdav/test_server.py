"""The HTTP layer over bare applications: connections, bodies, crashes; what the stock server has no counterpart of."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from helenite.core.errors import ContentLostError
from helenite.core.process import Worker
from tests.support.gateways import our_server, serving
from tests.support.raw_http import Client, NoAnswerError
from tests.support.wsgi_apps import BIG, from_a_buffer, hello, read_a_little
from webdav.exchange import DRAIN_BYTES_MAX


def breaks_off(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"some"
    raise ContentLostError("no replica is left")


def test_a_response_that_breaks_off_does_not_look_whole() -> None:
    with serving(our_server(breaks_off)) as server, Client(*server.bind_addr).connect() as connection:
        connection.send(Client(*server.bind_addr).head("GET", "/"))
        received = connection.read_to_end()
    assert b"4\r\nsome" in received, received
    assert not received.endswith(b"0\r\n\r\n")


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
