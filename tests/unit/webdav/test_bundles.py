"""POST ?bundle through the whole gateway, on a file system in memory; tarfile is the client."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
from xml.etree import ElementTree as ET

import pytest

from helenite.core import errors
from helenite.core.paths import parse_path
from tests.support.memory_filesystem import MemoryFileSystem
from tests.support.raw_http import Client, Reply
from webdav.bundling import EXECUTABLE

D = "{DAV:}"
BIG = bytes(range(256)) * 8192


@pytest.fixture
def fs() -> MemoryFileSystem:
    made = MemoryFileSystem()
    made.make_directory(("home",))
    return made


def pack(*members: tuple[str, bytes, dict[str, str]], **fields: object) -> bytes:
    """A pax archive of files; fields are set on every header, a third value holds our keywords."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content, wishes in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in fields.items():
                setattr(info, field, value)
            info.pax_headers = {f"HELENITE.{keyword}": value for keyword, value in wishes.items()}
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def plain(*names: str) -> bytes:
    return pack(*((name, name.encode(), {}) for name in names))


def post(client: Client, body: bytes, target: str = "/home?bundle", **headers: str) -> Reply:
    return client("POST", target, headers | {"Content-Length": str(len(body))}, body, patience_s=20)


def outcomes(reply: Reply) -> dict[str, int]:
    """href -> status."""
    assert reply.status == 207, reply
    return {
        response.findtext(f"{D}href") or "": int((response.findtext(f".//{D}status") or "").split()[1])
        for response in ET.fromstring(reply.body).iter(f"{D}response")
    }


def content(fs: MemoryFileSystem, path: str) -> bytes:
    with fs.open(parse_path(path)) as reader:
        return reader.read(0, 1 << 30)


# In


def test_each_file_is_stored_with_what_it_takes(client: Client, fs: MemoryFileSystem) -> None:
    body = pack(("a", b"1", {}), ("d/e/grüße", b"2", {}), ("big", BIG, {}), ("empty", b"", {}), mtime=1_500_000_000.5)
    reply = post(client, body)
    assert outcomes(reply) == {
        "/home/a": 201,
        "/home/d/e/gr%C3%BC%C3%9Fe": 201,
        "/home/big": 201,
        "/home/empty": 201,
    }
    assert [content(fs, f"/home/{name}") for name in ("a", "d/e/grüße", "big", "empty")] == [b"1", b"2", BIG, b""]
    entry = fs.stat(("home", "a"))
    assert entry.modified_at_ms == 1_500_000_000_500
    assert f'<D:getetag>"{entry.etag}"</D:getetag>' in reply.text
    known = client.propfind("/home/a", '<propfind xmlns="DAV:"><prop><resource-id/></prop></propfind>')
    assert known.text.partition("<D:resource-id>")[2].partition("</D:resource-id>")[0] in reply.text


def test_directories_are_made_and_may_exist(client: Client, fs: MemoryFileSystem) -> None:
    fs.make_directory(("home", "old"))
    with io.BytesIO() as out:
        with tarfile.open(fileobj=out, mode="w") as tar:
            for name in (".", "./old", "./new"):
                info = tarfile.TarInfo(name)
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
        body = out.getvalue()
    assert outcomes(post(client, body)) == {"/home/old/": 200, "/home/new/": 201}
    assert fs.stat(("home", "new")).is_directory


def test_conditions_hold_for_each_file(client: Client, fs: MemoryFileSystem) -> None:
    etags = {name: client.put(f"/home/{name}", b"old")["ETag"] for name in "abcd"}
    client.put("/home/b", b"newer")
    body = pack(
        ("a", b"new", {"if-match": etags["a"]}),
        ("b", b"new", {"if-match": etags["b"]}),
        ("c", b"new", {"if-none-match": "*"}),
        ("d", b"new", {"if-match": "*"}),
        ("e", b"new", {"if-match": "*"}),
        ("f", b"new", {"if-none-match": "*"}),
        ("g", b"new", {"if-match": '"other"'}),
        ("h", b"new", {"if-match": '"1-1", "2-2"'}),
        ("i", b"new", {"if-none-match": '"1-1"'}),
    )
    found = outcomes(post(client, body))
    assert list(found.values()) == [200, 412, 412, 200, 412, 201, 412, 400, 400]
    assert [content(fs, f"/home/{name}") for name in "abcdf"] == [b"new", b"newer", b"old", b"new", b"new"]


def test_a_directory_that_must_be_there_is_not_made(client: Client, fs: MemoryFileSystem) -> None:
    fs.make_directory(("home", "here"))
    etag = client.put("/home/here/old", b"old")["ETag"]
    with io.BytesIO() as out:
        with tarfile.open(fileobj=out, mode="w") as tar:
            for name in ("gone/deep", "here/deep"):
                info = tarfile.TarInfo(name)
                info.type = tarfile.DIRTYPE
                info.pax_headers = {"HELENITE.if-parent": "*"}
                tar.addfile(info)
        directories = out.getvalue()
    assert outcomes(post(client, directories)) == {"/home/gone/deep/": 409, "/home/here/deep/": 201}
    body = pack(
        ("here/new", b"1", {"if-parent": "*"}),
        ("here/old", b"2", {"if-parent": "*", "if-match": etag}),
        ("moved/new", b"3", {"if-parent": "*", "if-none-match": "*"}),
        ("moved/old", b"4", {"if-parent": "*", "if-match": etag}),
        ("moved/large", BIG, {"if-parent": "*"}),
        ("made/new", b"5", {}),
        ("strange", b"6", {"if-parent": '"1-1"'}),
    )
    found = outcomes(post(client, body))
    assert [found[f"/home/{path}"] for path in ("here/new", "here/old", "made/new", "strange")] == [201, 200, 201, 400]
    assert [found[f"/home/moved/{name}"] for name in ("new", "large")] == [409, 409]
    assert found["/home/moved/old"] in {409, 412}
    assert {view.entry.name for view in fs.list(("home",))[1]} == {"here", "made"}


def test_digests_are_verified(client: Client, fs: MemoryFileSystem) -> None:
    def digest(data: bytes) -> dict[str, str]:
        return {"digest": f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"}

    body = pack(
        ("right", b"1", digest(b"1")),
        ("wrong", b"1", digest(b"2")),
        ("large", BIG, digest(b"2")),
        ("x", b"", {"digest": "?"}),
    )
    assert list(outcomes(post(client, body)).values()) == [201, 400, 400, 400]
    assert {view.entry.name for view in fs.list(("home",))[1]} == {"right"}


def test_hostile_members_are_refused_one_by_one(client: Client, fs: MemoryFileSystem) -> None:
    links = [
        ("../out", {}),
        ("/abs", {}),
        ("a/../b", {}),
        ("a//b", {}),
        ("x" * 256, {}),
        ("a/" * 300 + "x", {}),
        ("", {}),
    ]
    body = pack(*((name, b"x", wishes) for name, wishes in links), ("good", b"x", {}))
    found = outcomes(post(client, body))
    assert list(found.values()) == [400] * (len(found) - 1) + [201]
    assert "/home/..%2Fout" in found
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        info = tarfile.TarInfo("strange")
        info.type, info.linkname = kind, "/etc/passwd"
        body = info.tobuf() + plain("good")
        assert list(outcomes(post(client, body)).values()) == [400, 200]
    assert {view.entry.name for view in fs.list(("home",))[1]} == {"good"}
    assert {view.entry.name for view in fs.list(())[1]} == {"home"}


def test_the_executable_bit_is_a_property(client: Client, fs: MemoryFileSystem) -> None:
    assert list(outcomes(post(client, pack(("x", b"1", {}), mode=0o755))).values()) == [201]
    assert fs.lookup(("home", "x"), with_properties=True).properties[EXECUTABLE].endswith(b">T</executable>")
    assert list(outcomes(post(client, pack(("x", b"2", {}), mode=0o755))).values()) == [200]
    assert EXECUTABLE in fs.lookup(("home", "x"), with_properties=True).properties
    assert list(outcomes(post(client, pack(("x", b"3", {}), mode=0o644))).values()) == [200]
    assert fs.lookup(("home", "x"), with_properties=True).properties == {}


def test_the_same_place_twice_is_stored_in_order(client: Client, fs: MemoryFileSystem) -> None:
    body = pack(*(("f", b"%d" % number, {}) for number in range(50)), ("f/under", b"", {}))
    reply = post(client, body)
    statuses = [
        int((r.findtext(f".//{D}status") or "").split()[1]) for r in ET.fromstring(reply.body).iter(f"{D}response")
    ]
    assert statuses == [201] + [200] * 49 + [409]
    assert content(fs, "/home/f") == b"49"


def test_locks_hold(client: Client, fs: MemoryFileSystem) -> None:
    client.put("/home/f", b"old")
    token = client.token("/home/f")
    reply = post(client, plain("f", "g"))
    assert list(outcomes(reply).values()) == [423, 201]
    assert "<D:error><D:lock-token-submitted/></D:error>" in reply.text
    assert list(outcomes(post(client, plain("f"), If=f"</home/f> ({token})")).values()) == [200]
    assert post(client, plain("f"), If="(<urn:uuid:none>)").status == 412


def test_a_stream_that_breaks_off_commits_what_was_whole(client: Client, fs: MemoryFileSystem) -> None:
    body = pack(("a", b"x" * 600, {}), ("b", b"y" * 600, {}))
    cut = body[: body.index(b"yyy") + 100]
    found = outcomes(post(client, cut))
    assert found == {"/home/a": 201, "/home/b": 400, "/home/": 400}
    with client.connect() as connection:
        connection.send(
            client.head("POST", "/home?bundle", {"Content-Length": str(len(body))}) + plain("c")[:1536] + cut[:100]
        )
        connection.finish_sending()
        assert connection.read_reply("POST").status == 400
    assert {view.entry.name for view in fs.list(("home",))[1]} == {"a", "c"}
    assert outcomes(post(client, plain("d")[:1024] + b"garbage" * 1000)) == {"/home/d": 201, "/home/": 400}


def test_bounds(client: Client, fs: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webdav.intake.BUNDLE_MEMBERS_MAX", 2)
    assert outcomes(post(client, plain("a", "b", "c"))) == {"/home/a": 201, "/home/b": 201, "/home/": 413}
    monkeypatch.setattr("webdav.intake.BYTES_MAX", 1000)
    monkeypatch.setattr("webdav.intake.HEADERS_BYTES", 10_000)
    assert outcomes(post(client, pack(("d", b"x" * 900, {}), ("e", b"x" * 101, {})))) == {"/home/d": 201, "/home/": 413}
    monkeypatch.setattr("webdav.intake.HEADERS_BYTES", 1)
    assert post(client, plain("x")).status == 413


def test_a_cluster_that_does_not_answer_is_asked_once(client: Client, fs: MemoryFileSystem) -> None:
    fs.faults["create_small"] = errors.UnavailableError("nobody is there")
    names = ("d/a", "e/b", "c")
    assert set(outcomes(post(client, plain(*names))).values()) == {503}
    assert "commit" not in fs.calls
    fs.faults["make_directory"] = errors.UnavailableError("nobody is there")
    assert list(outcomes(post(client, plain(*names))).values()) == [503, 503, 201]
    assert fs.calls["make_directory"] == 2, "for the home of this test, and once"
    assert list(outcomes(post(client, plain(*names))).values()) == [201, 201, 200]


def test_what_stands_in_the_way_of_a_directory(client: Client, fs: MemoryFileSystem) -> None:
    client.put("/home/f", b"a file")
    assert outcomes(post(client, plain("f/x", "f/y/z", "d/x"))) == {
        "/home/f/x": 409, "/home/f/y/z": 409, "/home/d/x": 201,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        ("/home", {}, 405),
        ("/home?bundle=put", {}, 405),
        ("/none?bundle", {}, 404),
        ("/file?bundle", {}, 409),
        ("/home?bundle", {"Content-Encoding": "gzip"}, 415),
    ],
)
def test_what_is_no_bundle(client: Client, target: str, headers: dict[str, str], status: int) -> None:
    client.put("/file", b"x")
    assert post(client, plain("a"), target, **headers).status == status


# Out


def ask(client: Client, *links: str, target: str = "/home?bundle=get") -> Reply:
    return post(client, json.dumps(links).encode(), target)


def unpack(reply: Reply) -> dict[str, tuple[bytes, tarfile.TarInfo]]:
    assert (reply.status, reply["Content-Type"]) == (200, "application/x-tar"), reply
    found = {}
    with tarfile.open(fileobj=io.BytesIO(reply.body)) as tar:
        for info in tar:
            opened = tar.extractfile(info)
            assert opened is not None
            found[info.name] = opened.read(), info
    return found


def test_files_come_as_they_are(client: Client, fs: MemoryFileSystem) -> None:
    post(
        client,
        pack(
            ("a", b"1", {}),
            ("d/grüße", b"2", {}),
            ("big", BIG, {}),
            ("empty", b"", {}),
            mtime=1_500_000_000.5,
            mode=0o755,
        ),
    )
    found = unpack(ask(client, "d/gr%C3%BC%C3%9Fe", "/home/a", "big", "empty", "a"))
    assert {name: data for name, (data, _) in found.items()} == {"d/grüße": b"2", "a": b"1", "big": BIG, "empty": b""}
    info = found["a"][1]
    assert (info.mtime, info.mode) == (1_500_000_000.5, 0o755)
    assert info.pax_headers["HELENITE.etag"] == client("HEAD", "/home/a")["ETag"]
    known = client.propfind("/home/a", '<propfind xmlns="DAV:"><prop><resource-id/></prop></propfind>')
    assert info.pax_headers["HELENITE.resource-id"] in known.text


def test_what_is_missing_is_named_at_the_end(
    client: Client, fs: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webdav.outlet.BYTES_MAX", 10)
    client.put("/home/a", b"1")
    client.put("/home/large", b"x" * 10)
    client.put("/out", b"1")
    client("MKCOL", "/home/d")
    found = unpack(ask(client, "none", "a", "large", "d", "/out", "../out", "%zz", ""))
    assert list(found) == ["a", ".helenite-missing.json"]
    missing, info = found[".helenite-missing.json"]
    assert info.pax_headers["HELENITE.kind"] == "missing"
    statuses = {link: reason["status"] for link, reason in json.loads(missing).items()}
    assert statuses == {"none": 404, "large": 413, "d": 409, "/out": 400, "../out": 400, "%zz": 400, "": 409}


def test_a_slice_of_one_directory_costs_one_listing(client: Client, fs: MemoryFileSystem) -> None:
    names = [f"{number}" for number in range(300)]
    post(client, plain(*names))
    fs.calls.clear()
    found = unpack(ask(client, *names))
    assert {name: data.decode() for name, (data, _) in found.items()} == dict(zip(names, names, strict=True))
    assert fs.calls == {"lookup": 1, "list": 1}


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b'"a"', b"[" * 100_000])
def test_what_is_no_list(client: Client, body: bytes) -> None:
    assert post(client, body, "/home?bundle=get").status == 400


def test_too_long_a_list(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webdav.outlet.BUNDLE_MEMBERS_MAX", 2)
    assert ask(client, "a", "b", "c").status == 413


def test_content_that_cannot_be_read_breaks_the_answer_off(
    client: Client, fs: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.put("/home/a", b"1")

    def lose(*_: object) -> object:
        raise errors.ContentLostError("all replicas are gone")

    monkeypatch.setattr(fs, "open_view", lose)
    assert ask(client, "a").status == 500
