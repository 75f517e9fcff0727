"""Whose data a directory holds: a lock against a second process, an identity against a foreign cluster.

Used by `store`. The identity is made at the first start; the cluster and the server's id come with the first
registration and never change after it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from helenite.chunkserver.disk import DISK_REFUSES, disk_errors, write_durably
from helenite.core.errors import ConfigurationError, ForeignClusterError, UnavailableError
from helenite.core.model import ServerId

_DISK_FAILS = DISK_REFUSES | {errno.EROFS}
"""What a person's setting is not to blame for; a file system that met errors is often made read-only."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose data this is. The server id is 0 and the cluster empty until the first registration."""

    uuid: str
    cluster_id: str
    server_id: ServerId


class DataDir:
    """One locked data directory."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._file = self.path / "identity.json"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock_file = (self.path / "lock").open("a+")
        except OSError as error:
            if error.errno in _DISK_FAILS:
                raise UnavailableError(f"opening {path}: the disk reports: {error.strerror}") from error
            raise ConfigurationError(f"cannot use {path} as data directory: {error.strerror}") from error
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.identity = self._load()
        except BlockingIOError:
            self.close()
            raise ForeignClusterError(f"another chunkserver is using {path}; give each its own directory") from None
        except BaseException:
            self.close()
            raise

    @property
    def is_closed(self) -> bool:
        return self._lock_file.closed

    def close(self) -> None:
        """Let another process use the directory."""
        self._lock_file.close()

    def check_in_place(self) -> None:
        """UnavailableError while the path names another directory than the one that was opened.

        What is written to files that are open would be acknowledged and gone with this process.
        """
        try:
            is_ours = os.path.samestat((self.path / "lock").stat(), os.fstat(self._lock_file.fileno()))
        except FileNotFoundError:
            is_ours = False
        except OSError as error:
            raise UnavailableError(f"looking at {self.path}: the disk reports: {error.strerror}") from error
        if not is_ours:
            raise UnavailableError(f"{self.path} was emptied, replaced or unmounted while it was in use")

    def adopt(self, cluster_id: str, server_id: ServerId) -> None:
        """Belong to this cluster under this id from now on; ForeignClusterError when the data is another's."""
        known = self.identity
        if not known.cluster_id:
            self._save(replace(known, cluster_id=cluster_id, server_id=server_id))
        elif (known.cluster_id, known.server_id) != (cluster_id, server_id):
            raise ForeignClusterError(
                f"{self.path} is chunkserver {known.server_id} of cluster {known.cluster_id[:8]}…, "
                f"the master takes it for {server_id} of {cluster_id[:8]}…"
            )

    def _load(self) -> Identity:
        try:
            values = json.loads(self._file.read_text())
            return Identity(values["uuid"], values["cluster_id"], ServerId(values["server_id"]))
        except FileNotFoundError:
            return self._save(Identity(secrets.token_hex(16), "", ServerId(0)))
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(f"{self._file} is damaged: {error}") from error

    def _save(self, identity: Identity) -> Identity:
        with disk_errors(f"writing {self._file}"):
            write_durably(self._file, json.dumps(asdict(identity)).encode())
        self.identity = identity
        return identity
