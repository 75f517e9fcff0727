"""Every known defect of WsgiDAV 4.4: ours must pass each probe, and the stock server must fail it.

webdav/COMPLIANCE.md refers to the numbers. A probe that the stock server passes proves nothing, so that
is a failure too; it tells when a new version has mended something.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from wsgidav.fs_dav_provider import FilesystemProvider

from tests.support.gateways import our_gateway, stock_gateway
from tests.support.memory_filesystem import MemoryFileSystem
from tests.support.raw_http import Client, statuses

Probe = Callable[[Client], None]
PROBES: dict[str, tuple[Probe, str]] = {}
SILENT_S = 1.0
"""After this, the stock server will not say any more."""

LOCKINFO = b'<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>'


def probe(name: str, user: str = "") -> Callable[[Probe], Probe]:
    def register(function: Probe) -> Probe:
        PROBES[name] = (function, user)
        return function

    return register


class StreamingProvider(FilesystemProvider):  # type: ignore[misc]
    """Stock, with one resource whose length is not known beforehand."""

    def custom_request_handler(self, environ: Any, start_response: Any, default_handler: Any) -> Any:
        if environ["PATH_INFO"] != "/streamed":
            return default_handler(environ, start_response)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter([b"x" * 400_000])


@pytest.fixture
def ours(request: pytest.FixtureRequest) -> Iterator[Client]:
    file_system = MemoryFileSystem()
    file_system.make_directory(("streamed",))
    for number in range(1500):
        file_system.make_directory(("streamed", f"a rather long name, number {number:05d}"))
    with our_gateway(file_system, user=request.param) as client:
        yield client


@pytest.fixture
def stock(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    with stock_gateway(tmp_path, user=request.param, provider=StreamingProvider(str(tmp_path))) as client:
        yield replace(client, patience_s=SILENT_S)


# Data loss


@probe("1 a PUT that was cut off leaves nothing behind")
def _(client: Client) -> None:
    client.put("/kept", b"the old content")
    for name in ("/kept", "/new"):
        with client.connect() as connection:
            connection.send(client.head("PUT", name, {"Content-Length": "1000"}) + b"abc")
            connection.finish_sending()
            connection.read_to_end()
    assert client.get("/kept").body == b"the old content"
    assert client.get("/new").status == 404


@probe("2 If-Match on a free name fails")
def _(client: Client) -> None:
    assert client.put("/free", b"x", if_match="*").status == 412
    assert client.put("/free", b"x", if_match='"zzz"').status == 412
    assert client.get("/free").status == 404


@probe("3 a tagged If list with a wrong ETag fails")
def _(client: Client) -> None:
    client.put("/f", b"old")
    assert client.put("/f", b"new", **{"if": f'<{client.base}/f> (["bogus"])'}).status == 412
    assert client.get("/f").body == b"old"


@probe("4 an encoded ; or ? in a Destination belongs to the name")
def _(client: Client) -> None:
    for encoded in ("a%3Bb.txt", "q%3Fr.txt"):
        client.put("/source", b"x")
        assert client("MOVE", "/source", {"Destination": f"{client.base}/{encoded}"}).status == 201
        assert client.get(f"/{encoded}").body == b"x"


@probe("5 MOVE works behind a proxy that ends TLS")
def _(client: Client) -> None:
    client.put("/source", b"x")
    headers = {"Destination": "https://drive.example/target", "X-Forwarded-Host": "drive.example"}
    assert client("MOVE", "/source", headers).status == 201
    assert client("MOVE", "/target", {"Destination": f"webdavs://{client.host}:{client.port}/other"}).status == 201


@probe("6 If-Modified-Since with the very date answers 304, and If-None-Match goes before it")
def _(client: Client) -> None:
    client.put("/f", b"x")
    known = client.get("/f")
    assert client.get("/f", if_modified_since=known["Last-Modified"]).status == 304
    later = "Fri, 01 Jan 2100 00:00:00 GMT"
    assert client.get("/f", if_none_match=known["ETag"], if_modified_since=later).status == 304


@probe("7 a refused LOCK of a free name creates nothing")
def _(client: Client) -> None:
    client("MKCOL", "/d")
    client.token("/d", depth="infinity")
    assert client.lock("/d/new").status == 423
    assert client.get("/d/new").status == 404


@probe("8 nothing is visible while a PUT is under way")
def _(client: Client) -> None:
    with client.connect() as connection:
        connection.send(client.head("PUT", "/f", {"Content-Length": "200000"}) + b"x" * 100_000)
        for _ in range(20):  # stock creates the name within milliseconds; ours never before the commit
            assert client.get("/f").status == 404
            time.sleep(0.01)
        connection.send(b"y" * 100_000)
        assert connection.read_reply().status == 201
    assert len(client.get("/f").body) == 200_000


# Connections


@probe("9 idle connections after chunked PUTs hold no threads")
def _(client: Client) -> None:
    idle = [client.connect() for _ in range(8)]  # twice the threads
    try:
        for number, connection in enumerate(idle):
            head = client.head("PUT", f"/c{number}", {"Transfer-Encoding": "chunked"})
            connection.send(head + b"5\r\nhello\r\n0\r\n\r\n")
            assert connection.read_reply(patience_s=client.patience_s).status == 201
        assert client("GET", "/c0", patience_s=client.patience_s).body == b"hello"
    finally:
        for connection in idle:
            connection.sock.close()


@probe("10 a refused upload is refused at once, without collecting its body", user="u")
def _(client: Client) -> None:
    with client.connect() as connection:
        connection.send(client.head("PUT", "/big", {"Content-Length": str(200 * 1024 * 1024)}))
        assert connection.read_reply(patience_s=client.patience_s).status == 401


@probe("11 the chunked body of a refused request is never taken for a request", user="u")
def _(client: Client) -> None:
    with client.connect() as connection:
        smuggled = b"GET /f HTTP/1.1\r\nHost: x\r\nX: smuggled-----\r\n\r\n"
        head = client.head("PUT", "/c", {"Transfer-Encoding": "chunked"})
        connection.send(head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(smuggled), smuggled))
        assert statuses(connection.read_to_end()) == [401]


@probe("12 100 Continue waits until the request is known to be welcome", user="u")
def _(client: Client) -> None:
    with client.connect() as connection:
        connection.send(client.head("PUT", "/c", {"Content-Length": "100", "Expect": "100-continue"}))
        assert b" 401 " in connection.read_line()


# Content


@probe("13 several ranges come as multipart, malformed ones are ignored")
def _(client: Client) -> None:
    client.put("/f", b"0123456789")
    several = client.get("/f", range="bytes=0-0,3-4")
    assert several["Content-Type"].startswith("multipart/byteranges")
    assert b"\r\n\r\n0\r\n" in several.body
    assert b"\r\n\r\n34\r\n" in several.body
    assert client.get("/f", range="bytes=4-1").status == 200


@probe("14 propname lists names")
def _(client: Client) -> None:
    client.put("/f", b"x")
    reply = client.propfind("/f", '<propfind xmlns="DAV:"><propname/></propfind>')
    assert "getetag/>" in reply.text


@probe("14b allprop with include")
def _(client: Client) -> None:
    body = '<propfind xmlns="DAV:"><allprop/><include><quota-used-bytes/><resource-id/></include></propfind>'
    reply = client.propfind("/", body)
    assert "resource-id>" in reply.text


@probe("15 the getetag property has its quotes, as the header has")
def _(client: Client) -> None:
    client.put("/f", b"x")
    etag = client.get("/f")["ETag"]
    assert f"getetag>{etag}<" in client.propfind("/f", '<propfind xmlns="DAV:"><prop><getetag/></prop></propfind>').text


def _proppatch(client: Client, target: str, properties: str, **headers: str) -> str:
    body = f'<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop>{properties}</D:prop></D:set></D:propertyupdate>'
    reply = client("PROPPATCH", target, headers, body.encode())
    assert reply.status == 207, reply
    return reply.text


@probe("16 Windows can set its file times and attributes")
def _(client: Client) -> None:
    client.put("/f", b"x")
    text = _proppatch(
        client,
        "/f",
        '<Z:Win32LastModifiedTime xmlns:Z="urn:schemas-microsoft-com:">Mon, 12 Oct 2020 10:00:00 GMT'
        '</Z:Win32LastModifiedTime><Z:Win32FileAttributes xmlns:Z="urn:schemas-microsoft-com:">00000020'
        "</Z:Win32FileAttributes>",
    )
    assert "200 OK" in text
    assert not re.search("403|409|424", text)
    assert client.get("/f")["Last-Modified"] == "Mon, 12 Oct 2020 10:00:00 GMT"


@probe("17 modification times can be set in the ways that rclone uses")
def _(client: Client) -> None:
    reply = client.put("/f", b"x", x_oc_mtime="1600000000.25")
    assert (reply.status, reply.get("X-OC-Mtime")) == (201, "accepted")
    assert client.get("/f")["Last-Modified"] == "Sun, 13 Sep 2020 12:26:40 GMT"
    assert "200 OK" in _proppatch(client, "/f", "<D:lastmodified>1500000000</D:lastmodified>")
    assert client.get("/f")["Last-Modified"] == "Fri, 14 Jul 2017 02:40:00 GMT"


@probe("18 OPTIONS tells what is possible")
def _(client: Client) -> None:
    reply = client("OPTIONS", "/free")
    assert "LOCK" in reply["Allow"]
    assert "3" in reply["DAV"]
    assert client.get("/")["DAV"]


@probe("19 DELETE and UNLOCK ignore a body")
def _(client: Client) -> None:
    client.put("/f", b"x")
    token = client.token("/f")
    assert client("UNLOCK", "/f", {"Lock-Token": token}, b"ignored").status == 204
    assert client("DELETE", "/f", {}, b"ignored").status == 204


@probe("20 If-Modified-Since means nothing to a PUT, If means something to a PROPFIND")
def _(client: Client) -> None:
    client.put("/f", b"x", x_oc_mtime="1600000000")
    assert client.propfind("/f", **{"if": '(["bogus"])'}).status == 412
    date = client.get("/f")["Last-Modified"]
    future = "Fri, 01 Jan 2100 00:00:00 GMT"
    assert client.put("/f", b"y", if_modified_since=future).status == 204
    assert client.put("/f", b"y", if_modified_since=date).status == 204


@probe("21 a path that is no UTF-8 is the client's mistake; an encoded slash is no separator")
def _(client: Client) -> None:
    assert client.get("/%ff%fe").status == 400
    assert client.get("/a%2Fb").status == 400


@probe("22 MOVE of a tree with locks inside works with their tokens")
def _(client: Client) -> None:
    client("MKCOL", "/d")
    client.put("/d/f", b"x")
    token = client.token("/d/f")
    headers = {"Destination": f"{client.base}/e", "If": f"<{client.base}/d/f> ({token})"}
    assert client("MOVE", "/d", headers).status == 201
    assert client.get("/e/f").body == b"x"


@probe("23 a streamed response does not cost the connection")
def _(client: Client) -> None:
    with client.connect() as connection:
        method = "PROPFIND" if client.propfind("/streamed").status == 207 else "GET"  # there is none in stock
        for _ in range(2):
            connection.send(client.head(method, "/streamed", {"Depth": "1" if method == "PROPFIND" else "0"}))
            reply = connection.read_reply()
            assert reply.get("Transfer-Encoding") == "chunked"
            assert reply.get("Connection") is None
            assert len(reply.body) > 300_000


CASES = [pytest.param(function, user, id=name) for name, (function, user) in PROBES.items()]


@pytest.mark.parametrize(("function", "ours"), CASES, indirect=["ours"])
def test_ours_is_right(function: Probe, ours: Client) -> None:
    function(ours)


@pytest.mark.parametrize(("function", "stock"), CASES, indirect=["stock"])
def test_stock_has_the_defect(function: Probe, stock: Client) -> None:
    with pytest.raises((AssertionError, KeyError)):
        function(stock)
