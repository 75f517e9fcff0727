from __future__ import annotations

import base64
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from helenite.core.clock import Clock
from helenite.core.errors import UnavailableError
from tests.support.gateways import QUICK_HASH, our_gateway, with_credentials
from tests.support.memory_filesystem import MemoryFileSystem, MemoryRpc
from webdav.auth import REFUSAL_S, VERDICTS_MAX, Users, parse_basic

TRUST_S = 20.0


class FakeClock(Clock):
    now = 1000.0

    def monotonic_s(self) -> float:
        return self.now


class CountingRpc(MemoryRpc):
    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self._guard = threading.Lock()

    def admin(self, verb: str, request: object) -> object:
        with self._guard:
            self.asked += verb == "GetUser"
        return super().admin(verb, request)


@pytest.fixture
def users() -> Users:
    rpc = CountingRpc()
    rpc.users["ann"] = QUICK_HASH.hash("secret")
    made = Users(rpc, FakeClock(), TRUST_S)
    made._decoy = rpc.users["ann"]  # quick as well
    return made


def basic(text: bytes) -> str:
    return "Basic " + base64.b64encode(text).decode()


@pytest.mark.parametrize(
    ("header", "credentials"),
    [
        (basic(b"ann:secret"), ("ann", "secret")),
        (basic(b"ann:se:cret"), ("ann", "se:cret")),
        (basic(b"OFFICE\\ann:secret"), ("ann", "secret")),
        (basic("änn:gehéim".encode()), ("änn", "gehéim")),
        (basic("änn:x".encode("latin-1")), ("änn", "x")),
        (basic(b"ann:").replace("Basic", "bAsIc"), ("ann", "")),
        (None, None),
        ("", None),
        ("Basic", None),
        ("Basic %%%", None),
        ("Bearer abc", None),
        (basic(b"no colon"), None),
        (basic(b":secret"), None),
    ],
)
def test_the_header(header: str | None, credentials: tuple[str, str] | None) -> None:
    assert parse_basic(header) == credentials


def test_verdicts_are_remembered_for_a_while(users: Users) -> None:
    assert users.verify("ann", "secret")
    assert users.verify("ann", "secret")
    assert users._rpc.asked == 1
    users._clock.now += TRUST_S - 1
    assert users.verify("ann", "secret")
    assert users._rpc.asked == 1
    users._clock.now += 2
    assert users.verify("ann", "secret")
    assert users._rpc.asked == 2


def test_a_removed_user_is_out_when_the_trust_ends(users: Users) -> None:
    assert users.verify("ann", "secret")
    del users._rpc.users["ann"]
    assert users.verify("ann", "secret")
    users._clock.now += TRUST_S + 1
    assert not users.verify("ann", "secret")


def test_a_new_password_counts_soon(users: Users) -> None:
    assert not users.verify("ann", "new")
    users._rpc.users["ann"] = QUICK_HASH.hash("new")
    assert not users.verify("ann", "new")
    users._clock.now += REFUSAL_S + 1
    assert users.verify("ann", "new")


def test_unknown_users_and_broken_hashes_are_refused(users: Users) -> None:
    assert not users.verify("bob", "secret")
    users._rpc.users["bob"] = "no hash"
    assert not users.verify("bob", "other")


def test_memory_is_bounded(users: Users) -> None:
    for number in range(VERDICTS_MAX + 50):
        users._remember(number.to_bytes(4, "big"), is_right=False)
    assert len(users._verdicts) == VERDICTS_MAX


def test_one_verification_serves_many_requests(users: Users) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: users.verify("ann", "secret"), range(50)))
    assert users._rpc.asked <= 2


def test_users_are_required_once_there_are_any() -> None:
    file_system = MemoryFileSystem()
    with our_gateway(file_system) as client:
        assert client.get("/").status == 200
    with our_gateway(file_system, user="ann") as client:
        for method in ("GET", "HEAD", "PUT", "PROPFIND", "OPTIONS", "LOCK", "NONSENSE"):
            refused = client(method, "/")
            assert refused.status == 401, method
            assert refused["WWW-Authenticate"].startswith("Basic ")
        assert with_credentials(client, "ann", "secret").get("/").status == 200
        assert with_credentials(client, "OFFICE\\ann", "secret").get("/").status == 200
        assert with_credentials(client, "ann", "wrong").get("/").status == 401
        assert with_credentials(client, "bob", "secret").get("/").status == 401


def test_without_users_a_public_gateway_stays_shut() -> None:
    with our_gateway(may_be_open=False) as client:
        assert client.get("/").status == 401


def test_an_unreachable_master_is_no_open_door() -> None:
    file_system = MemoryFileSystem()

    def fails(*_: object) -> None:
        raise UnavailableError("no master answers")

    file_system.rpc.admin = fails  # type: ignore[method-assign,assignment]
    with our_gateway(file_system) as client:
        assert client.get("/").status == 503


def test_locks_belong_to_who_took_them() -> None:
    file_system = MemoryFileSystem()
    file_system.rpc.users["bob"] = QUICK_HASH.hash("secret")
    with our_gateway(file_system, user="ann") as client:
        ann, bob = with_credentials(client, "ann", "secret"), with_credentials(client, "bob", "secret")
        ann.put("/f", b"x")
        token = ann.token("/f")
        assert bob.put("/f", b"y", **{"if": f"({token})"}).status == 423
        assert bob("UNLOCK", "/f", {"Lock-Token": token}).status == 403
        assert ann.put("/f", b"z", **{"if": f"({token})"}).status == 204
        assert ann("UNLOCK", "/f", {"Lock-Token": token}).status == 204
