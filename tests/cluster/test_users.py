"""Users and TLS as a person sets them up: add a user, start on all addresses with a certificate, log in."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.cluster import Cluster
from tests.support.waiting import wait_until

TRUST_S = 5
FOLLOWS_S = 60
"""A gateway has verified again."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("tls")
    cert, key = directory / "cert.pem", directory / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[tuple[Cluster, str]]:
    """A cluster with one user, on all addresses, with TLS; and the address to reach it at from here."""
    directory = tmp_path_factory.mktemp("secured") / "data"
    with Cluster(directory) as open_cluster:
        added = open_cluster.helenite("user", "add", "alice", input="secret\n")
        assert added.returncode == 0, added.stderr
        assert open_cluster.helenite("user", "add", "alice", input="x\n").returncode == 1
        assert open_cluster.helenite("user", "add", "no:colon", input="x\n").returncode == 1
        assert open_cluster.helenite("user", "add", "empty", input="\n").returncode == 1
        assert open_cluster.helenite("user", "ls").stdout == "alice\n"
    cert, key = certificate
    options = ("--host", "0.0.0.0", "--tls-cert", str(cert), "--tls-key", str(key))
    with Cluster(directory, *options, environment={"HELENITE_WEBDAV_TRUST_S": str(TRUST_S)}) as cluster:
        yield cluster, cluster.url.replace("0.0.0.0", "localhost")


def client(address: str, certificate: tuple[Path, Path], *login: str) -> httpx.Client:
    trust = ssl.create_default_context(cafile=str(certificate[0]))
    return httpx.Client(base_url=address, verify=trust, auth=(login[0], login[1]) if login else None, timeout=30)


def test_the_right_password_opens_and_nothing_else_does(
    secured: tuple[Cluster, str], certificate: tuple[Path, Path]
) -> None:
    _, address = secured
    with client(address, certificate, "alice", "secret") as right:
        assert right.put("/private", content=b"private").status_code == 201
        assert right.get("/private").content == b"private"
    with client(address, certificate, "WORKGROUP\\alice", "secret") as from_windows:
        assert from_windows.get("/private").status_code == 200
    for login in ((), ("alice", "wrong"), ("bob", "secret"), ("alice", "")):
        with client(address, certificate, *login) as wrong:
            refused = wrong.put("/private", content=b"overwritten")
            assert refused.status_code == 401
            assert refused.headers["WWW-Authenticate"].startswith("Basic ")
            assert wrong.get("/private").status_code == 401


def test_a_new_password_and_a_removed_user_are_followed(
    secured: tuple[Cluster, str], certificate: tuple[Path, Path]
) -> None:
    cluster, address = secured
    for name in ("carol", "erin"):
        assert cluster.helenite("user", "add", name, input="old\n").returncode == 0
    with client(address, certificate, "carol", "old") as carol, client(address, certificate, "erin", "old") as erin:
        assert carol.get("/").status_code == erin.get("/").status_code == 200
        assert cluster.helenite("user", "passwd", "carol", input="new\n").returncode == 0
        assert cluster.helenite("user", "rm", "erin").returncode == 0
        wait_until(lambda: carol.get("/").status_code == 401, FOLLOWS_S)
        wait_until(lambda: erin.get("/").status_code == 401, FOLLOWS_S)
    with client(address, certificate, "carol", "new") as changed:
        assert changed.get("/").status_code == 200


def test_locks_belong_to_who_took_them(secured: tuple[Cluster, str], certificate: tuple[Path, Path]) -> None:
    cluster, address = secured
    assert cluster.helenite("user", "add", "dave", input="dave\n").returncode == 0
    body = (
        '<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype>'
        "<owner>alice</owner></lockinfo>"
    )
    with client(address, certificate, "alice", "secret") as alice, client(address, certificate, "dave", "dave") as dave:
        alice.put("/locked", content=b"1")
        token = alice.request("LOCK", "/locked", content=body).headers["Lock-Token"]
        assert dave.put("/locked", content=b"2", headers={"If": f"({token})"}).status_code == 423
        assert alice.put("/locked", content=b"2", headers={"If": f"({token})"}).status_code == 204
        assert dave.request("UNLOCK", "/locked", headers={"Lock-Token": token}).status_code == 403
        assert alice.request("UNLOCK", "/locked", headers={"Lock-Token": token}).status_code == 204
