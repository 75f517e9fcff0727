"""Large bodies that are refused before they are read: whoever sends them hears why, at once, also through a proxy.

A client that does not wait for `100 Continue` is in the midst of sending then. It sees the answer when it cannot send
any more; what it must not do is to wait for room that never comes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from tests.support.gateways import our_gateway
from tests.support.memory_filesystem import MemoryFileSystem
from tests.support.proxy import Proxy

PIECE = bytes(256 << 10)
SIZE = 2 << 30
"""Of a body: far more than sockets hold, and than a bundle may have."""
ATTEMPTS = 60
"""A hang that depends on who is first was there in one of ten."""
PATIENCE_S = 20.0
ACCOUNT = ("anna", "secret")


def body() -> Iterator[bytes]:
    for _ in range(0, SIZE, len(PIECE)):
        yield PIECE


@pytest.fixture(params=["direct", "proxied"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    fs = MemoryFileSystem()
    fs.free_bytes = 1000
    with our_gateway(fs, user="anna") as gateway:
        origin = f"{gateway.host}:{gateway.port}"
        if request.param == "direct":
            yield origin
            return
        with Proxy(origin) as proxy:
            yield proxy.address


@pytest.mark.parametrize(
    ("method", "target", "headers", "auth", "status"),
    [
        ("PUT", "/f", {}, None, 401),
        ("PUT", "/f", {"If-Match": '"1-1"'}, ACCOUNT, 412),
        ("POST", "/?bundle", {}, ACCOUNT, 413),
        ("PUT", "/f", {}, ACCOUNT, 507),
    ],
)
def test_who_sends_what_is_refused_hears_so(
    address: str, method: str, target: str, headers: dict[str, str], auth: tuple[str, str] | None, status: int
) -> None:
    with httpx.Client(timeout=PATIENCE_S, auth=auth) as client:
        for _ in range(ATTEMPTS):
            began_s = time.monotonic()
            announced = headers | {"Content-Length": str(SIZE)}
            reply = client.request(method, f"http://{address}{target}", content=body(), headers=announced)
            assert reply.status_code == status
            assert time.monotonic() - began_s < PATIENCE_S
