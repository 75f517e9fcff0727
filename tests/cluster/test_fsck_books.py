"""fsck on damaged books: each kind of damage is named, mended, and gone afterwards, while files stay what they were."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import httpx
import pytest
import redis

from helenite.core.record import HEADER
from tests.support.cluster import Cluster

Damage = Callable[[redis.Redis], str]
P = "{main}:"


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    return {"a": os.urandom(5_000), "dir/b": os.urandom(30_000), "dir/in/c": os.urandom(9 << 20)}


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory, contents: dict[str, bytes]):  # type: ignore[no-untyped-def]
    with Cluster(tmp_path_factory.mktemp("books"), environment={"HELENITE_TRASH_S": "0"}) as cluster:
        with httpx.Client(base_url=cluster.url, timeout=60) as client:
            for name in ("dir", "dir/in"):
                client.request("MKCOL", f"/{name}").raise_for_status()
            for name, content in contents.items():
                client.put(f"/{name}", content=content).raise_for_status()
            client.request("COPY", "/a", headers={"Destination": "/copy"}).raise_for_status()
        yield cluster


def raw(cluster: Cluster) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(cluster.directory / "redis" / "redis.sock"))


def fsck(cluster: Cluster, *options: str) -> tuple[int, dict]:  # type: ignore[type-arg]
    done = cluster.helenite("fsck", "--json", *options)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def first_handle(client: redis.Redis) -> int:
    return min(int(h) for h in client.hkeys(P + "r"))


def directory_id(client: redis.Redis, parent: int, name: str) -> int:
    return int(HEADER.unpack_from(client.hget(f"{P}d:{parent}", name))[2])


def references_too_low(client: redis.Redis) -> str:
    client.hdel(P + "r", first_handle(client))
    return "1 are noted"


def references_too_high(client: redis.Redis) -> str:
    client.hset(P + "r", first_handle(client), 7)
    return "7 are noted"


def in_use_but_freed(client: redis.Redis) -> str:
    client.zadd(P + "freed", {str(first_handle(client)): 10**15})
    return "would be deleted"


def in_use_but_freed_and_not_counted(client: redis.Redis) -> str:
    client.zadd(P + "freed", {str(first_handle(client)): 10**15})
    client.hdel(P + "r", first_handle(client))
    return "would be deleted"


def totals_wrong(client: redis.Redis) -> str:
    client.hset(P + "q", "1", b"\0" * 7 + b"\1" + b"\0" * 24)
    return "totals say otherwise"


def stray_extents(client: redis.Redis) -> str:
    client.set(P + "e:999:1", b"x" * 16)
    return "belong to no file"


def stray_properties(client: redis.Redis) -> str:
    client.hset(P + "x:999", "{a}b", "<b/>")
    return "belong to no entry"


def counter_behind(client: redis.Redis) -> str:
    client.set(P + "next_id", 1)
    return "next_id is behind"


def damaged_change(client: redis.Redis) -> str:
    client.xadd(P + "feed", {"c": b"\xff\xff"}, id=f"{int(client.get(P + 'seq'))}-5")
    return "of the feed is damaged"


def table_entry_gone(client: redis.Redis) -> str:
    handle = first_handle(client)
    client.hdel(f"{P}c:{handle // 128}", handle % 128)
    return "is in no chunk table; 3 chunkservers hold it"


def noted_but_unknown(client: redis.Redis) -> str:
    client.hset(P + "r", 10**9, 3)
    return "no record names it"


@pytest.mark.parametrize(
    "damage",
    [
        references_too_low,
        references_too_high,
        in_use_but_freed,
        in_use_but_freed_and_not_counted,
        totals_wrong,
        stray_extents,
        stray_properties,
        counter_behind,
        damaged_change,
        table_entry_gone,
        noted_but_unknown,
    ],
)
def test_damage_is_named_mended_and_gone(books: Cluster, contents: dict[str, bytes], damage: Damage) -> None:
    assert fsck(books)[0] == 0
    with raw(books) as client:
        expected = damage(client)
    status, report = fsck(books)
    assert status >= 1
    assert any(expected in sentence for sentence in report["books"]), report
    status, report = fsck(books, "--repair")
    assert (status, report["books"], report["mended"] >= 1) == (0, [], True), report
    for name, content in contents.items():
        assert httpx.get(f"{books.url}{name}", timeout=60).content == content


def test_a_directory_that_hangs_in_the_air_is_found_again(books: Cluster, contents: dict[str, bytes]) -> None:
    with raw(books) as client:
        lost = directory_id(client, 1, "dir")
        client.hdel(P + "d:1", "dir")
    status, report = fsck(books)
    assert status == 1
    assert any("hangs in the air" in sentence for sentence in report["books"]), report
    fsck(books, "--repair")
    status, report = fsck(books, "--repair")
    assert (status, report["books"]) == (0, []), report
    for name in ("b", "in/c"):
        found = httpx.get(f"{books.url}lost+found/{lost}/{name}", timeout=60)
        assert found.content == contents[f"dir/{name}"]


def test_what_was_lost_is_not_given_up_before_a_person_says_so(books: Cluster, contents: dict[str, bytes]) -> None:
    for name in ("gone", "gone/in"):
        httpx.request("MKCOL", f"{books.url}{name}", timeout=60).raise_for_status()
    httpx.put(f"{books.url}gone/in/f", content=contents["a"][::-1], timeout=60).raise_for_status()
    with raw(books) as client:
        lost = directory_id(client, directory_id(client, 1, "gone"), "in")
        client.rename(f"{P}d:{lost}", f"{P}saved")
    status, report = fsck(books, "--repair")
    assert (status, report["mended"]) == (2, 0), report
    assert f"directory {lost} is gone" in report["loss"]
    assert "METADATA LOST" in books.helenite("fsck").stdout
    with raw(books) as client:
        client.rename(f"{P}saved", f"{P}d:{lost}")
    assert fsck(books)[0] == 0
    assert httpx.get(f"{books.url}gone/in/f", timeout=60).content == contents["a"][::-1]
    with raw(books) as client:
        client.unlink(f"{P}d:{lost}")
    status, report = fsck(books, "--repair", "--accept-loss")
    assert (status, report["books"], report["loss"]) == (0, [], ""), report
    assert report["mended"] >= 3, "the chunk is freed, totals are lower"
