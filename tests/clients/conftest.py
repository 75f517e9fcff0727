"""Clients meet the cluster twice, with all that makes it fast and without: what is right must not depend on that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.cluster import LANES_OFF, Cluster


@pytest.fixture(scope="module", params=["lanes on", "lanes off"])
def gateway_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "lanes on":
        shared: Cluster = request.getfixturevalue("shared_cluster")
        yield shared.url
        return
    with Cluster(tmp_path_factory.mktemp("slow lane"), "--workers", "2", environment=LANES_OFF) as cluster:
        cluster.hide_sockets()
        yield cluster.url
        cluster.check_fsck()
