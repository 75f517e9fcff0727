"""Shared by all suites: the switches --slow and --lanes-off, programs that may be missing, real clusters."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helenite.client.filesystem import FileSystem
from helenite.config import ClientSettings
from tests.support.cluster import LANES_OFF, Cluster


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run tests that take minutes or gigabytes")
    parser.addoption("--lanes-off", action="store_true", help="run all clusters without what makes Helenite fast")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--lanes-off"):
        os.environ.update(LANES_OFF)
        Cluster.hides_sockets = True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))


@pytest.fixture(scope="session")
def need() -> Callable[..., None]:
    """Skip when a program is missing, on a newcomer's machine; fail in CI, where nothing may be missing."""

    def check(*programs: str) -> None:
        missing = [program for program in programs if shutil.which(program) is None]
        if missing and os.environ.get("CI"):
            pytest.fail(f"CI must have {', '.join(missing)}")
        if missing:
            pytest.skip(f"not installed: {', '.join(missing)}")

    return check


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One `helenite up` with two workers for all tests that leave it as healthy as they found it; ends with fsck."""
    with Cluster(tmp_path_factory.mktemp("cluster"), "--workers", "2") as cluster:
        yield cluster
        cluster.check_fsck()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of the test's own, not yet started."""
    made = Cluster(tmp_path / "cluster", "--workers", "2")
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def gateway_url(shared_cluster: Cluster) -> str:
    return shared_cluster.url


@pytest.fixture
def real_filesystem(shared_cluster: Cluster) -> Iterator[FileSystem]:
    """A client of the shared cluster."""
    with FileSystem(ClientSettings(masters=shared_cluster.masters)) as found:
        yield found
