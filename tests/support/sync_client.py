"""A client that knows a collection only by REPORT sync-collection, as simple-minded as RFC 6578 allows: by URL.

Tests compare its picture with what is really there, after changes at random.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree as ET

from helenite.core.errors import HeleniteError
from helenite.core.paths import Path
from tests.support.raw_http import Client, Reply

D = "{DAV:}"
REPORT = (
    '<sync-collection xmlns="DAV:"><sync-token>{token}</sync-token><sync-level>{level}</sync-level>{limit}'
    "<prop><resourcetype/><getetag/><resource-id/></prop></sync-collection>"
)
PAGES_MAX = 10_000

Ask = Callable[[bytes, dict[str, str]], tuple[int, bytes]]
"""Sends a REPORT with this body and these headers; gives the status and the body of the answer."""


@dataclass(frozen=True)
class Known:
    """What a client knows of a member; ETags of collections follow everything beneath and are left out."""

    resource_id: str
    etag: str


@dataclass
class Page:
    """One answer: members with their properties, hrefs that are gone, whether there is more."""

    changed: dict[str, Known]
    gone: list[str]
    token: str
    is_truncated: bool


def report_body(token: str = "", *, level: str = "infinite", limit: int | None = None) -> bytes:
    bound = "" if limit is None else f"<limit><nresults>{limit}</nresults></limit>"
    return REPORT.format(token=token, level=level, limit=bound).encode()


def parse_page(body: bytes, home: str) -> Page:
    """An answer, with what the RFC demands of its shape."""
    root = ET.fromstring(body)
    page = Page({}, [], root.findtext(f"{D}sync-token") or "", False)
    assert page.token
    seen: set[str] = set()
    for response in root.iter(f"{D}response"):
        href = response.findtext(f"{D}href") or ""
        assert href not in seen, f"{href} is told twice"
        seen.add(href)
        status = response.findtext(f"{D}status")
        if status is None:
            assert href.startswith(home)
            assert href != home
            is_collection = response.find(f".//{D}collection") is not None
            assert is_collection == href.endswith("/")
            etag = "" if is_collection else response.findtext(f".//{D}getetag") or ""
            page.changed[href] = Known(response.findtext(f".//{D}resource-id/{D}href") or "", etag)
        elif href == home:
            assert "507" in status
            page.is_truncated = True
        else:
            assert "404" in status
            assert response.find(f"{D}propstat") is None
            page.gone.append(href)
    return page


@dataclass
class SyncClient:
    """Follows one collection."""

    ask: Ask
    home: str
    level: str = "infinite"
    limit: int | None = None
    token: str = ""
    picture: dict[str, Known] = field(default_factory=dict)
    pages: int = 0
    restarts: int = 0

    def synchronise(self, headers: dict[str, str] | None = None) -> None:
        """Ask until there is no more; begin anew when the token is refused."""
        for _ in range(PAGES_MAX):
            if not self.step(headers):
                return
        raise AssertionError("it does not end")

    def step(self, headers: dict[str, str] | None = None) -> bool:
        """One report; whether there is more."""
        body = report_body(self.token, level=self.level, limit=self.limit)
        status, answer = self.ask(body, headers or {})
        self.pages += 1
        if status == 403 and b"valid-sync-token" in answer and self.token:
            self.token, self.picture = "", {}
            self.restarts += 1
            return True
        assert status == 207, (status, answer)
        page = parse_page(answer, self.home)
        assert self.limit is None or len(page.changed) + len(page.gone) <= self.limit
        for href in page.gone:
            self.picture.pop(href, None)
            if href.endswith("/"):
                self.picture = {known: value for known, value in self.picture.items() if not known.startswith(href)}
        self.picture.update(page.changed)
        self.token = page.token
        return page.is_truncated


def put(fs: Any, *path: str, content: bytes = b"x") -> None:
    """Write a file."""
    with fs.create(path) as writer:
        writer.write(content)
        writer.commit()


def change_at_random(fs: Any, chance: random.Random, home: Path = ()) -> None:
    """One change among few names, so that places are taken, left and taken again; many are refused."""

    def path() -> Path:
        return (*home, *(chance.choice("abc") for _ in range(chance.randint(1, 3))))

    def restore() -> None:
        for item in fs.list_trash(limit=1):
            fs.restore(item.id, path())

    verbs: list[Callable[[], Any]] = [
        *[lambda: put(fs, *path(), content=b"%d" % chance.randrange(1000))] * 3,
        *[lambda: fs.make_directory(path())] * 2,
        *[lambda: fs.move(path(), path(), overwrite=chance.random() < 0.5)] * 3,
        lambda: fs.copy(path(), path(), overwrite=chance.random() < 0.5),
        lambda: fs.remove(path()),
        lambda: fs.set_properties(path(), modified_at_ms=1 + chance.randrange(10**9)),
        restore,
    ]
    with contextlib.suppress(HeleniteError):
        chance.choice(verbs)()


def report(client: Client, target: str = "/", token: str = "", **options: object) -> Page:
    return parse_page(ask(client, target, token, **options).body, target)


def ask(client: Client, target: str, token: str = "", prefer: str = "", **options: object) -> Reply:
    headers = {"Prefer": prefer} if prefer else {}
    body = report_body(token, **options)  # type: ignore[arg-type]
    return client("REPORT", target, headers | {"Content-Length": str(len(body))}, body, patience_s=20)


def token_of(client: Client, target: str = "/") -> str:
    return report(client, target).token
