"""How long a write waits for a master, as it has to while another takes over."""

from __future__ import annotations

from typing import Any, cast

import pytest

from helenite.client.pool import ChunkPool
from helenite.client.rpc import MasterRpc
from helenite.core.errors import UnavailableError

DEADLINE_S = 30.0


class NoLeader:
    """Masters of which none leads; told how long to look for one."""

    def __init__(self) -> None:
        self.patience: list[float | None] = []

    def namespace(self, verb: str, request: Any, deadline_s: float | None = None) -> Any:
        self.patience.append(deadline_s)
        raise UnavailableError("no master answers")


@pytest.mark.parametrize("is_small", [True, False], ids=["small ones together", "one chunk"])
def test_a_write_waits_for_a_leader_as_long_as_a_request_may_take(*, is_small: bool) -> None:
    masters = NoLeader()
    pool = ChunkPool(cast(MasterRpc, masters), DEADLINE_S)
    try:
        if is_small:
            assert all(isinstance(error, UnavailableError) for error in pool.write_small([b"a", b"b"]))
        else:
            with pytest.raises(UnavailableError):
                pool.write_chunk(memoryview(b"a"))
    finally:
        pool.close()
    assert masters.patience
    assert all(found is not None and found > DEADLINE_S - 5 for found in masters.patience)
