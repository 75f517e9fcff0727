"""What the clients of a load do in one place: whole files of all, a counter that is raised, a lock that is obeyed.

Used by `load`; whoever starts the clients calls `prepare_shared` before and `check_shared` afterwards.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import httpx

from tests.chaos.drive import Drive, NotAnsweredError
from tests.chaos.findings import Findings
from tests.support.manifest import MARKED_BYTES_MIN, Content, identify

SHARED_FILES = 4
LOCK_S = 20
LOCK_BODY = (
    '<?xml version="1.0"?><lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype>'
    "</lockinfo>"
)


class Shared:
    """One client's share."""

    def __init__(
        self, drive: Drive, name: str, rng: random.Random, findings: Findings, fresh: Callable[[int], Content]
    ) -> None:
        """`fresh` makes content of so many bytes at least that nobody else writes."""
        self._drive = drive
        self._name = name
        self._rng = rng
        self._findings = findings
        self._fresh = fresh
        self._perhaps_locked_until = 0.0

    def write(self) -> None:
        path = f"/shared/{self._rng.randrange(SHARED_FILES)}"
        reply = self._drive.ask("PUT", path, content=self._fresh(MARKED_BYTES_MIN).whole())
        if not reply.is_success:
            self._findings.violation(f"PUT {path}: {reply.status_code} {reply.text[:300]}")

    def read(self) -> None:
        path = f"/shared/{self._rng.randrange(SHARED_FILES)}"
        reply = self._drive.ask("GET", path)
        if reply.status_code != 404 and identify(reply.content) is None:
            self._findings.violation(f"GET {path}: {reply.status_code}, {len(reply.content)} bytes, torn")

    def count(self) -> None:
        """Raise the shared counter; of those who found the same number only one may be told that it did."""
        found = self._drive.ask("GET", "/shared/counter")
        value = int(found.content) + 1 if found.is_success else 1
        headers = {"If-Match": found.headers["ETag"]} if found.is_success else {"If-None-Match": "*"}
        try:
            reply = self._drive.ask("PUT", "/shared/counter", content=str(value), headers=headers)
        except NotAnsweredError:
            with self._findings.lock:
                self._findings.open_increments += 1
            raise
        if reply.is_success:
            with self._findings.lock:
                self._findings.increments.append(value)
        elif reply.status_code != 412:
            self._findings.violation(f"counter: {reply.status_code} {reply.text[:300]}")

    def lock(self) -> None:
        """Nobody writes a locked file without the token; its holder does. On a file of its own, outside the tree."""
        path = f"/locks/{self._name}"
        try:
            reply = self._drive.ask("LOCK", path, content=LOCK_BODY, headers={"Timeout": f"Second-{LOCK_S}"})
        except NotAnsweredError:
            self._perhaps_locked_until = time.monotonic() + LOCK_S
            raise
        if reply.status_code == 423 and time.monotonic() < self._perhaps_locked_until + 1:
            return
        if not reply.is_success:
            self._findings.violation(f"LOCK {path}: {reply.status_code} {reply.text[:300]}")
            return
        token = reply.headers["Lock-Token"]
        self._perhaps_locked_until = time.monotonic() + LOCK_S
        for headers, status in (({}, 423), ({"If": f"({token})"}, 204)):
            reply = self._drive.ask("PUT", path, content=b"locked", headers=headers)
            if reply.status_code != status and time.monotonic() < self._perhaps_locked_until - 1:
                self._findings.violation(f"PUT {path} {headers}: {reply.status_code}, not {status}")
        self._drive.ask("UNLOCK", path, headers={"Lock-Token": token})
        self._perhaps_locked_until = 0.0


def prepare_shared(client: httpx.Client) -> None:
    """Before any client works: the directories."""
    for name in ("shared", "locks"):
        client.request("MKCOL", f"/{name}").raise_for_status()


def check_shared(client: httpx.Client, findings: Findings) -> None:
    """At the end: shared files are whole, and the counter tells of every acknowledged increment."""
    for number in range(SHARED_FILES):
        reply = client.get(f"/shared/{number}")
        if reply.status_code != 404 and identify(reply.content) is None:
            findings.violation(f"/shared/{number} is torn: {reply.status_code}, {len(reply.content)} bytes")
    reply = client.get("/shared/counter")
    value = int(reply.content) if reply.is_success else 0
    told = findings.increments
    if len(set(told)) != len(told):
        findings.violation(f"two clients were told that they raised the counter to the same number: {sorted(told)}")
    if not len(told) <= value <= len(told) + findings.open_increments:
        findings.violation(f"counter {value}; acknowledged {len(told)}, without answer {findings.open_increments}")
