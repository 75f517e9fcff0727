"""Each method through the whole gateway, on a file system in memory: what clients see, and what it costs."""

from __future__ import annotations

import base64
import hashlib
import re
from urllib.parse import quote
from xml.etree import ElementTree as ET

import pytest

from helenite.core import errors
from tests.support.gateways import our_gateway
from tests.support.memory_filesystem import MemoryFileSystem
from tests.support.multistatus import NAMED, D, multistatus
from tests.support.raw_http import Client, statuses

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
