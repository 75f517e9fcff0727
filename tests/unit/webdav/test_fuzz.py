"""Anything at all on the raw socket: the server stays alive, answers with 4xx or hangs up, and never shows its insides.

Seeds are printed by Hypothesis when something is found; what was found once stands below as an example.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.gateways import our_server, serving
from tests.support.memory_filesystem import MemoryFileSystem
from tests.support.raw_http import Client, NoAnswerError, statuses
from webdav.app import Application

EXAMPLES = 150
LENIENT = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
METHODS = [
    "OPTIONS", "GET", "HEAD", "PUT", "DELETE", "MKCOL", "COPY", "MOVE", "PROPFIND", "PROPPATCH", "LOCK", "UNLOCK",
    "POST", "PATCH", "TRACE",
]  # fmt: skip
HEADERS = [
    "Depth", "Destination", "Overwrite", "If", "If-Match", "If-None-Match", "If-Range", "If-Modified-Since",
    "If-Unmodified-Since", "Range", "Timeout", "Lock-Token", "Content-Length", "Content-Range", "Content-MD5",
    "Repr-Digest", "OC-Checksum", "X-OC-Mtime", "Transfer-Encoding", "Expect", "Authorization", "Connection",
    "X-Expected-Entity-Length", "Content-Encoding", "Host", "Prefer",
]  # fmt: skip
FORBIDDEN = (b"Traceback", b'File "', b".py", b"Error(")


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    file_system = MemoryFileSystem()
    file_system.make_directory(("d",))
    with file_system.create(("d", "f")) as writer:
        writer.write(b"0123456789")
        writer.commit()
    server = our_server(Application(file_system), timeout_s=1.0, threads=8)  # type: ignore[arg-type]
    with serving(server):
        yield Client(*server.bind_addr)


def check(client: Client, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    with client.connect() as connection:
        connection.send(data)
        connection.finish_sending()
        try:
            received = connection.read_to_end()
        except NoAnswerError:
            raise AssertionError(f"the server kept a connection whose client had finished: {data!r}") from None
    assert all(status < 500 or status in {501, 502, 505} for status in statuses(received)), (data, received)
    assert not any(mark in received for mark in FORBIDDEN), (data, received)
    crashes = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert not crashes, (data, [record.getMessage() for record in crashes])


TARGETS = st.one_of(
    st.sampled_from(["/", "/d", "/d/f", "/d/", "/none", "*", "/%2e%2e/x", "/d/%00", "http://h/d/f", "//", "/a?b#c"]),
    st.text(alphabet="/.%2eEfF0dx?#;\\ ", max_size=12).map(lambda text: "/" + text),
)
VALUES = st.one_of(
    st.sampled_from(
        [
            "0",
            "1",
            "infinity",
            "*",
            '"x"',
            "T",
            "-1",
            "999999999999999999999",
            "bytes=0-1,2-3",
            "bytes=-",
            "chunked",
            "(<urn:x>)",
            '</d> (["e"])',
            "Second-1",
            "Infinite",
            "100-continue",
            "sha-256=:AAAA:",
            "Basic YTpi",
            "close",
        ]
    ),
    st.text(alphabet="()<>[]\"'=,:;-/ bytesNo10*W\t\x80\xff", max_size=30),
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    lines = [f"{draw(st.sampled_from(METHODS))} {draw(TARGETS)} HTTP/1.{draw(st.integers(0, 1))}", "Host: h"]
    lines += [f"{draw(st.sampled_from(HEADERS))}: {draw(VALUES)}" for _ in range(draw(st.integers(0, 5)))]
    body = draw(st.one_of(st.binary(max_size=60), XML_BODIES))
    if draw(st.booleans()):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body


NAMES = st.sampled_from(
    ["prop", "propfind", "allprop", "propname", "include", "set", "remove", "owner", "x", "lockscope"]
)
TREES = st.recursive(
    st.text(alphabet="a<&;\x01é", max_size=4),
    lambda inner: st.tuples(NAMES, st.lists(inner, max_size=3)).map(
        lambda pair: f"<D:{pair[0]}>{''.join(pair[1])}</D:{pair[0]}>"
    ),
    max_leaves=8,
)
ROOTS = st.sampled_from(["propfind", "propertyupdate", "lockinfo", "mkcol"])
XML_BODIES = st.tuples(ROOTS, TREES).map(lambda pair: f'<D:{pair[0]} xmlns:D="DAV:">{pair[1]}</D:{pair[0]}>'.encode())

PIECES = [b"\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n", b"A;x\r\n"]


@LENIENT
@given(data=st.binary(max_size=200))
@example(data=b"\r\n\r\n")
@example(data=b"GET")
@example(data=b"GET / HTTP/1.1\r\nHost: h\r\nX\r\n\r\n")
def test_any_bytes(client: Client, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    check(client, data, caplog)


@LENIENT
@given(data=requests())
@example(data=b"PUT /d HTTP/1.0\r\nContent-MD5: \xff\r\n\r\n")
def test_almost_requests(client: Client, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    check(client, data, caplog)


@LENIENT
@given(
    pieces=st.lists(
        st.one_of(st.binary(max_size=12), st.sampled_from([b"\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n", b"A;x\r\n"]))
    )
)
def test_broken_chunks(client: Client, caplog: pytest.LogCaptureFixture, pieces: list[bytes]) -> None:
    head = b"PUT /d/chunked HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    check(client, head + b"".join(pieces), caplog)


@LENIENT
@given(method=st.sampled_from(["PROPFIND", "PROPPATCH", "LOCK"]), body=XML_BODIES)
def test_xml(client: Client, caplog: pytest.LogCaptureFixture, method: str, body: bytes) -> None:
    head = f"{method} /d/f HTTP/1.1\r\nHost: h\r\nDepth: 0\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    check(client, head + body, caplog)


def test_afterwards_the_server_is_well(client: Client) -> None:
    assert client.get("/").status == 200  # what is inside may have been deleted
