"""docker-compose.yml without Docker: each service's command, with its environment, on a test host of its own."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from helenite.config import SETTINGS
from tests.support.hosts import Hosts, can_make_hosts
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
ROUND_TRIP = """
import base64, os, urllib.request
content = os.urandom(9_000_000)
login = {"Authorization": "Basic " + base64.b64encode(b"alice:secret").decode()}
def ask(method, data=None):
    request = urllib.request.Request("http://gateway:8080/in%20and%20out", data, login, method=method)
    with urllib.request.urlopen(request, timeout=30) as reply:
        return reply.status, reply.read()
assert ask("PUT", content)[0] == 201
assert ask("GET") == (200, content)
"""


def interpolate(text: str) -> str:
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(text))


def test_every_setting_in_the_file_is_known() -> None:
    known = {field.metadata["variable"] for settings in SETTINGS for field in dataclasses.fields(settings)}
    for name, service in SERVICES.items():
        assert set(service.get("environment", {})) <= known, name


def test_every_service_has_a_health_check_and_a_network() -> None:
    assert set(SERVICES) == {"redis-master", "redis-client", "master", "chunkserver", "gateway"}
    for name, service in SERVICES.items():
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service["networks"] == ["cluster"], name
    assert interpolate(SERVICES["chunkserver"]["deploy"]["replicas"]) == "3"


class Composition:
    """Runs the services as compose would: in order of dependency, each when what it needs is healthy."""

    def __init__(self, hosts: Hosts, directory: Path) -> None:
        self._hosts = hosts
        self._directory = directory
        self._running: list[subprocess.Popen[str]] = []

    def instances(self, service: str) -> list[str]:
        count = int(interpolate(SERVICES[service].get("deploy", {}).get("replicas", 1)))
        return [service] if count == 1 else [f"{service}-{number}" for number in range(1, count + 1)]

    def start(self, service: str) -> None:
        for host in self.instances(service):
            volume = self._directory / host
            volume.mkdir()
            command = [self._program(word) for word in SERVICES[service]["command"]]
            environment = {
                key: str(volume) if value == "/data" else str(value)
                for key, value in SERVICES[service].get("environment", {}).items()
            }
            log = (volume / "log").open("w")
            self._running.append(
                self._hosts.start(host, command, self._base() | environment, cwd=volume, stdout=log, stderr=log)
            )
            log.close()
        for host in self.instances(service):
            self._wait_healthy(service, host)

    def _wait_healthy(self, service: str, host: str) -> None:
        test = [self._program(word) for word in SERVICES[service]["healthcheck"]["test"][1:]]
        log = self._directory / host / "log"
        wait_until(lambda: self._hosts.run(host, test, self._base()).returncode == 0, 120, log.read_text)

    def stop(self) -> None:
        for process in reversed(self._running):
            process.terminate()
        for process in reversed(self._running):
            process.wait(timeout=30)

    @staticmethod
    def _program(word: str) -> str:
        return sys.executable if word == "python" else word

    @staticmethod
    def _base() -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(self, host: str, *words: str, **options: Any) -> None:
        done = self._hosts.run(host, [self._program(word) for word in words], self._base(), **options)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def composition(tmp_path: Path, need: Any) -> Iterator[Composition]:
    if not can_make_hosts():
        if os.environ.get("CI"):
            pytest.fail("CI must be able to make network namespaces")
        pytest.skip("needs root and iproute2, to make network namespaces")
    need("redis-server", "redis-cli")
    names = [name for service in SERVICES for name in Composition(Hosts([], tmp_path), tmp_path).instances(service)]
    with Hosts([*names, "client"], tmp_path) as hosts:
        made = Composition(hosts, tmp_path)
        try:
            yield made
        finally:
            made.stop()


def test_a_file_goes_in_and_out(composition: Composition) -> None:
    for service in ("redis-master", "redis-client", "master", "chunkserver"):
        composition.start(service)
    composition.run(
        "master", "python", "-m", "helenite.cli", "user", "add", "alice", "--master", "master:7600", input="secret\n"
    )
    composition.start("gateway")
    composition.run("client", "python", "-c", ROUND_TRIP)
    composition.run("master", "python", "-m", "helenite.cli", "fsck", "--master", "master:7600")
