"""HTTP to one server: a pooled client, credentials, deadlines, and what each status means in `core.errors`.

Used by `remote` and its helpers, the only ones to know WebDAV. Redirects are not
followed: who answers for the server is not the server, and a captive portal redirects too. Any thread.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from helenite.core.clock import Clock
from helenite.core.errors import (
    ConfigurationError,
    DeadlineExceededError,
    EntryExistsError,
    EntryNotFoundError,
    HeleniteError,
    HistoryLostError,
    InsufficientStorageError,
    InvalidRequestError,
    LockedError,
    ParentNotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    ProtocolError,
    SequenceExpiredError,
    UnavailableError,
    WrongKindError,
)
from helenite.core.paths import Path
from syncagent.multistatus import format_href, parse_href
from syncagent.ports import OverloadedError
from syncagent.throttle import Throttle

CONNECTIONS_MAX = 16
"""More than the threads that transfer, so that nobody waits for a connection."""
CONNECT_S = 10.0
SILENCE_S = 60.0
"""So long a server may say nothing; a commit may wait for a chunkserver that hangs."""
ANSWER_S = 300.0
"""An answer that is not content has to be over by then."""
HASHED_BYTES_PER_S = 50e6
"""As slowly may a server read and hash what it has, where that is what it was asked for."""
ANSWER_BYTES_MAX = 256 << 20
"""A listing of half a million entries; whatever is larger is no answer."""
REFUSAL_BYTES_MAX = 64 << 10

OVERLOADS = {429, 503}

_ERRORS: dict[int, type[HeleniteError]] = {
    400: InvalidRequestError,
    401: PermissionDeniedError,
    403: PermissionDeniedError,
    404: EntryNotFoundError,
    405: WrongKindError,
    408: UnavailableError,
    409: ParentNotFoundError,
    410: EntryNotFoundError,
    412: PreconditionFailedError,
    413: InvalidRequestError,
    423: LockedError,
    429: UnavailableError,
    507: InsufficientStorageError,
}


@dataclass(frozen=True, slots=True)
class Account:
    """Where to sync, and as whom. Without a user the server is asked anonymously."""

    url: str
    user: str = ""
    password: str = ""


@dataclass(frozen=True, slots=True)
class Throttles:
    """What holds back transfers, in both directions."""

    up: Throttle
    down: Throttle


def format_digest(sha256: bytes) -> str:
    """A SHA-256 as `Repr-Digest` has it (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(sha256).decode()}:"


class Session:
    """Requests to one collection and what is beneath it."""

    def __init__(self, account: Account, clock: Clock, throttles: Throttles) -> None:
        try:
            self._url = httpx.URL(account.url)
        except httpx.InvalidURL as error:
            raise ConfigurationError(f"{account.url} is no URL: {error}") from error
        if self._url.scheme not in {"http", "https"} or not self._url.host:
            raise ConfigurationError(f"{account.url} is no http:// or https:// URL")
        self.home = parse_href(self._url.path)
        """The path of the synced collection on the server."""
        self.throttles = throttles
        self.clock = clock
        self._client = httpx.Client(
            auth=httpx.BasicAuth(account.user, account.password) if account.user else None,
            timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_S),
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX),
            headers={"User-Agent": "Helenite-sync", "Accept-Encoding": "identity"},
        )

    def close(self) -> None:
        self._client.close()

    def url(self, path: Path, *, is_directory: bool = False) -> str:
        """The address of a path that begins at the synced collection."""
        href = format_href((*self.home, *path), is_directory=is_directory)
        return str(self._url.copy_with(raw_path=href.encode(), fragment=None))

    def ask(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        content: bytes | Iterator[bytes] = b"",
        silence_s: float = SILENCE_S,
    ) -> tuple[httpx.Response, bytes]:
        """Send a request and read the answer, which is 2xx; anything else is raised."""
        with self.send(method, url, headers, content, silence_s) as response:
            return response, self.read(response)

    @contextmanager
    def send(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        content: bytes | Iterator[bytes] = b"",
        silence_s: float = SILENCE_S,
    ) -> Iterator[httpx.Response]:
        """Send a request; the head of the answer, which is 2xx, with its body still to be read."""
        timeout = httpx.Timeout(silence_s, connect=CONNECT_S)
        try:
            with self._client.stream(method, url, headers=headers, content=content, timeout=timeout) as response:
                if not response.is_success:
                    raise self._refusal(method, response)
                yield response
        except httpx.TimeoutException as error:
            raise DeadlineExceededError(f"{self._url.host} does not answer") from error
        except httpx.TransportError as error:
            raise UnavailableError(
                f"{self._url.host} cannot be reached: {str(error) or type(error).__name__}"
            ) from error

    def read(self, response: httpx.Response, bytes_max: int = ANSWER_BYTES_MAX, answer_s: float = ANSWER_S) -> bytes:
        """The body of an answer that is not content, and is over within `answer_s`."""
        deadline = self.clock.monotonic_s() + answer_s
        pieces, size = [], 0
        for piece in response.iter_bytes():
            pieces.append(piece)
            size += len(piece)
            if size > bytes_max:
                raise ProtocolError(f"the server's answer is longer than {bytes_max} bytes")
            if self.clock.monotonic_s() > deadline:
                raise DeadlineExceededError(f"the server's answer takes longer than {answer_s:.0f} s")
        return b"".join(pieces)

    def _refusal(self, method: str, response: httpx.Response) -> HeleniteError:
        """The error that a status other than 2xx means."""
        status = response.status_code
        if 300 <= status < 400:
            return ProtocolError(f"the server sends us elsewhere ({status}); give its own address")
        body = self.read(response, REFUSAL_BYTES_MAX)
        if status == 403 and b"valid-sync-token" in body:
            expired = HistoryLostError if b"history-lost" in body else SequenceExpiredError
            return expired("the server no longer knows what has changed since")
        if status == 405 and method == "MKCOL":
            return EntryExistsError("something has this name already")
        if status == 401:
            return PermissionDeniedError("the server refuses the user or the password")
        plain = body[:300].decode(errors="replace").strip() if b"<" not in body else ""
        sentence = plain or f"the server answered {method} with {status}"
        wait_s = response.headers.get("Retry-After", "") if status in OVERLOADS else ""
        is_told = wait_s.isascii() and wait_s.isdigit()
        return OverloadedError(sentence, float(wait_s)) if is_told else error_of(status, sentence)


def error_of(status: int, sentence: str) -> HeleniteError:
    """What a status that is neither 2xx nor 3xx means, of a request or of one part of it."""
    found = _ERRORS.get(status, UnavailableError if status >= 500 else ProtocolError)
    return found(sentence or f"the server answered with {status}")
