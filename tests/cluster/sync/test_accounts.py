"""An agent that logs in, over TLS: the password is asked for once, kept where nobody else reads it, and may change."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from syncagent.control import ask
from tests.support.cluster import Cluster
from tests.support.gateways import make_certificate
from tests.support.ports import free_port
from tests.support.sync_agents import Agent
from tests.support.waiting import wait_until

PLAIN = {"PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"}
"""A machine without a keyring."""


@pytest.fixture
def certificate(tmp_path: Path, need: Callable[..., None]) -> tuple[str, str]:
    need("openssl")
    return make_certificate(tmp_path)


@pytest.fixture
def secured(tmp_path: Path, certificate: tuple[str, str]) -> Iterator[Cluster]:
    """A cluster with two users, at https://localhost."""
    data, port = tmp_path / "data", str(free_port())
    with Cluster(data) as open_cluster:
        for user in ("anna", "bert"):
            assert open_cluster.helenite("user", "add", user, input="secret\n").returncode == 0
    cert, key = certificate
    options = ("--host", "0.0.0.0", "--port", port, "--tls-cert", cert, "--tls-key", key)
    with Cluster(data, *options, environment={"HELENITE_WEBDAV_TRUST_S": "5"}) as cluster:
        cluster.url = f"https://localhost:{port}/"
        yield cluster


def agent_of(base: Path, name: str, certificate: tuple[str, str]) -> Agent:
    found = Agent(base, name, PLAIN | {"SSL_CERT_FILE": certificate[0]})
    found.folder.mkdir()
    return found


def test_a_password_is_read_kept_and_changed(secured: Cluster, tmp_path: Path, certificate: tuple[str, str]) -> None:
    url = f"{secured.url}home"
    anna, bert = (agent_of(tmp_path, name, certificate) for name in ("anna", "bert"))
    wrong = anna.command("add", url, str(anna.folder), "--user", "anna", text="wrong\n")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "refuses the user or the password" in wrong.stderr
    assert anna.command("add", url, str(anna.folder), text="").returncode == 1  # nobody is let in without a name
    for agent in (anna, bert):
        agent.add(url, "--user", agent.folder.name, password="secret")
        agent.start()
        kept = [file for file in agent.home.path.rglob("*") if _holds(file, b"secret")]
        assert [stat.S_IMODE(file.stat().st_mode) for file in kept] == [0o600]
    (anna.folder / "a").write_bytes(b"by anna")
    wait_until((bert.folder / "a").exists, 30)
    wait_until(anna.is_settled, 30)
    assert secured.helenite("user", "passwd", "anna", input="fresh\n").returncode == 0
    (anna.folder / "b").write_bytes(b"saved before anybody noticed")
    wait_until(lambda: _asks_again(anna), 90)
    assert anna.tree() == {"a": b"by anna", "b": b"saved before anybody noticed"}
    assert anna.command("remove").returncode == 0
    anna.add(url, "--user", "anna", password="fresh")
    wait_until((bert.folder / "b").exists, 30)
    for agent in (anna, bert):
        agent.stop()


def _holds(file: Path, text: bytes) -> bool:
    try:
        return file.is_file() and text in file.read_bytes()
    except FileNotFoundError:  # the journal's side files come and go
        return False


def _asks_again(agent: Agent) -> bool:
    """While an agent looks it tells no problem, and one that is always told to look again never would."""
    status = agent.status()
    if status["mood"] != "syncing":
        ask(agent.home, "sync")
    return "refuses the user or the password" in status["problem"]
