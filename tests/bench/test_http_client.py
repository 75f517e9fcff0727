"""The benchmark's client against replies that arrive in any pieces."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from helenite.core.process import Worker
from tests.bench.http_client import Connection, TransferError

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 207 Multi\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nhello"


@contextmanager
def answering(replies: list[bytes], piece: int) -> Iterator[tuple[str, int]]:
    """A server that answers each request with the next reply, in pieces, and hangs up after it when told so."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:

        def serve(_: object) -> None:
            left = list(replies)
            while left:
                sock, _address = listening.accept()
                with sock:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    while left and sock.recv(65536):
                        reply = left.pop(0)
                        for at in range(0, len(reply), piece):
                            sock.sendall(reply[at : at + piece])
                        if b"close" in reply:
                            break

        worker = Worker("answering", serve).start()
        try:
            yield listening.getsockname()
        finally:
            worker.stop()


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_replies_in_pieces(piece: int) -> None:
    with answering([PLAIN, CHUNKED, UNTIL_CLOSE, PLAIN], piece) as address:
        connection = Connection(address)
        for status in (200, 207, 200, 200):
            reply = connection.exchange(b"GET / HTTP/1.1\r\n\r\n")
            assert (reply.status, bytes(reply.body)) == (status, b"hello")
        connection.close()


def test_a_reply_that_ends_too_early_is_no_reply() -> None:
    with answering([b"HTTP/1.1 200 OK\r\nX: close\r\nContent-Length: 6\r\n\r\nhello"], 1000) as address:
        connection = Connection(address)
        with pytest.raises(TransferError):
            connection.exchange(b"GET / HTTP/1.1\r\n\r\n")
        connection.close()


def test_streams_are_handed_on_in_order() -> None:
    with answering([PLAIN], 2) as address:
        connection = Connection(address)
        got = bytearray()
        assert connection.exchange_stream(b"GET / HTTP/1.1\r\n\r\n", (), got.extend) == 200
        assert got == b"hello"
        connection.close()
