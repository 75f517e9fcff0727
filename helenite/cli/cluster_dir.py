"""The directory of a cluster on one machine: what lies where under `--dir`, who uses it, how to reach it.

Used by `up`, which owns it while it runs, and by every other command to find the cluster.
"""

from __future__ import annotations

import fcntl
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from helenite.core.errors import ConfigurationError

DEFAULT_DIR = Path("helenite-data")
"""Where `up` puts everything when no other place is named."""


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """What `up` tells the other commands: written when it is ready, removed when it stops."""

    pid: int
    masters: tuple[str, ...]
    url: str


class ClusterDir:
    """Paths under one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.redis = self.root / "redis"
        self.logs = self.root / "logs"
        self._info = self.root / "cluster.json"

    def chunkserver(self, number: int) -> Path:
        return self.root / f"chunkserver-{number}"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def create(self) -> None:
        """Make what is missing; ConfigurationError when that cannot be done."""
        try:
            for path in (self.root, self.redis, self.logs):
                path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigurationError(f"cannot use {self.root} as data directory: {error.strerror}") from error

    def lock(self) -> IO[str]:
        """Take the directory for this process until the returned file is closed."""
        file = (self.root / "lock").open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise ConfigurationError(
                f"a cluster is already running in {self.root}; stop it first or choose another --dir"
            ) from None
        return file

    def save_info(self, info: ClusterInfo) -> None:
        with tempfile.NamedTemporaryFile("w", dir=self.root, delete=False) as file:
            json.dump(asdict(info), file)
        Path(file.name).replace(self._info)

    def load_info(self) -> ClusterInfo | None:
        """How to reach the cluster; None when none is running here."""
        try:
            values = json.loads(self._info.read_text())
            return ClusterInfo(values["pid"], tuple(values["masters"]), values["url"])
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError) as error:
            raise ConfigurationError(f"{self._info} is damaged ({error}); start `helenite up` again") from error

    def forget_info(self) -> None:
        self._info.unlink(missing_ok=True)
