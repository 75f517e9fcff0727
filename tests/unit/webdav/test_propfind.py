"""PROPFIND and PROPPATCH through the whole gateway, on a file system in memory: what clients see, and what it costs."""

from __future__ import annotations

import pytest

from tests.support.memory_filesystem import MemoryFileSystem
from tests.support.multistatus import NAMED, D, multistatus
from tests.support.raw_http import Client, Reply
from webdav.bodies import XML_BYTES_MAX


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
