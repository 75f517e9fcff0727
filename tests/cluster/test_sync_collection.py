"""REPORT sync-collection on a real cluster with two workers: clients that know nothing else are never wrong."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree as ET

import httpx
import pytest

from helenite.client.filesystem import FileSystem
from helenite.config import ClientSettings
from tests.support.cluster import LANES_OFF, Cluster
from tests.support.sync_client import Ask, Known, SyncClient, change_at_random, put
from tests.support.waiting import wait_until

D = "{DAV:}"
NAMED = '<propfind xmlns="DAV:"><prop><resourcetype/><getetag/><resource-id/></prop></propfind>'
ROUNDS = 10
CHANGES = 100


@pytest.fixture(scope="module", params=[{}, LANES_OFF], ids=["lanes on", "lanes off"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("sync"), "--workers", "2", environment=request.param) as running:
        yield running
        running.check_fsck()


@pytest.fixture
def http(cluster: Cluster) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=cluster.url, timeout=90) as client:
        yield client


@pytest.fixture
def other(cluster: Cluster) -> Iterator[FileSystem]:
    """Another client of the cluster, of which the gateway hears by the feed alone."""
    with FileSystem(ClientSettings(masters=cluster.masters)) as found:
        yield found


def asking(http: httpx.Client, target: str) -> Ask:
    def send(body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        reply = http.request("REPORT", target, content=body, headers=headers)
        return reply.status_code, reply.content

    return send


def truth(http: httpx.Client, home: str) -> dict[str, Known]:
    """Everything beneath a collection, as PROPFIND tells it."""
    found: dict[str, Known] = {}
    left = [home]
    while left:
        here = left.pop()
        reply = http.request("PROPFIND", here, headers={"Depth": "1"}, content=NAMED)
        assert reply.status_code == 207
        for response in ET.fromstring(reply.content).iter(f"{D}response"):
            href = response.findtext(f"{D}href") or ""
            if href == here:
                continue
            is_collection = href.endswith("/")
            etag = "" if is_collection else response.findtext(f".//{D}getetag") or ""
            found[href] = Known(response.findtext(f".//{D}resource-id/{D}href") or "", etag)
            if is_collection:
                left.append(href)
    return found


def change_by_gateway(http: httpx.Client, chance: random.Random, home: str) -> None:
    def link() -> str:
        return home + "/".join(chance.choice("abcd") for _ in range(chance.randint(1, 3)))

    verb = chance.choice(["PUT", "PUT", "PUT", "MKCOL", "MOVE", "COPY", "DELETE"])
    overwrite = {"Overwrite": chance.choice("TF"), "Destination": link()}
    http.request(
        verb, link(), headers=overwrite if verb in {"MOVE", "COPY"} else {}, content=b"" if verb != "PUT" else b"1"
    )


@pytest.mark.parametrize(("limit", "seed"), [(None, 1), (9, 2)])
@pytest.mark.timeout(240)
def test_a_client_that_only_hears_reports_is_never_wrong(
    http: httpx.Client, other: FileSystem, limit: int | None, seed: int
) -> None:
    chance = random.Random(seed)
    home = f"/model{seed}/"
    http.request("MKCOL", home).raise_for_status()
    followers = [
        SyncClient(asking(http, home), home, limit=limit),
        SyncClient(asking(http, home), home, limit=limit),  # asks in the midst of the changes too
    ]
    for round_number in range(ROUNDS):
        for number in range(CHANGES):
            if number % 2:
                change_by_gateway(http, chance, home)
            else:
                change_at_random(other, chance, (home.strip("/"),))
            if number % 10 == 0:
                followers[1].step()
        expected = truth(http, home)
        for follower in followers:
            follower.synchronise()
            assert follower.picture == expected, f"seed {seed}, round {round_number}"
    assert [follower.restarts for follower in followers] == [0, 0]


def test_tokens_outlive_the_master(cluster: Cluster, http: httpx.Client, other: FileSystem) -> None:
    http.request("MKCOL", "/lasting/").raise_for_status()
    follower = SyncClient(asking(http, "/lasting/"), "/lasting/")
    follower.synchronise()
    put(other, "lasting", "before")
    master = cluster.child("helenite.master")
    master.kill()
    master.wait(10)
    wait_until(lambda: [server["state"] for server in cluster.status()["chunkservers"]] == 3 * ["alive"], 60)
    put(other, "lasting", "after")
    follower.synchronise()
    assert set(follower.picture) == {"/lasting/before", "/lasting/after"}
    assert follower.restarts == 0
    wait_until(lambda: not _waits_in_vain(http), 20)


def test_tokens_of_an_untouched_cluster_are_good_after_a_restart(tmp_path: Path) -> None:
    """Sequences leap when Redis is started anew, and there is nothing in the feed yet."""
    with Cluster(tmp_path / "new", "--workers", "1") as new:
        new.kill_everything()
        new.start()
        with httpx.Client(base_url=new.url, timeout=30) as http:
            follower = SyncClient(asking(http, "/"), "/")
            for _ in range(3):
                follower.synchronise()
            assert follower.restarts == 0


def _waits_in_vain(http: httpx.Client) -> bool:
    """Whether the gateway does not hear the feed."""
    follower = SyncClient(asking(http, "/"), "/", level="1")
    follower.synchronise()
    body = {"Prefer": "wait=1"}
    began = time.monotonic()
    follower.step(body)
    return time.monotonic() - began < 0.9


def test_who_waits_hears_of_a_change_at_once(http: httpx.Client, other: FileSystem) -> None:
    http.request("MKCOL", "/push/").raise_for_status()
    follower = SyncClient(asking(http, "/push/"), "/push/")
    follower.synchronise()
    delays, plain = [], []
    with ThreadPoolExecutor(1) as pool:
        for number in range(10):
            asked = pool.submit(follower.step, {"Prefer": "wait=20"})
            with pytest.raises(TimeoutError):
                asked.result(0.15)
            put(other, "push", f"{number}")
            written = time.monotonic()
            asked.result(15)
            heard = time.monotonic()
            delays.append(heard - written)
            assert f"/push/{number}" in follower.picture
            follower.step()
            plain.append(time.monotonic() - heard)
    print(f"heard after {statistics.median(delays):.3f} s, {max(delays):.3f} s at most")  # noqa: T201
    # A busy machine delays a report that waits for nothing just as much.
    assert statistics.median(delays) < 0.1 + 3 * statistics.median(plain), (delays, plain)


def test_a_large_change_costs_few_round_trips(http: httpx.Client, other: FileSystem) -> None:
    """A page of changes is one listing, not a look-up for each."""
    http.request("MKCOL", "/large/").raise_for_status()
    follower = SyncClient(asking(http, "/large/"), "/large/")
    follower.synchronise()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: put(other, "large", f"{number}"), range(1000)))
    began = time.monotonic()
    follower.synchronise()
    took = time.monotonic() - began
    began = time.monotonic()
    listed = truth(http, "/large/")
    listing = time.monotonic() - began
    assert follower.picture == listed
    assert len(follower.picture) == 1000
    print(f"1000 changes in {took:.3f} s, a listing in {listing:.3f} s")  # noqa: T201
    assert took < max(1.5, 8 * listing)
