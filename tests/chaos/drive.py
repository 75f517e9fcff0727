"""The drive as a client of a load reaches it: requests, each of them noted. Used by `load` and `shared`."""

from __future__ import annotations

import time
from urllib.parse import quote

import httpx

from tests.chaos.findings import Failure, Findings

REQUEST_S = 60.0


class NotAnsweredError(Exception):
    """The request failed; it has been noted."""


class Drive:
    """One client's connection."""

    def __init__(self, url: str, findings: Findings) -> None:
        self.url = url.rstrip("/")
        self._findings = findings
        self.client = self._connect()

    def close(self) -> None:
        self.client.close()

    def renew(self) -> None:
        """After a request that failed: what is left of it is not taken for the next answer."""
        self.client.close()
        self.client = self._connect()

    def _connect(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=REQUEST_S)

    def ask(self, method: str, path: str, **options: object) -> httpx.Response:
        """One request; NotAnsweredError when it failed, which is noted."""
        began = time.monotonic()
        try:
            reply = self.client.request(method, quote(path), **options)  # type: ignore[arg-type]
            why = f"{reply.status_code} {reply.text.strip()[:300]}" if reply.status_code >= 500 else ""
        except httpx.HTTPError as error:
            self.renew()
            why = repr(error)
        ended = time.monotonic()
        if why:
            self._findings.failed(Failure(began, ended, f"{method} {path}", why))
            raise NotAnsweredError
        self._findings.done(method, ended - began)
        return reply
