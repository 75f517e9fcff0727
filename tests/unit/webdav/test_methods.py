"""Each method through the whole gateway, on a file system in memory: what clients see, and what it costs."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from urllib.parse import quote
from xml.etree import ElementTree as ET

import pytest

from helenite.core import errors
from tests.support.gateways import our_gateway
from tests.support.memory_filesystem import MemoryFileSystem
from tests.support.raw_http import Client, Reply, statuses
from webdav.app import Application
from webdav.bodies import XML_BYTES_MAX
from webdav.server import Server

D = "{DAV:}"
NAMED = '<propfind xmlns="DAV:"><prop>{}</prop></propfind>'


@pytest.fixture
def sendfile_client(server: Server) -> Client:
    server.wsgi_app = Application(MemoryFileSystem(with_descriptors=True))  # type: ignore[arg-type]
    return Client(*server.bind_addr)


def multistatus(reply: Reply) -> dict[str, dict[str, dict[int, ET.Element]]]:
    """href -> property name -> status -> element."""
    assert reply.status == 207, reply
    assert reply["Content-Type"] == "application/xml; charset=utf-8"
    found: dict[str, dict[str, dict[int, ET.Element]]] = {}
    for response in ET.fromstring(reply.body).iter(f"{D}response"):
        properties: dict[str, dict[int, ET.Element]] = {}
        for propstat in response.iter(f"{D}propstat"):
            status = int((propstat.findtext(f"{D}status") or "").split()[1])
            for element in propstat.find(f"{D}prop") or ():
                properties.setdefault(element.tag, {})[status] = element
        found[response.findtext(f"{D}href") or ""] = properties
    return found


# GET and HEAD

SHA256 = '<sha-256 xmlns="urn:x-helenite:"/>'


def told_digest(client: Client, path: str) -> str | None:
    element = multistatus(client.propfind(path, NAMED.format(SHA256)))[path]["{urn:x-helenite:}sha-256"].get(200)
    return None if element is None else element.text


def test_a_digest_that_was_verified_is_told(client: Client) -> None:
    content = b"0123456789"
    digest = hashlib.sha256(content)
    header = f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
    assert client.put("/f", content, repr_digest=header).status == 201
    for method, headers in (
        ("GET", {}),
        ("HEAD", {}),
        ("GET", {"Range": "bytes=2-4"}),
        ("GET", {"Range": "bytes=0-1,5-6"}),
    ):
        assert client(method, "/f", headers)["Repr-Digest"] == header, "of the whole file, whatever is sent of it"
    client("COPY", "/f", {"Destination": "/copy"})
    client("MOVE", "/f", {"Destination": "/moved"})
    assert [told_digest(client, path) for path in ("/copy", "/moved")] == [digest.hexdigest()] * 2
    client.put("/moved", b"without")
    assert told_digest(client, "/moved") is None
    assert client.get("/moved").get("Repr-Digest") is None
    assert told_digest(client, "/copy") == digest.hexdigest()


def test_a_digest_is_computed_for_who_wants_it(client: Client, fs: MemoryFileSystem) -> None:
    client.put("/f", b"content")
    etag = client.get("/f")["ETag"]
    wish = {"Want-Repr-Digest": "sha-256=10"}
    assert client("HEAD", "/f").get("Repr-Digest") is None
    assert client.get("/f", want_repr_digest="sha-256=10").get("Repr-Digest") is None, (
        "what is sent need not be read twice"
    )
    right = base64.b64encode(hashlib.sha256(b"content").digest()).decode()
    assert client("HEAD", "/f", wish)["Repr-Digest"] == f"sha-256=:{right}:"
    assert told_digest(client, "/f") == hashlib.sha256(b"content").hexdigest()
    head = client("HEAD", "/f", wish | {"If-Match": etag})
    assert (head.status, head["Repr-Digest"], head["ETag"]) == (200, f"sha-256=:{right}:", etag)
    assert fs.calls["set_digest"] == 1
    assert client("HEAD", "/f", wish | {"If-Match": '"other"'}).status == 412


def test_a_digest_of_what_is_replaced_meanwhile_is_not_kept(client: Client, fs: MemoryFileSystem) -> None:
    client.put("/f", b"content")
    fs.faults["set_digest"] = errors.PreconditionFailedError("it has changed")
    assert client("HEAD", "/f", {"Want-Repr-Digest": "sha-256=10"})["Repr-Digest"]
    assert told_digest(client, "/f") is None


def test_collections_take_bundles_and_say_so(client: Client) -> None:
    members = '<bundle-members xmlns="urn:x-helenite:"/>'
    client.put("/f", b"content")
    found = multistatus(client.propfind("/", NAMED.format(members), depth="1"))
    name = "{urn:x-helenite:}bundle-members"
    assert found["/"][name][200].text == "10000"
    assert list(found["/f"][name]) == [404]


def test_get_and_head(client: Client) -> None:
    put = client.put("/a%20b.txt", b"hello")
    assert put.status == 201
    got = client.get("/a%20b.txt")
    assert (got.status, got.body, got["Content-Type"]) == (200, b"hello", "text/plain; charset=utf-8")
    assert got["ETag"] == put["ETag"]
    assert re.fullmatch(r'"[0-9a-f]+-[0-9a-f]+"', got["ETag"])
    assert got["Last-Modified"] == put["Last-Modified"]
    head = client("HEAD", "/a%20b.txt")
    assert (head.status, head["Content-Length"], head["ETag"]) == (200, "5", got["ETag"])
    assert client("HEAD", "/none").status == 404
    assert client.get("/a%20b.txt/").status == 404


@pytest.mark.parametrize("kind", ["client", "sendfile_client"])
def test_large_content(kind: str, request: pytest.FixtureRequest) -> None:
    client: Client = request.getfixturevalue(kind)
    content = bytes(range(251)) * 20_000
    assert client.put("/f", content).status == 201
    assert client.get("/f").body == content
    assert client.get("/f", range="bytes=1000000-3999999").body == content[1_000_000:4_000_000]


@pytest.mark.parametrize(
    ("wanted", "status", "body", "content_range"),
    [
        ("bytes=0-0", 206, b"0", "bytes 0-0/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-2", 206, b"89", "bytes 8-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=4-1", 200, b"0123456789", None),
        ("pages=1-2", 200, b"0123456789", None),
        ("bytes=" + ",".join(f"{n % 10}-" for n in range(10_000)), 200, b"0123456789", None),
    ],
)
def test_ranges(client: Client, wanted: str, status: int, body: bytes | None, content_range: str | None) -> None:
    client.put("/f", b"0123456789")
    reply = client.get("/f", range=wanted)
    assert (reply.status, reply.get("Content-Range")) == (status, content_range)
    if body is not None:
        assert reply.body == body
    assert client("HEAD", "/f", {"Range": wanted}).status == 200


def test_several_ranges(client: Client) -> None:
    client.put("/f", b"0123456789")
    reply = client.get("/f", range="bytes=8-, 0-1")
    boundary = reply["Content-Type"].partition("boundary=")[2].encode()
    parts = reply.body.split(b"--" + boundary)
    assert len(parts) == 4
    assert parts[1].endswith(b"Content-Range: bytes 8-9/10\r\n\r\n89\r\n")
    assert parts[2].endswith(b"Content-Range: bytes 0-1/10\r\n\r\n01\r\n")
    assert parts[3] == b"--\r\n"


def test_if_range(client: Client) -> None:
    etag = client.put("/f", b"0123456789")["ETag"]
    assert client.get("/f", range="bytes=0-1", if_range=etag).status == 206
    assert client.get("/f", range="bytes=0-1", if_range='"old"').status == 200
    date = client.get("/f")["Last-Modified"]
    assert client.get("/f", range="bytes=0-1", if_range=date).status == 206


def test_not_modified_carries_the_etag(client: Client) -> None:
    etag = client.put("/f", b"x")["ETag"]
    reply = client.get("/f", if_none_match=f'"a", {etag}')
    assert (reply.status, reply.body, reply["ETag"]) == (304, b"", etag)
    assert client.get("/f", if_match='"other"').status == 412


def test_lost_content_breaks_the_connection(fs: MemoryFileSystem, client: Client) -> None:
    client.put("/f", b"x" * 3_000_000)

    class Broken:
        def __init__(self, inner: object) -> None:
            self._inner = inner

        def __enter__(self) -> Broken:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def segments(self, offset: int, length: int) -> Iterator[object]:
            yield next(iter(self._inner.segments(offset, length)))  # type: ignore[attr-defined]
            raise errors.ContentLostError("no replica is left")

    whole = fs.open_view
    fs.open_view = lambda view: Broken(whole(view))  # type: ignore[method-assign,assignment,return-value]
    with client.connect() as connection:
        connection.send(client.head("GET", "/f"))
        received = connection.read_to_end()
    assert statuses(received) == [200]
    assert len(received) < 3_000_000


def test_the_page_of_a_directory(client: Client) -> None:
    client("MKCOL", "/d")
    client("MKCOL", "/d/sub")
    for name in ("%3Cscript%3E", "a%20&%20b", "%23%3F"):
        assert client.put(f"/d/{name}", b"x" * 2000).status == 201
    page = client.get("/d")
    assert page["Content-Type"] == "text/html; charset=utf-8"
    assert "<script>" not in page.text
    assert "&lt;script&gt;" in page.text
    for link in re.findall('href="([^"]*)"', page.text):
        assert client.get(link.replace("&amp;", "&")).status == 200, link
    assert page.text.index("sub/") < page.text.index("&lt;script")
    assert "2.0 KiB" in page.text
    assert client.get("/d/", if_none_match=page["ETag"]).status == 304
    assert client("HEAD", "/d").status == 200


def test_a_reading_costs_one_round_trip(fs: MemoryFileSystem, client: Client) -> None:
    client.put("/f", b"x")
    fs.calls.clear()
    client.get("/f")
    client("HEAD", "/f")
    client.get("/f", if_none_match='"x"')
    assert fs.calls == {"lookup": 3}


# PUT


def test_put_replaces(client: Client) -> None:
    first = client.put("/f", b"1")
    second = client.put("/f", b"22")
    assert (first.status, second.status) == (201, 204)
    assert first["ETag"] != second["ETag"]
    assert client.get("/f").body == b"22"


def test_a_small_put_costs_one_round_trip(fs: MemoryFileSystem, client: Client) -> None:
    client.put("/f", b"x")
    assert fs.calls == {"commit": 1}


def test_chunked_put(client: Client) -> None:
    with client.connect() as connection:
        connection.send(client.head("PUT", "/f", {"Transfer-Encoding": "chunked"}))
        connection.send(b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nTrailer: z\r\n\r\n")
        assert connection.read_reply().status == 201
        connection.send(client.head("GET", "/f"))
        assert connection.read_reply().body == b"hello!"


@pytest.mark.parametrize(
    "body",
    [
        b"5\r\nhello",
        b"5\r\nhello\r\n",
        b"zz\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello!\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"5\r\nhello\r\n0\r\nbroken" + b"x" * 10000,
        b"F" * 5000,
    ],
)
def test_broken_chunks_change_nothing(client: Client, body: bytes) -> None:
    client.put("/f", b"old")
    with client.connect() as connection:
        connection.send(client.head("PUT", "/f", {"Transfer-Encoding": "chunked"}) + body)
        connection.finish_sending()
        assert statuses(connection.read_to_end()) in ([400], [])
    assert client.get("/f").body == b"old"


def test_finders_announced_length(client: Client) -> None:
    headers = {"Transfer-Encoding": "chunked", "X-Expected-Entity-Length": "5"}
    for body, status in ((b"5\r\nhello\r\n0\r\n\r\n", 201), (b"0\r\n\r\n", 400), (b"6\r\nhello!\r\n0\r\n\r\n", 400)):
        with client.connect() as connection:
            connection.send(client.head("PUT", "/f", headers) + body)
            assert connection.read_reply().status == status
    assert client.get("/f").body == b"hello"


def test_more_bytes_than_announced_are_another_request(client: Client) -> None:
    with client.connect() as connection:
        connection.send(client.head("PUT", "/f", {"Content-Length": "5"}) + b"hello" + client.head("GET", "/f"))
        assert connection.read_reply().status == 201
        assert connection.read_reply().body == b"hello"


@pytest.mark.parametrize(
    ("setup", "headers", "status"),
    [
        ("", {"If-None-Match": "*"}, 412),
        ("", {"If-Match": '"old"'}, 412),
        ("lock", {}, 423),
        ("", {"Content-Encoding": "gzip"}, 415),
        ("", {"Content-Range": "bytes 0-4/10"}, 400),
        ("", {"X-OC-Mtime": "soon"}, 400),
        ("full", {}, 507),
    ],
)
def test_a_refused_upload_sends_no_body(
    fs: MemoryFileSystem, client: Client, setup: str, headers: dict[str, str], status: int
) -> None:
    client.put("/f", b"old")
    if setup == "lock":
        client.token("/f")
    if setup == "full":
        fs.free_bytes = 10
    with client.connect() as connection:
        head = client.head("PUT", "/f", {"Content-Length": "100000", "Expect": "100-continue", **headers})
        connection.send(head)
        assert statuses(connection.read_line()) == [status]
    assert client.get("/f").body == b"old"


@pytest.mark.parametrize(
    ("target", "status"), [("/d", 405), ("/d/", 405), ("/", 405), ("/none/f", 409), ("/file/f", 409)]
)
@pytest.mark.parametrize("size", [1, 100_000])
def test_where_a_put_cannot_be(client: Client, target: str, status: int, size: int) -> None:
    client("MKCOL", "/d")
    client.put("/file", b"x")
    reply = client.put(target, b"x" * size)
    assert reply.status == status
    if status == 405:
        assert "PROPFIND" in reply["Allow"]


def test_digests(client: Client) -> None:
    right = base64.b64encode(hashlib.sha256(b"content").digest()).decode()
    assert client.put("/f", b"content", repr_digest=f"sha-256=:{right}:").status == 201
    assert client.put("/f", b"damaged", repr_digest=f"sha-256=:{right}:").status == 400
    assert client.put("/f", b"damaged", oc_checksum="MD5:" + "0" * 32).status == 400
    assert client.put("/f", b"damaged", content_md5=base64.b64encode(b"0" * 16).decode()).status == 400
    assert client.get("/f").body == b"content"


def test_preconditions_are_checked_again_at_the_commit(fs: MemoryFileSystem, client: Client) -> None:
    etag = client.put("/f", b"old")["ETag"]
    with client.connect() as connection:
        connection.send(
            client.head("PUT", "/f", {"Content-Length": "100000", "If-Match": etag, "Expect": "100-continue"})
        )
        connection.read_continue()  # the condition held when it was asked first
        assert client.put("/f", b"other").status == 204
        connection.send(b"x" * 100_000)
        assert connection.read_reply().status == 412
    assert client.get("/f").body == b"other"


def test_two_creators_one_wins(client: Client) -> None:
    with client.connect() as connection:
        connection.send(
            client.head("PUT", "/f", {"Content-Length": "5", "If-None-Match": "*", "Expect": "100-continue"})
        )
        connection.read_continue()
        assert client.put("/f", b"first", if_none_match="*").status == 201
        connection.send(b"other")
        assert connection.read_reply().status == 412
    assert client.get("/f").body == b"first"


# MKCOL, DELETE, COPY, MOVE


def test_mkcol(client: Client) -> None:
    assert client("MKCOL", "/d/").status == 201
    assert client("MKCOL", "/d").status == 405
    assert client("MKCOL", "/").status == 405
    assert client("MKCOL", "/none/d").status == 409
    assert client("MKCOL", "/e", {}, b"<x/>").status == 415
    assert client("MKCOL", "/e", {"X-OC-Mtime": "1600000000"})["X-OC-Mtime"] == "accepted"
    assert client("HEAD", "/e")["Last-Modified"] == "Sun, 13 Sep 2020 12:26:40 GMT"


def test_delete(fs: MemoryFileSystem, client: Client) -> None:
    client("MKCOL", "/d")
    client.put("/d/f", b"x")
    assert client("DELETE", "/d", {"Depth": "0"}).status == 400
    assert client("DELETE", "/d", {"If-Match": '"x"'}).status == 412
    fs.calls.clear()
    assert client("DELETE", "/d").status == 204
    assert fs.calls == {"remove": 1}
    assert client("DELETE", "/d").status == 404
    assert client("DELETE", "/").status == 403


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
def test_copy_and_move(client: Client, method: str) -> None:
    def to(target: str, **headers: str) -> int:
        return client(method, "/s", {"Destination": target, **headers}).status

    client("MKCOL", "/s")
    client.put("/s/f", b"x")
    client.put("/t", b"y")
    assert to("/t", Overwrite="F") == 412
    assert to("/none/t") == 409
    assert to("/s") == 403
    assert to("/s/inside") == 403
    assert to("/") == 403
    assert to("http://elsewhere.example/t") == 502
    assert to("/../t") == 400
    assert to("/t", Overwrite="maybe") == 400
    assert to("/t", Depth="1") == 400
    assert client(method, "/s").status == 400
    assert client(method, "/none", {"Destination": "/t"}).status == 404
    assert client.get("/t").body == b"y"
    assert to("/t/") == 204
    assert client.get("/t/f").body == b"x"
    assert client.get("/s/f").status == (200 if method == "COPY" else 404)


def test_a_copy_is_described_by_its_answer(client: Client) -> None:
    etag = client.put("/f", b"x")["ETag"]
    assert client("COPY", "/f", {"Destination": "/g", "If-Match": '"1-1"'}).status == 412
    reply = client("COPY", "/f", {"Destination": "/g", "If-Match": etag, "Overwrite": "F"})
    assert reply.status == 201
    assert client.get("/g")["ETag"] == reply["ETag"] != etag
    found = client.propfind("/g", '<propfind xmlns="DAV:"><prop><resource-id/></prop></propfind>')
    assert reply["Resource-Id"] in found.text


def test_shallow_copy(client: Client) -> None:
    client("MKCOL", "/s")
    client.put("/s/f", b"x")
    assert client("COPY", "/s", {"Destination": "/t", "Depth": "0"}).status == 201
    assert client.get("/t/f").status == 404
    assert client("MOVE", "/s", {"Destination": "/u", "Depth": "0"}).status == 400


def test_allowed_hosts() -> None:
    with our_gateway(allowed_hosts=("Drive.Example",)) as client:
        client.put("/f", b"x")
        assert client("MOVE", "/f", {"Destination": "https://drive.example/g"}).status == 201


# PROPFIND and PROPPATCH


def test_propfind_of_a_directory_is_one_round_trip(fs: MemoryFileSystem, client: Client) -> None:
    client("MKCOL", "/d")
    client.put("/d/f%20&", b"12345")
    client("MKCOL", "/d/sub")
    fs.calls.clear()
    found = multistatus(client.propfind("/d", NAMED.format("<getcontentlength/><resourcetype/>"), depth="1"))
    assert fs.calls == {"list": 1}
    assert set(found) == {"/d/", "/d/f%20%26", "/d/sub/"}
    assert found["/d/f%20%26"][f"{D}getcontentlength"][200].text == "5"
    assert 404 in found["/d/"][f"{D}getcontentlength"]
    assert found["/d/sub/"][f"{D}resourcetype"][200].find(f"{D}collection") is not None


def test_depths(client: Client) -> None:
    client.put("/f", b"x")
    for headers in ({}, {"Depth": "infinity"}):
        refused = client("PROPFIND", "/", headers)
        assert refused.status == 403
        assert b"propfind-finite-depth" in refused.body
    assert client("PROPFIND", "/", {"Depth": "2"}).status == 400
    assert set(multistatus(client.propfind("/f", depth="1"))) == {"/f"}
    assert client.propfind("/none").status == 404


def test_all_properties(client: Client) -> None:
    client.put("/f.txt", b"x")
    _set(client, "/f.txt", '<x:color xmlns:x="urn:x">red</x:color>')
    found = multistatus(client.propfind("/f.txt"))["/f.txt"]
    assert found["{urn:x}color"][200].text == "red"
    assert found[f"{D}getcontenttype"][200].text == "text/plain; charset=utf-8"
    assert found[f"{D}displayname"][200].text == "f.txt"
    assert f"{D}quota-used-bytes" not in found
    assert f"{D}getetag" in found


def test_names_of_properties(client: Client) -> None:
    client.put("/f", b"x")
    _set(client, "/f", '<x:color xmlns:x="urn:x">red</x:color>')
    found = multistatus(client.propfind("/f", '<propfind xmlns="DAV:"><propname/></propfind>'))["/f"]
    assert {"{urn:x}color", f"{D}getetag", f"{D}lockdiscovery"} <= set(found)
    assert all(element.text is None and len(element) == 0 for by in found.values() for element in by.values())


def test_quota_and_resource_id(fs: MemoryFileSystem, client: Client) -> None:
    told = client.put("/f", b"12345")["Resource-Id"]
    asked = NAMED.format("<quota-available-bytes/><quota-used-bytes/><resource-id/>")
    root = multistatus(client.propfind("/", asked))["/"]
    assert root[f"{D}quota-used-bytes"][200].text == "5"
    assert int(root[f"{D}quota-available-bytes"][200].text or "") == fs.free_bytes
    before = multistatus(client.propfind("/f", asked))["/f"][f"{D}resource-id"][200][0].text
    client("MOVE", "/f", {"Destination": "/g"})
    after = multistatus(client.propfind("/g", asked))["/g"][f"{D}resource-id"][200][0].text
    assert told == before == after
    assert told.startswith("urn:uuid:")


def test_brief_answers_leave_out_what_is_missing(client: Client) -> None:
    client.put("/f", b"x")
    body = NAMED.format("<getetag/><none/>")
    assert b"404" in client.propfind("/f", body).body
    assert b"404" not in client.propfind("/f", body, brief="t").body
    assert b"404" not in client.propfind("/f", body, prefer="return=minimal").body


def test_a_large_listing_is_streamed(fs: MemoryFileSystem, client: Client) -> None:
    for number in range(3000):
        fs.make_directory((f"directory {number}",))
    reply = client.propfind("/", depth="1")
    assert reply["Transfer-Encoding"] == "chunked"
    assert len(multistatus(reply)) == 3001


def _set(client: Client, target: str, properties: str, status: int = 200, **headers: str) -> Reply:
    body = f'<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop>{properties}</D:prop></D:set></D:propertyupdate>'
    reply = client("PROPPATCH", target, headers, body.encode())
    assert f"HTTP/1.1 {status}" in reply.text, reply
    return reply


def test_proppatch_is_all_or_nothing(fs: MemoryFileSystem, client: Client) -> None:
    client.put("/f", b"x")
    fs.calls.clear()
    reply = _set(client, "/f", '<a xmlns="urn:x">1</a><D:getetag>"mine"</D:getetag>', 403)
    assert "cannot-modify-protected-property" in reply.text
    assert "HTTP/1.1 424" in reply.text
    assert fs.calls == {"lookup": 1}
    asked = NAMED.format('<a xmlns="urn:x"/>')
    assert 404 in multistatus(client.propfind("/f", asked))["/f"]["{urn:x}a"]
    _set(client, "/f", '<a xmlns="urn:x">1</a>')
    assert multistatus(client.propfind("/f", asked))["/f"]["{urn:x}a"][200].text == "1"
    assert client("PROPPATCH", "/none", {}, b"").status == 400


def test_properties_follow_the_entry(client: Client) -> None:
    asked = NAMED.format('<a xmlns="urn:x"/>')
    client.put("/f", b"x")
    _set(client, "/f", '<a xmlns="urn:x">1</a>')
    client("COPY", "/f", {"Destination": "/g"})
    client("MOVE", "/f", {"Destination": "/h"})
    for target in ("/g", "/h"):
        assert multistatus(client.propfind(target, asked))[target]["{urn:x}a"][200].text == "1"


@pytest.mark.parametrize(
    ("element", "name"),
    [
        ("<D:getlastmodified>Sun, 13 Sep 2020 12:26:40 GMT</D:getlastmodified>", f"{D}getlastmodified"),
        ("<D:lastmodified>1600000000</D:lastmodified>", f"{D}lastmodified"),
        ('<modified-ms xmlns="urn:x-helenite:">1600000000123</modified-ms>', "{urn:x-helenite:}modified-ms"),
        (
            '<Win32LastModifiedTime xmlns="urn:schemas-microsoft-com:">Sun, 13 Sep 2020 12:26:40 GMT'
            "</Win32LastModifiedTime>",
            "{urn:schemas-microsoft-com:}Win32LastModifiedTime",
        ),
    ],
)
def test_times_that_can_be_set(client: Client, element: str, name: str) -> None:
    etag = client.put("/f", b"x")["ETag"]
    _set(client, "/f", element)
    got = client.get("/f")
    assert (got["Last-Modified"], got["ETag"]) == ("Sun, 13 Sep 2020 12:26:40 GMT", etag)
    namespace, _, local = name[1:].partition("}")
    found = multistatus(client.propfind("/f", NAMED.format(f'<{local} xmlns="{namespace}"/>')))["/f"]
    assert 200 in found[name]
    _set(client, "/f", element.replace("2020", "soon").replace("1600000000", "soon"), 409)


def test_windows_sets_its_properties_under_its_own_lock(client: Client) -> None:
    client.put("/f", b"x")
    client.token("/f")
    _set(client, "/f", '<Win32FileAttributes xmlns="urn:schemas-microsoft-com:">00000020</Win32FileAttributes>')
    body = b'<propertyupdate xmlns="DAV:"><set><prop><a xmlns="urn:x"/></prop></set></propertyupdate>'
    assert client("PROPPATCH", "/f", {}, body).status == 423


@pytest.mark.parametrize("method", ["PROPFIND", "PROPPATCH", "LOCK"])
def test_xml_that_is_refused(client: Client, method: str) -> None:
    client.put("/f", b"x")
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaa">]><propfind xmlns="DAV:"><prop>&a;</prop></propfind>'
    for body in (b"<", b"<x/>", bomb, b"\xff\xfe\x00", b"<a>" * 2000):
        assert client(method, "/f", {"Depth": "0"}, body).status == 400
    assert client(method, "/f", {"Depth": "0"}, b" " * (XML_BYTES_MAX + 1)).status == 413


# Locks


def test_lock_refresh_unlock(client: Client) -> None:
    created = client.lock("/f")
    assert created.status == 201
    token = created["Lock-Token"]
    assert re.fullmatch("<urn:uuid:[0-9a-f-]{36}>", token)
    active = ET.fromstring(created.body).find(f"{D}lockdiscovery/{D}activelock")
    assert active is not None
    assert active.findtext(f"{D}timeout") == "Second-600"
    assert active.findtext(f"{D}owner") == "me"
    assert active.findtext(f"{D}lockroot/{D}href") == "/f"
    assert active.findtext(f"{D}locktoken/{D}href") == token[1:-1]
    assert client.lock("/f").status == 423
    refreshed = client("LOCK", "/f", {"If": f"({token})", "Timeout": "Infinite, Second-4100000000"})
    assert refreshed.status == 200
    assert b"Second-3600" in refreshed.body
    assert client("LOCK", "/f", {"If": "(<urn:uuid:none>)"}).status == 412
    assert client("LOCK", "/f").status == 400
    assert client.put("/f", b"x").status == 423
    assert client.put("/f", b"x", **{"if": f"({token})"}).status == 204
    assert client("UNLOCK", "/f", {"Lock-Token": "<urn:uuid:none>"}).status == 409
    assert client("UNLOCK", "/f").status == 400
    assert client("UNLOCK", "/f", {"Lock-Token": token[1:-1]}).status == 204
    assert client.put("/f", b"y").status == 204


def test_refusals_name_the_lock(client: Client) -> None:
    client.lock("/f")
    assert b"<D:lock-token-submitted><D:href>/f</D:href>" in client.put("/f", b"x").body
    assert b"<D:no-conflicting-lock>" in client.lock("/f").body


def test_inherited_locks_are_discovered(client: Client) -> None:
    client("MKCOL", "/d")
    client.put("/d/f", b"x")
    token = client.token("/d", depth="infinity")
    found = multistatus(client.propfind("/d/f", NAMED.format("<lockdiscovery/>")))["/d/f"]
    discovery = found[f"{D}lockdiscovery"][200]
    assert discovery.findtext(f"{D}activelock/{D}locktoken/{D}href") == token[1:-1]
    assert discovery.findtext(f"{D}activelock/{D}lockroot/{D}href") == "/d"


def test_the_if_header_needs_the_token_to_be_of_this_resource(client: Client) -> None:
    client.put("/f", b"x")
    client.put("/g", b"x")
    token = client.token("/g")
    assert client.put("/f", b"y", **{"if": f"({token})"}).status == 412
    assert client.put("/f", b"y", **{"if": f"<{client.base}/g> ({token})"}).status == 204
    assert client.put("/f", b"y", **{"if": "(<urn:x>) (Not <DAV:no-lock>)"}).status == 204
    assert client.put("/f", b"y", **{"if": "(<broken"}).status == 400


def test_the_if_header_of_a_free_name_in_a_locked_directory(client: Client) -> None:
    client("MKCOL", "/d")
    token = client.token("/d", depth="infinity")
    assert client.put("/d/f", b"x").status == 423
    assert client.put("/d/f", b"x", **{"if": f"({token})"}).status == 201
    assert client("DELETE", "/d/f", {"If": f"<{client.base}/d> ({token})"}).status == 204


# The rest


def test_options(client: Client) -> None:
    client("MKCOL", "/d")
    client.put("/f", b"x")
    for target, has, has_not in (("/d", "PROPFIND", "MKCOL"), ("/f", "PUT", "MKCOL"), ("/free", "MKCOL", "GET")):
        reply = client("OPTIONS", target)
        allowed = reply["Allow"].split(", ")
        assert has in allowed
        assert has_not not in allowed
        assert reply["DAV"] == "1, 2, 3"
        assert reply["MS-Author-Via"] == "DAV"
    assert client("OPTIONS", "*").status == 200


@pytest.mark.parametrize("method", ["LINK", "SEARCH", "TRACE", "CONNECT", "NONSENSE", "get"])
def test_unknown_methods(client: Client, method: str) -> None:
    assert client(method, "/").status == 501


@pytest.mark.parametrize(
    "target",
    ["/../x", "/%2e%2e/x", "/a/%2E%2e/x", "/%00", "/%ff", "/%c0%ae", "/" + "x" * 300, "/" + "a/" * 300, "/%zz"],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "MKCOL", "DELETE", "PROPFIND", "LOCK"])
def test_paths_that_cannot_be(fs: MemoryFileSystem, client: Client, method: str, target: str) -> None:
    assert client(method, target, {"Depth": "0"}).status == 400
    assert "commit" not in fs.calls


@pytest.mark.parametrize(
    "name",
    [
        "a b",
        "%",
        "#",
        "?",
        "+",
        "&",
        "\"'",
        "\\",
        ";=",
        "\U0001f600",
        "\u00e9",
        "e\u0301",
        "x" * 255,
        "\u20ac" * 85,
        "\x7f",
    ],
)
def test_names(client: Client, name: str) -> None:
    target = "/" + quote(name, safe="")
    assert client.put(target, name.encode()).status == 201
    (href,) = (h for h in multistatus(client.propfind("/", depth="1")) if h != "/")
    assert client.get(href).body == name.encode()
    assert client("MOVE", href, {"Destination": f"{client.base}{href}2"[:2000]}).status in {201, 400}


def test_deep_trees(client: Client) -> None:
    target = ""
    for level in range(100):
        target += f"/{level}"
        assert client("MKCOL", target).status == 201
    assert client.put(f"{target}/f", b"deep").status == 201
    assert client.get(f"{target}/f").body == b"deep"


def test_an_unreachable_cluster_is_a_503(fs: MemoryFileSystem, client: Client) -> None:
    fs.faults["lookup"] = errors.UnavailableError("no master answers")
    reply = client.get("/f")
    assert (reply.status, reply["Retry-After"]) == (503, "2")


def test_a_full_cluster_is_a_507(fs: MemoryFileSystem, client: Client) -> None:
    fs.faults["commit"] = errors.InsufficientStorageError("no room")
    assert client.put("/f", b"x").status == 507
