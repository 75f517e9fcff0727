"""REPORT sync-collection through the whole gateway, on a file system in memory."""

from __future__ import annotations

import random
import uuid

import pytest

from helenite.core import errors
from helenite.core.model import EntryView
from helenite.core.paths import Path
from tests.support.memory_filesystem import MemoryFileSystem
from tests.support.raw_http import Client
from tests.support.sync_client import (
    Ask,
    Known,
    SyncClient,
    ask,
    change_at_random,
    parse_page,
    put,
    report,
    report_body,
    token_of,
)
from webdav.urls import format_href

# What is told


def test_an_empty_token_lists_everything(client: Client, fs: MemoryFileSystem) -> None:
    fs.make_directory(("d",))
    put(fs, "d", "f")
    put(fs, "g & h")
    assert set(report(client).changed) == {"/d/", "/d/f", "/g%20%26%20h"}
    assert set(report(client, level="1").changed) == {"/d/", "/g%20%26%20h"}
    assert set(report(client, "/d/").changed) == {"/d/f"}


def test_changes_are_told_once_as_they_are_now(client: Client, fs: MemoryFileSystem) -> None:
    fs.make_directory(("d",))
    put(fs, "d", "old")
    token = token_of(client)
    put(fs, "d", "old", content=b"1")
    put(fs, "d", "old", content=b"2")
    put(fs, "d", "new")
    page = report(client, token=token)
    assert (set(page.changed), page.gone, page.is_truncated) == ({"/d/old", "/d/new"}, [], False)
    assert page.changed["/d/old"].etag == f'"{fs.stat(("d", "old")).etag}"'
    again = report(client, token=page.token)
    assert (again.changed, again.gone) == ({}, [])


def test_what_is_gone_is_told_without_what_was_beneath(client: Client, fs: MemoryFileSystem) -> None:
    fs.make_directory(("d",))
    put(fs, "d", "f")
    put(fs, "g")
    token = token_of(client)
    put(fs, "d", "f")
    fs.remove(("d",))
    fs.remove(("g",))
    put(fs, "h")
    fs.remove(("h",))
    page = report(client, token=token)
    assert (page.changed, sorted(page.gone)) == ({}, ["/d/", "/g", "/h"])


def test_a_renamed_directory_is_told_with_all_beneath_and_its_old_id(client: Client, fs: MemoryFileSystem) -> None:
    fs.make_directory(("d",))
    fs.make_directory(("d", "e"))
    put(fs, "d", "e", "f")
    before = report(client)
    fs.move(("d",), ("n",), overwrite=False)
    page = report(client, token=before.token)
    assert (page.gone, set(page.changed)) == (["/d/"], {"/n/", "/n/e/", "/n/e/f"})
    assert page.changed["/n/e/f"] == before.changed["/d/e/f"]


def test_moved_in_and_out(client: Client, fs: MemoryFileSystem) -> None:
    for name in ("home", "far"):
        fs.make_directory((name,))
        fs.make_directory((name, "d"))
        put(fs, name, "d", "f")
    token = token_of(client, "/home/")
    fs.move(("far", "d"), ("home", "in"), overwrite=False)
    fs.move(("home", "d"), ("far", "out"), overwrite=False)
    put(fs, "far", "elsewhere")
    page = report(client, "/home/", token)
    assert (page.gone, set(page.changed)) == (["/home/d/"], {"/home/in/", "/home/in/f"})


def test_a_copy_and_what_the_trash_gives_back_are_told_with_all_beneath(client: Client, fs: MemoryFileSystem) -> None:
    fs.make_directory(("d",))
    put(fs, "d", "f")
    token = token_of(client)
    fs.copy(("d",), ("c",), overwrite=False)
    page = report(client, token=token)
    assert set(page.changed) == {"/c/", "/c/f"}
    fs.remove(("d",))
    gone = report(client, token=page.token)
    assert gone.gone == ["/d/"]
    fs.restore(fs.list_trash()[0].id)
    assert set(report(client, token=gone.token).changed) == {"/d/", "/d/f"}


def test_deleted_and_created_again_is_changed(client: Client, fs: MemoryFileSystem) -> None:
    """RFC 6578 section 3.5.1."""
    put(fs, "f")
    token = token_of(client)
    fs.remove(("f",))
    put(fs, "f", content=b"other")
    page = report(client, token=token)
    assert (page.gone, set(page.changed)) == ([], {"/f"})


@pytest.mark.parametrize("verb", ["move", "copy", "delete first", "file"])
def test_a_directory_that_took_anothers_place(client: Client, fs: MemoryFileSystem, verb: str) -> None:
    """A client that goes by URLs must forget what was in the old one: two reports, no URL twice in one."""
    fs.make_directory(("d",))
    put(fs, "d", "old")
    fs.make_directory(("s",))
    put(fs, "s", "new")
    put(fs, "file")
    follower = SyncClient(_asking(client, "/"), "/")
    follower.synchronise()
    match verb:
        case "move":
            fs.move(("s",), ("d",), overwrite=True)
        case "copy":
            fs.copy(("s",), ("d",), overwrite=True)
        case "delete first":
            fs.remove(("d",))
            fs.move(("s",), ("d",), overwrite=False)
        case _:
            fs.move(("file",), ("d",), overwrite=True)
    assert follower.step()
    assert not any(href.startswith("/d") for href in follower.picture)
    follower.synchronise()
    assert follower.picture == truth(fs, ())


def test_level_1_tells_of_members_and_of_collections_in_which_something_changed(
    client: Client, fs: MemoryFileSystem
) -> None:
    fs.make_directory(("d",))
    fs.make_directory(("d", "e"))
    fs.make_directory(("quiet",))
    token = token_of(client)
    put(fs, "d", "e", "f")
    put(fs, "g")
    page = report(client, token=token, level="1")
    assert set(page.changed) == {"/d/", "/g"}


def test_properties_are_written_as_propfind_does(client: Client, fs: MemoryFileSystem) -> None:
    put(fs, "f")
    fs.set_properties(("f",), set_values={"{urn:x}dead": b'<dead xmlns="urn:x">7</dead>'})
    body = (
        b'<sync-collection xmlns="DAV:"><sync-token/><sync-level>1</sync-level><prop><dead xmlns="urn:x"/>'
        b"<none/><lockdiscovery/></prop></sync-collection>"
    )
    token = client.token("/f")
    reply = client("REPORT", "/", {"Content-Length": str(len(body))}, body)
    assert '<dead xmlns="urn:x">7</dead>' in reply.text
    assert token.strip("<>") in reply.text
    assert "<D:none/></D:prop><D:status>HTTP/1.1 404" in reply.text
    brief = client("REPORT", "/", {"Content-Length": str(len(body)), "Prefer": "return=minimal"}, body)
    assert "none" not in brief.text


def test_live_properties(client: Client, fs: MemoryFileSystem) -> None:
    fs.make_directory(("d",))
    put(fs, "d", "f")
    names = '<propfind xmlns="DAV:"><prop><sync-token/><supported-report-set/></prop></propfind>'
    reply = client.propfind("/d/", names, depth="1")
    token = reply.text.partition("<D:sync-token>")[2].partition("</D:sync-token>")[0]
    assert reply.text.count("<D:sync-collection/>") == 1
    assert reply.text.count("<D:sync-token/></D:prop><D:status>HTTP/1.1 404") == 1
    assert token == token_of(client, "/d/")
    put(fs, "d", "g")
    assert set(report(client, "/d/", token).changed) == {"/d/g"}
    assert "REPORT" in client("OPTIONS", "/d/")["Allow"]
    assert "REPORT" not in client("OPTIONS", "/d/f")["Allow"]


# What is refused


@pytest.mark.parametrize(
    ("token", "after"),
    [
        ("urn:x-helenite:sync:other:1", ""),
        ("http://elsewhere/1", ""),
        ("urn:x-helenite:sync:memory:1:1:a%2Fb", ""),
        ("urn:x-helenite:sync:memory:1:9:a", ""),
        ("", "moved here"),
        ("", "made anew"),
    ],
)
def test_tokens_that_are_not_good_here(client: Client, fs: MemoryFileSystem, token: str, after: str) -> None:
    fs.make_directory(("d",))
    token = token or token_of(client, "/d/")
    if after:
        fs.remove(("d",))
        fs.make_directory(("e",))
        fs.move(("e",), ("d",), overwrite=False) if after == "moved here" else fs.make_directory(("d",))
    reply = ask(client, "/d/", token)
    assert reply.status == 403
    assert "<D:valid-sync-token>" in reply.text
    follower = SyncClient(_asking(client, "/d/"), "/d/", token=token)
    follower.synchronise()
    assert follower.restarts == 1, "a fresh token is good"


def test_a_token_that_fell_off_the_feed(client: Client, fs: MemoryFileSystem) -> None:
    token = token_of(client)
    fs.faults["read_feed"] = errors.SequenceExpiredError("too old")
    assert "<D:valid-sync-token></D:valid-sync-token>" in ask(client, "/", token).text


def test_a_token_of_what_was_lost_since(client: Client, fs: MemoryFileSystem) -> None:
    token = token_of(client)
    fs.faults["read_feed"] = errors.HistoryLostError("restored")
    reply = ask(client, "/", token)
    assert reply.status == 403
    assert '<D:valid-sync-token><H:history-lost xmlns:H="urn:x-helenite:"/></D:valid-sync-token>' in reply.text


@pytest.mark.parametrize(
    ("target", "body", "headers", "status", "condition"),
    [
        ("/", b'<expand-property xmlns="DAV:"/>', {}, 403, "supported-report"),
        ("/f", report_body(), {}, 403, "supported-report"),
        ("/none/", report_body(), {}, 404, ""),
        ("/", b'<sync-collection xmlns="DAV:"><sync-token/></sync-collection>', {}, 400, ""),
        ("/", report_body(level="2"), {}, 400, ""),
        ("/", report_body(limit=0), {}, 400, ""),
        ("/", report_body(), {"Depth": "1"}, 400, ""),
        ("/", report_body(), {"If": "(<urn:uuid:none>)"}, 412, ""),
        ("/", b"", {}, 400, ""),
    ],
)
def test_what_is_no_report(
    client: Client,
    fs: MemoryFileSystem,
    target: str,
    body: bytes,
    headers: dict[str, str],
    status: int,
    condition: str,
) -> None:
    put(fs, "f")
    reply = client("REPORT", target, headers | {"Content-Length": str(len(body))}, body)
    assert (reply.status, condition in reply.text) == (status, True)


def test_old_drafts_say_the_level_with_depth(client: Client, fs: MemoryFileSystem) -> None:
    fs.make_directory(("d",))
    put(fs, "d", "f")
    body = report_body().replace(b"<sync-level>infinite</sync-level>", b"")
    found = [
        set(
            parse_page(
                client("REPORT", "/", {"Depth": depth, "Content-Length": str(len(body))}, body).body, "/"
            ).changed
        )
        for depth in ("1", "infinity")
    ]
    assert found == [{"/d/"}, {"/d/", "/d/f"}]


# Round trips


def test_many_changes_of_one_directory_cost_one_listing(client: Client, fs: MemoryFileSystem) -> None:
    fs.make_directory(("d",))
    token = token_of(client)
    for number in range(100):
        put(fs, "d", f"{number}")
    fs.calls.clear()
    assert len(report(client, token=token).changed) == 100
    assert fs.calls == {"lookup": 1, "read_feed": 1, "list": 1}


def test_a_small_change_in_a_large_directory_costs_no_listing_of_it_all(client: Client, fs: MemoryFileSystem) -> None:
    fs.make_directory(("d",))
    for number in range(1000):
        put(fs, "d", f"{number}")
    token = token_of(client)
    for number in range(996, 1000):
        put(fs, "d", f"{number}")
        fs.remove(("d", f"{number - 500}"))
    fs.calls.clear()
    page = report(client, token=token)
    assert (len(page.changed), len(page.gone)) == (4, 4)
    assert fs.calls == {"lookup": 5, "read_feed": 1, "list": 1}


# Truncation


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_truncated_reports_go_on_exactly_there(client: Client, fs: MemoryFileSystem, limit: int) -> None:
    for directory in ("a", "b"):
        fs.make_directory((directory,))
        for number in range(9):
            put(fs, directory, f"{number}")
    follower = SyncClient(_asking(client, "/"), "/", limit=limit)
    follower.synchronise()
    assert follower.picture == truth(fs, ())
    assert follower.pages >= 20 // limit
    fs.move(("a",), ("c",), overwrite=False)
    fs.move(("b", "1"), ("b", "0"), overwrite=True)
    put(fs, "d")
    follower.synchronise()
    assert follower.picture == truth(fs, ())


def test_a_report_that_cannot_be_truncated_enough_is_refused(client: Client, fs: MemoryFileSystem) -> None:
    for name in ("a", "b"):
        fs.make_directory((name,))
    token = token_of(client)
    fs.move(("a",), ("b",), overwrite=True)
    reply = ask(client, "/", token, limit=1)
    assert reply.status == 507
    assert "<D:number-of-matches-within-limits>" in reply.text


def test_many_changes_are_told_in_several_reports(
    client: Client, fs: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webdav.syncing.CHANGES_MAX", 20)
    monkeypatch.setattr("webdav.syncing.FEED_PAGE", 7)
    follower = SyncClient(_asking(client, "/"), "/")
    follower.synchronise()
    for number in range(90):
        put(fs, f"{number}")
    follower.pages = 0
    follower.synchronise()
    assert follower.picture == truth(fs, ())
    assert follower.pages in range(4, 7)


# Against a model


def _asking(client: Client, target: str) -> Ask:
    def send(body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        reply = client("REPORT", target, headers | {"Content-Length": str(len(body))}, body, patience_s=20)
        return reply.status, reply.body

    return send


def truth(fs: MemoryFileSystem, home: Path, *, is_deep: bool = True) -> dict[str, Known]:
    """What a client must know of everything beneath `home`."""
    found: dict[str, Known] = {}
    directories = [home]
    while directories:
        directory = directories.pop()
        for view in fs.list(directory)[1]:
            path = (*directory, view.entry.name)
            found[format_href(path, is_directory=view.entry.is_directory)] = _known(view)
            if view.entry.is_directory and is_deep:
                directories.append(path)
    return found


def _known(view: EntryView) -> Known:
    identity = uuid.uuid5(uuid.NAMESPACE_URL, f"helenite:memory:{view.entry.id:x}").urn
    return Known(identity, "" if view.entry.is_directory else f'"{view.entry.etag}"')


@pytest.mark.parametrize("seed", range(12))
def test_the_picture_of_a_client_is_right(client: Client, fs: MemoryFileSystem, seed: int) -> None:
    chance = random.Random(seed)
    followers = [
        SyncClient(_asking(client, "/"), "/"),
        SyncClient(_asking(client, "/"), "/", limit=3),
        SyncClient(_asking(client, "/"), "/", limit=2),
        SyncClient(_asking(client, "/"), "/", level="1"),
        SyncClient(_asking(client, "/a/"), "/a/"),
    ]
    for _ in range(12):
        for _ in range(chance.randrange(25)):
            change_at_random(fs, chance)
        for follower in followers:
            home = tuple(follower.home.strip("/")) if follower.home != "/" else ()
            if home and not (fs.exists(home) and fs.stat(home).is_directory):
                continue
            if chance.random() < 0.3:
                continue
            if chance.random() < 0.5 and follower.limit is not None:  # changes in the middle of a truncated report
                follower.step()
                change_at_random(fs, chance)
                if not fs.exists(home):
                    continue
            follower.synchronise()
            expected = truth(fs, home, is_deep=follower.level == "infinite")
            assert follower.picture == expected, f"seed {seed}, limit {follower.limit}, level {follower.level}"
