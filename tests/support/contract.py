"""Short ways to say what is done to a FileSystem and what it holds, for the contract's suites."""

from __future__ import annotations

import uuid
from typing import Any

from helenite.client.filesystem import FileSystem
from helenite.core.model import Condition, Entry, Expect, LockScope
from helenite.core.paths import Path

ABSENT = Condition(Expect.ABSENT)
PRESENT = Condition(Expect.PRESENT)


def put(fs: FileSystem, path: Path, content: bytes = b"x", **options: Any) -> Entry:
    with fs.create(path, **options) as writer:
        writer.write(content)
        return writer.commit()[0]


def get(fs: FileSystem, path: Path) -> bytes:
    with fs.open(path) as reader:
        return b"".join(bytes(piece) for piece in reader.iterate())


def names(fs: FileSystem, path: Path) -> set[str]:
    return {view.entry.name for view in fs.list(path)[1]}


def take_lock(fs: FileSystem, path: Path, principal: str = "", **options: Any) -> str:
    token = uuid.uuid4().urn
    wanted: dict[str, Any] = {"scope": LockScope.EXCLUSIVE, "is_infinite": False, "owner": b"<o/>", "timeout_s": 600}
    fs.lock(path, token=token, condition=Condition(principal=principal), **(wanted | options))
    return token


def holding(*tokens: str, principal: str = "") -> Condition:
    return Condition(tokens=tokens, principal=principal)
