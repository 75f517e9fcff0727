"""GET and HEAD through the whole gateway, on a file system in memory: what clients see, and what it costs."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator

import pytest

from helenite.core import errors
from tests.support.memory_filesystem import MemoryFileSystem
from tests.support.multistatus import NAMED, multistatus
from tests.support.raw_http import Client, statuses

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


def test_large_content(client: Client) -> None:
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

        def iterate(self, offset: int, length: int) -> Iterator[object]:
            yield next(iter(self._inner.iterate(offset, length)))  # type: ignore[attr-defined]
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


@pytest.mark.parametrize("name", ["a.html", "a.htm", "a.xhtml", "a.svg", "a.xml", "a.HTML"])
def test_what_may_bring_scripts_is_shown_in_a_sandbox(client: Client, name: str) -> None:
    client.put(f"/{name}", b"<script>alert(1)</script>")
    reply = client.get(f"/{name}")
    assert (reply.status, reply["Content-Security-Policy"]) == (200, "sandbox")
    assert client("GET", f"/{name}", {"Range": "bytes=0-3"})["Content-Security-Policy"] == "sandbox"


@pytest.mark.parametrize("name", ["a.txt", "a.pdf", "a.png", "a.bin", "a.css"])
def test_other_files_are_shown_as_they_are(client: Client, name: str) -> None:
    client.put(f"/{name}", b"content")
    assert client.get(f"/{name}").get("Content-Security-Policy") is None
