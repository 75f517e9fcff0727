"""Data ports of chunkservers, in this process: a store, its port, connections to it."""

from __future__ import annotations

from pathlib import Path

from helenite.chunkserver.dataport import DataPort
from helenite.chunkserver.store import ChunkStore
from helenite.core.dataport import DataConnection
from helenite.core.frames import Target
from helenite.core.model import ServerId

KEY = b"k" * 32
CLUSTER = "ab" * 16


class Host:
    """One chunkserver's store and data port, in this process."""

    def __init__(
        self,
        number: int,
        directory: Path,
        *,
        capacity_bytes: int = 0,
        connections_max: int = 200,
        listen: str = "127.0.0.1:0",
    ) -> None:
        self.store = ChunkStore(directory, is_durable=False, capacity_bytes=capacity_bytes)
        self.store.adopt(CLUSTER, ServerId(number))
        self.port = DataPort(self.store, connections_max)
        tcp, self.socket = self.port.bind(listen, str(directory / "data.sock"))
        self.address = f"127.0.0.1:{tcp}"
        self.port.serve(KEY)
        self.id = ServerId(number)
        self.connections: list[DataConnection] = []

    def target(self, *, by_unix: bool = False) -> Target:
        return Target(self.id, self.address, self.socket if by_unix else "")

    def connect(self, *, by_unix: bool = False) -> DataConnection:
        made = DataConnection.connect(self.id, self.address, self.socket if by_unix else "", None, 5.0)
        self.connections.append(made)
        return made

    def close(self) -> None:
        for connection in self.connections:
            connection.close()
        self.port.close()
        self.store.close()
