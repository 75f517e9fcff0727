"""One agent's half of the server for tests of large files: what it sends and fetches is counted by a proxy."""

from __future__ import annotations

import hashlib
from pathlib import Path

from helenite.core.clock import Clock
from helenite.core.errors import PreconditionFailedError
from syncagent.bases import Bases
from syncagent.model import Kind, RemoteStamp
from syncagent.ports import Attributes, Present, Upload
from syncagent.remote import WebDavRemote
from syncagent.session import Account, Session, Throttles
from syncagent.throttle import Throttle
from tests.support.files import stamp_of
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until


class Device:
    """One agent's half of the server, with a local file."""

    def __init__(self, directory: Path, upstream: str) -> None:
        directory.mkdir()
        self.proxy = Proxy(upstream)
        self.bases = Bases(directory / "large")
        throttles = Throttles(Throttle(Clock()), Throttle(Clock()))
        account = Account(f"http://{self.proxy.address}/home")
        self.remote = WebDavRemote(Session(account, Clock(), throttles), directory)
        self.file = directory / "f"
        self.staging = directory / "part-1"
        self.digest = b""
        self.stamp: RemoteStamp | None = None
        self.is_changed = False
        self.confirmations = 0

    def close(self) -> None:
        self.remote.close()
        self.proxy.close()

    def save(self, content: bytes) -> None:
        self.file.write_bytes(content)
        self.digest = hashlib.sha256(content).digest()
        self.seen = stamp_of(self.file)

    def send(self, replaces: RemoteStamp | None) -> RemoteStamp:
        size = self.file.stat().st_size
        attributes = Attributes(1_700_000_000_123, None)
        upload = Upload(Kind.FILE, self.file, size, self.digest, attributes, stamp=self.seen)
        stamp = self.remote.store(("f",), upload, replaces)
        self.wait_for_signature(stamp)
        return stamp

    def wait_for_signature(self, stamp: RemoteStamp) -> None:
        def is_signed() -> bool:
            basis = self.bases.load(stamp.resource)
            return basis is not None and basis.etag == stamp.etag and basis.signature is not None

        wait_until(is_signed)

    def fetch(self, stamp: RemoteStamp) -> bytes:
        present = Present(self.file, self.digest, "state", self.confirm) if self.digest else None
        digest = self.remote.fetch(("f",), stamp, self.staging, present)
        content = self.staging.read_bytes()
        assert digest == hashlib.sha256(content).digest()
        self.wait_for_signature(stamp)
        self.staging.replace(self.file)
        self.digest = digest
        return content

    def confirm(self) -> None:
        self.confirmations += 1
        if self.is_changed:
            raise PreconditionFailedError("changed")
