"""REPORT sync-collection with `Prefer: wait`: what ends a wait, and who may wait."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from tests.support.gateways import our_server, serving
from tests.support.memory_filesystem import MemoryFileSystem
from tests.support.raw_http import Client
from tests.support.sync_client import ask, parse_page, put, report_body, token_of
from tests.support.waiting import wait_until
from webdav.app import Application
from webdav.server import Server
from webdav.waiting import WaitingRoom


def fresh_token(client: Client, fs: MemoryFileSystem, target: str = "/") -> str:
    """A token; from then on, who reads the feed is one that waits."""
    token = token_of(client, target)
    fs.calls.clear()
    return token


def test_waiting_ends_with_a_change_beneath(client: Client, fs: MemoryFileSystem) -> None:
    fs.make_directory(("home",))
    token = fresh_token(client, fs, "/home/")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, client, "/home/", token, "wait=15")
        wait_until(lambda: fs.calls.get("read_feed"))
        put(fs, "far")
        threading.Event().wait(0.2)
        assert not asked.done()
        put(fs, "home", "f")
        began = time.monotonic()
        reply = asked.result(20)
    assert time.monotonic() - began < 5  # and not at the end of the wait
    assert reply["Preference-Applied"] == "wait=15"
    assert set(parse_page(reply.body, "/home/").changed) == {"/home/f"}


def test_waiting_ends_with_the_time(client: Client) -> None:
    token = token_of(client)
    began = time.monotonic()
    reply = ask(client, "/", token, "return=minimal, wait=1")
    assert 1 <= time.monotonic() - began < 10
    assert (reply["Preference-Applied"], parse_page(reply.body, "/").changed) == ("wait=1", {})


def test_nobody_waits_while_the_feed_is_not_followed(client: Client, fs: MemoryFileSystem) -> None:
    token = fresh_token(client, fs)
    fs.coherence.keep_fresh(0)
    reply = ask(client, "/", token, "wait=30")
    assert (reply.status, reply.get("Preference-Applied")) == (207, None)


def test_a_waiter_is_answered_when_the_feed_is_lost(client: Client, fs: MemoryFileSystem) -> None:
    token = fresh_token(client, fs)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, client, "/", token, "wait=30")
        wait_until(lambda: fs.calls.get("read_feed"))
        fs.coherence.keep_fresh(0)
        assert asked.result(20).get("Preference-Applied") is None


def places_left(server: Server) -> int:
    room: WaitingRoom = server.wsgi_app.provider.waiting  # type: ignore[attr-defined]
    return room._free._value


def test_few_may_wait(client: Client, fs: MemoryFileSystem, server: Server) -> None:
    token = fresh_token(client, fs)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(ask, client, "/", token, "wait=20") for _ in range(2)]
        wait_until(lambda: places_left(server) == 0)
        assert ask(client, "/", token, "wait=20").get("Preference-Applied") is None
        put(fs, "f")
        assert [reply.result(15)["Preference-Applied"] for reply in waiting] == ["wait=20"] * 2


def test_who_hangs_up_waits_no_longer(client: Client, fs: MemoryFileSystem, server: Server) -> None:
    token = fresh_token(client, fs)
    body = report_body(token)
    with client.connect() as connection:
        headers = {"Prefer": "wait=50", "Content-Length": str(len(body))}
        connection.send(client.head("REPORT", "/", headers) + body)
        wait_until(lambda: places_left(server) == 1)
    wait_until(lambda: places_left(server) == 2, 20)


def test_a_server_that_stops_does_not_wait_for_waiters() -> None:
    fs = MemoryFileSystem()
    with ThreadPoolExecutor(1) as pool:
        with serving(our_server(Application(fs, threads=4))) as server:  # type: ignore[arg-type]
            client = Client(*server.bind_addr)
            asked = pool.submit(ask, client, "/", fresh_token(client, fs), "wait=50")
            wait_until(lambda: fs.calls.get("read_feed"))
            began = time.monotonic()
        assert time.monotonic() - began < 20
        assert asked.result(20).status == 207
