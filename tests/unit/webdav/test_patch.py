"""PATCH: files made of what they have and of what comes; and what a file consists of."""

from __future__ import annotations

import base64
import hashlib
import random
import threading
from collections.abc import Iterator

import pytest

from helenite.client.reader import Reader
from tests.support.memory_filesystem import MemoryFileSystem
from tests.support.raw_http import Client, Reply
from webdav import patching, results
from webdav.splices import HEAD_BYTES_MAX, PARTS_MAX, SPLICE_TYPE

CONTENT = random.Random(1).randbytes(600_000)


@pytest.fixture
def etag(client: Client) -> str:
    return client.put("/f", CONTENT)["ETag"]


def patch(client: Client, etag: str | None, body: bytes, target: str = "/f", **headers: str) -> Reply:
    conditions = {} if etag is None else {"If-Match": etag}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client("PATCH", target, {"Content-Type": SPLICE_TYPE} | conditions | named, body)


def test_a_file_is_spliced(client: Client, etag: str) -> None:
    fresh = random.Random(2).randbytes(300_000)
    head = b"new 3\nkeep 100 400000\nnew 299997\nkeep 599999 1\n\n"
    reply = patch(client, etag, head + fresh, X_OC_Mtime="1700000000.25")
    assert (reply.status, reply["X-OC-Mtime"]) == (204, "accepted")
    got = client.get("/f")
    assert got.body == fresh[:3] + CONTENT[100:400_100] + fresh[3:] + CONTENT[-1:]
    assert got["ETag"] == reply["ETag"] != etag
    assert got["Last-Modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"


def test_a_splice_in_chunks_of_any_size(client: Client, etag: str) -> None:
    body = b"keep 0 10\nnew 5\n\nhello"
    for size in (1, 3, len(body)):
        with client.connect() as connection:
            headers = {"Content-Type": SPLICE_TYPE, "If-Match": etag, "Transfer-Encoding": "chunked"}
            connection.send(client.head("PATCH", "/f", headers))
            for at in range(0, len(body), size):
                piece = body[at : at + size]
                connection.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            connection.send(b"0\r\n\r\n")
            reply = connection.read_reply()
        assert reply.status == 204
        etag = reply["ETag"]
        assert client.get("/f").body == CONTENT[:10] + b"hello"


def test_zeros_do_not_travel(client: Client, etag: str) -> None:
    zeros = bytes(20 << 20)
    body = b"zero 5\nkeep 0 10\nzero 20971520\nnew 5\nzero 3\n\nhello"
    result = bytes(5) + CONTENT[:10] + zeros + b"hello" + bytes(3)
    assert patch(client, etag, body, X_Helenite_Result_Digest=told(result)).status == 204
    assert client.get("/f").body == result
    first, *runs, last = recipe(client, "/f?extents")
    assert [run[1:] for run in runs] == [(0, 8 << 20), (0, 8 << 20), (0, 4 << 20)]
    assert len({run[0] for run in runs}) == 1
    assert first[0] == last[0] != runs[0][0]
    assert patch(client, client.get("/f")["ETag"], b"zero 999999999999999\n\n").status == 400


def test_nothing_may_be_left_of_a_file(client: Client, etag: str) -> None:
    assert patch(client, etag, b"\n").status == 204
    assert client.get("/f").body == b""


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"keep 0 10",
        b"keep 0 10\n",
        b"keep 0 600001\n\n",
        b"keep 600000 1\n\n",
        b"keep 0 -1\n\n",
        b"keep 0x1 1\n\n",
        b"keep 1\n\n",
        b"keep  0 1\n\n",
        b"take 0 1\n\n",
        b"new 1000000000000000\n\nx",
        b"zero\n\n",
        b"zero 0 5\n\n",
        b"zero -5\n\n",
        b"new 2\n\nx",
        b"new 1\n\nxy",
        b"keep 0 1\r\n\r\n",
        b"new 1\n" * (PARTS_MAX + 1) + b"\n" + b"x" * (PARTS_MAX + 1),
        b"x" * (HEAD_BYTES_MAX + 300_000),
    ],
)
def test_what_is_no_splice_changes_nothing(client: Client, etag: str, body: bytes) -> None:
    assert patch(client, etag, body).status == 400
    assert client.get("/f")["ETag"] == etag


def test_a_splice_demands_the_revision_it_is_made_from(client: Client, etag: str) -> None:
    body = b"keep 0 1\n\n"
    assert patch(client, None, body).status == 428
    assert patch(client, "*", body).status == 428
    assert patch(client, '"1-1"', body).status == 412
    assert patch(client, etag, body, target="/none").status == 412
    assert patch(client, None, body, target="/none").status == 404
    client("MKCOL", "/d/")
    assert patch(client, None, body, target="/d/").status == 405
    assert patch(client, etag, body, target="/f/").status == 404
    assert client.get("/f")["ETag"] == etag
    assert patch(client, None, body, If=f"([{etag}])").status == 204


def test_a_splice_is_checked_again_at_the_commit(client: Client, fs: MemoryFileSystem, etag: str) -> None:
    with client.connect() as connection:
        body = b"keep 0 5\nnew 1\n\n!"
        framing = {"Content-Length": str(len(body)), "Expect": "100-continue"}
        headers = {"Content-Type": SPLICE_TYPE, "If-Match": etag} | framing
        connection.send(client.head("PATCH", "/f", headers))
        connection.read_continue()
        assert client.put("/f", b"other").status == 204
        connection.send(body)
        assert connection.read_reply().status == 412
    assert client.get("/f").body == b"other"


def test_locks_hold_for_splices(client: Client, etag: str) -> None:
    token = client.token("/f")
    assert patch(client, etag, b"keep 0 1\n\n").status == 423
    assert patch(client, etag, b"keep 0 1\n\n", If=f"({token})").status == 204


def test_other_patches_are_refused_and_ours_is_offered(client: Client, etag: str) -> None:
    for kind in ("application/json-patch+json", "text/plain"):
        reply = patch(client, etag, b"[]", Content_Type=kind)
        assert (reply.status, reply["Accept-Patch"]) == (415, SPLICE_TYPE)
    assert patch(client, etag, b"keep 0 1\n\n", Content_Type=f"{SPLICE_TYPE.upper()}; v=1").status == 204
    reply = client("OPTIONS", "/f")
    assert reply["Accept-Patch"] == SPLICE_TYPE
    assert "PATCH" in reply["Allow"].split(", ")


def test_ranges_may_come_from_another_file(client: Client, etag: str) -> None:
    client("MKCOL", "/a%20b/")
    source = client.put("/a%20b/s", b"source")["ETag"]
    body = b"take 1 3\nnew 1\nkeep 0 10\ntake 0 6\n\n!"
    for headers in (
        {},
        {"X_Helenite_Source": "/a%20b/s"},
        {"X_Helenite_Source": "/a%20b/s", "X_Helenite_Source_Match": etag},
        {"X_Helenite_Source": "/none", "X_Helenite_Source_Match": source},
        {"X_Helenite_Source": "/../s", "X_Helenite_Source_Match": source},
    ):
        assert patch(client, etag, body, **headers).status == (412 if headers else 400)
    named = {"X_Helenite_Source": "http://elsewhere/a%20b/s", "X_Helenite_Source_Match": source}
    assert patch(client, etag, b"take 0 7\n\n", **named).status == 400
    assert patch(client, etag, body, **named).status == 204
    assert client.get("/f").body == b"our!" + CONTENT[:10] + b"source"
    directory = client("HEAD", "/a%20b/")["ETag"]
    named = {"X_Helenite_Source": "/a%20b/", "X_Helenite_Source_Match": directory}
    assert patch(client, client("HEAD", "/f")["ETag"], body, **named).status == 405


def test_what_travels_is_compared_with_its_digest(client: Client, etag: str) -> None:
    body = b"keep 0 10\nnew 5\n\nhello"
    right = base64.b64encode(hashlib.sha256(body).digest()).decode()
    assert patch(client, etag, body, Repr_Digest=f"sha-256=:{'A' * 43}=:").status == 400
    assert client.get("/f")["ETag"] == etag
    assert patch(client, etag, body, Repr_Digest=f"sha-256=:{right}:").status == 204


def test_a_wrong_digest_of_the_result_is_found_before_the_commit(client: Client, etag: str) -> None:
    """Else nobody could ever fetch the file whole and believe it."""
    for wrong in (CONTENT[:10] + b"hallo", b"hello" + CONTENT[:10], CONTENT):
        digest = base64.b64encode(hashlib.sha256(wrong).digest()).decode()
        told = f"sha-256=:{digest}:"
        assert patch(client, etag, b"keep 0 10\nnew 5\n\nhello", X_Helenite_Result_Digest=told).status == 400
    assert client("HEAD", "/f")["ETag"] == etag


def test_the_digest_of_a_result_of_many_parts_and_two_files(client: Client, etag: str) -> None:
    source = client.put("/s", b"source of it")["ETag"]
    fresh = random.Random(3).randbytes(200_000)
    whole = CONTENT[5:70_005] + fresh[:7] + b"urc" + CONTENT[:1] + fresh[7:] + CONTENT[500_000:]
    body = b"keep 5 70000\nnew 7\ntake 2 3\nkeep 0 1\nnew 199993\nkeep 500000 100000\n\n" + fresh
    digest = base64.b64encode(hashlib.sha256(whole).digest()).decode()
    told = {"X_Helenite_Source": "/s", "X_Helenite_Source_Match": source}
    assert patch(client, etag, body, X_Helenite_Result_Digest=f"sha-256=:{digest}:", **told).status == 204
    assert client.get("/f").body == whole


def told(content: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


def test_while_a_large_result_is_verified_its_client_hears_something(
    client: Client, etag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patching, "AT_ONCE_BYTES_MAX", 14)
    may_go_on = threading.Event()

    def verify(reader: Reader, digest: bytes) -> Iterator[None]:
        yield
        assert may_go_on.wait(10)
        yield from results.verify(reader, digest)

    monkeypatch.setattr(patching, "verify", verify)
    body, result = b"keep 0 10\nnew 5\n\nhello", CONTENT[:10] + b"hello"
    headers = {"Content-Type": SPLICE_TYPE, "If-Match": etag, "Prefer": "return=minimal, progress"}
    headers |= {"X-Helenite-Result-Digest": told(result), "Content-Length": str(len(body)), "Connection": "close"}
    with client.connect() as connection:
        connection.send(client.head("PATCH", "/f", headers) + body)
        assert connection.read_line() == b"HTTP/1.1 207 Multi-Status\r\n"
        while connection.read_line() != b"1\r\n":  # the chunk with a sign of life
            pass
        assert client("HEAD", "/f")["ETag"] == etag  # nothing is visible yet
        may_go_on.set()
        rest = connection.read_to_end()
    got = client.get("/f")
    assert (got.body, got["Repr-Digest"]) == (result, told(result))
    assert f"<D:getetag>{got['ETag']}</D:getetag>".encode() in rest
    assert b"<D:href>/f</D:href>" in rest


def test_a_large_result_that_is_wrong_is_told_at_the_end(
    client: Client, etag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patching, "AT_ONCE_BYTES_MAX", 14)
    wrong = {"X_Helenite_Result_Digest": told(b"wrong"), "Prefer": "progress"}
    reply = patch(client, etag, b"keep 0 10\nnew 5\n\nhello", **wrong)
    assert (reply.status, reply["Preference-Applied"]) == (207, "progress")
    assert "HTTP/1.1 400 Bad Request" in reply.text
    assert "send the whole file" in reply.text
    assert client("HEAD", "/f")["ETag"] == etag
    assert patch(client, etag, b"new 5\n\nhallo", **wrong).status == 400  # small: no need


def test_who_does_not_prefer_progress_waits(client: Client, etag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patching, "AT_ONCE_BYTES_MAX", 14)
    right = told(CONTENT[:10] + b"hello")
    assert patch(client, etag, b"keep 0 10\nnew 5\n\nhello", X_Helenite_Result_Digest=right).status == 204
    assert client("HEAD", "/f")["Repr-Digest"] == right


def test_a_whole_file_whose_digest_is_known_is_not_read_again(
    client: Client, etag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patching, "verify", None)
    source = client.put("/s", b"source", repr_digest=told(b"source"))["ETag"]
    named = {"X_Helenite_Source": "/s", "X_Helenite_Source_Match": source}
    wrong = patch(client, etag, b"take 0 6\n\n", X_Helenite_Result_Digest=told(b"other"), **named)
    assert wrong.status == 400
    assert patch(client, etag, b"take 0 6\n\n", **named).status == 204
    got = client.get("/f")
    assert (got.body, got["Repr-Digest"]) == (b"source", told(b"source"))


def test_the_digest_of_the_result_is_kept_for_who_reads_it(client: Client, etag: str) -> None:
    digest = base64.b64encode(hashlib.sha256(CONTENT[:10] + b"hello").digest()).decode()
    body = b"keep 0 10\nnew 5\n\nhello"
    for strange in ("sha-256=:aGk=:", "x", "sha-256=:?:"):
        assert patch(client, etag, body, X_Helenite_Result_Digest=strange).status == 400
    etag = patch(client, etag, body, X_Helenite_Result_Digest=f"sha-256=:{digest}:")["ETag"]
    assert client.get("/f")["Repr-Digest"] == f"sha-256=:{digest}:"
    patch(client, etag, b"keep 0 1\n\n")
    assert client.get("/f").get("Repr-Digest") is None


def test_there_must_be_room_for_what_comes(client: Client, fs: MemoryFileSystem) -> None:
    with fs.create(("f",)) as writer:
        writer.write(CONTENT)
        etag = f'"{writer.commit()[0].etag}"'
    fs.free_bytes = 100
    assert patch(client, etag, b"keep 0 600000\nnew 200\n\n" + bytes(200)).status == 507
    assert patch(client, etag, b"keep 0 600000\nkeep 0 600000\n\n").status == 204


def recipe(client: Client, target: str) -> list[tuple[int, int, int]]:
    reply = client.get(target)
    assert reply["Content-Type"] == "application/vnd.helenite.extents"
    lines = [line.split(" ") for line in reply.text.splitlines()]
    return [(int(handle, 16), int(offset), int(length)) for handle, offset, length in lines]


def test_what_a_file_consists_of(client: Client, etag: str) -> None:
    [(handle, offset, length)] = recipe(client, "/f?extents")
    assert (offset, length) == (0, 600_000)
    fresh = bytes(1000)
    patch(client, etag, b"keep 0 100000\nnew 1000\nkeep 101000 499000\n\n" + fresh)
    first, second, third = recipe(client, "/f?extents")
    assert (first, third) == ((handle, 0, 100_000), (handle, 101_000, 499_000))
    assert second[0] != handle
    assert second[2] == 1000
    assert client.get("/f?extents", if_match=etag).status == 412
    client.put("/empty", b"")
    assert recipe(client, "/empty?extents") == []
