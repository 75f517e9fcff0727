"""The HTTP API as its own process: OpenAPI pages, entries, content, conditions, errors."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.support.cluster import Cluster
from tests.support.ports import free_port
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def api(shared_cluster: Cluster) -> Iterator[httpx.Client]:
    listen = f"127.0.0.1:{free_port()}"
    environment = os.environ | {"HELENITE_MASTERS": ",".join(shared_cluster.masters), "HELENITE_API_LISTEN": listen}
    process = subprocess.Popen([sys.executable, "-m", "helenite.client"], env=environment, stderr=subprocess.DEVNULL)
    with httpx.Client(base_url=f"http://{listen}", timeout=30) as client:
        wait_until(lambda: listens(client), 60)
        yield client
    process.terminate()
    process.wait(timeout=60)


def listens(client: httpx.Client) -> bool:
    try:
        client.get("/usage")
    except httpx.ConnectError:
        return False
    return True


def test_openapi_names_every_route(api: httpx.Client) -> None:
    paths = api.get("/openapi.json").json()["paths"]
    assert {"/entries/{path}", "/content/{path}", "/directories/{path}", "/move", "/copy", "/usage", "/feed"} <= set(
        paths
    )
    assert api.get("/docs").status_code == 200


def test_content_goes_in_and_out(api: httpx.Client) -> None:
    content = os.urandom(9_000_000)
    assert api.post("/directories/api").status_code == 201
    made = api.put("/content/api/a b", content=content)
    assert made.status_code == 201
    got = api.get("/content/api/a b")
    assert got.content == content
    assert got.headers["ETag"] == f'"{made.json()["etag"]}"'
    assert api.get("/content/api/a b", params={"offset": 70_000, "length": 10}).content == content[70_000:70_010]
    assert [member["name"] for member in api.get("/entries/api").json()["members"]] == ["a b"]


def test_conditions(api: httpx.Client) -> None:
    first = api.put("/content/conditional", content=b"1", headers={"If-None-Match": "*"})
    assert first.status_code == 201
    assert api.put("/content/conditional", content=b"2", headers={"If-None-Match": "*"}).status_code == 412
    etag = f'"{first.json()["etag"]}"'
    assert api.put("/content/conditional", content=b"3", headers={"If-Match": etag}).status_code == 201
    assert api.put("/content/conditional", content=b"4", headers={"If-Match": etag}).status_code == 412
    assert api.get("/content/conditional").content == b"3"


def test_move_copy_delete_and_the_feed(api: httpx.Client) -> None:
    before = api.get("/feed", params={"after": 0}).json()["last"]
    api.put("/content/one", content=b"x")
    assert api.post("/copy", json={"source": "/one", "target": "/two"}).status_code == 200
    assert api.post("/copy", json={"source": "/one", "target": "/two"}).status_code == 412
    assert api.post("/move", json={"source": "/two", "target": "/three"}).status_code == 200
    assert api.delete("/entries/three").status_code == 204
    changes = api.get("/feed", params={"after": before}).json()["changes"]
    assert [(change["verb"], change["path"]) for change in changes] == [
        ("commit", "/one"),
        ("copy", "/two"),
        ("move", "/three"),
        ("remove", "/three"),
    ]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/entries/missing", 404, "entry_not_found"),
        ("GET", "/content/missing", 404, "entry_not_found"),
        ("PUT", "/content/no/parent", 409, "parent_not_found"),
        ("POST", "/directories/a%00b", 400, "invalid_path"),
        ("GET", "/feed?after=999999999999", 410, "history_lost"),
    ],
)
def test_errors_are_json(api: httpx.Client, method: str, path: str, status: int, code: str) -> None:
    reply = api.request(method, path, content=b"x" if method == "PUT" else None)
    assert (reply.status_code, reply.json()["code"]) == (status, code)
    assert reply.json()["message"]
