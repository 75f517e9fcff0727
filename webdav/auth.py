"""Who asks: HTTP Basic authentication against the cluster's users, before anything of a body is read.

Used by `app` as the first middleware. argon2 makes guessing expensive, so verdicts are remembered for a while under a
keyed hash of name and password; at most VERIFICATIONS_MAX run at once. Without any user the gateway is open where that
was allowed (loopback, or by configuration). Thread-safe: one lock guards the verdicts.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from helenite.config import GatewaySettings
from helenite.core.clock import Clock
from helenite.core.errors import EntryNotFoundError, HeleniteError
from helenite.core.pb import common_pb2, master_pb2
from webdav.errors import answer
from webdav.request import PRINCIPAL_KEY
from webdav.response import BodyPiece, whole

REFUSAL_S = 5.0
"""How long a wrong password is wrong without being verified again: short, as it may be set in this moment."""
VERDICTS_MAX = 4096
"""Remembered name-password pairs; beyond them the oldest go, so guessing cannot fill memory."""
VERIFICATIONS_MAX = 2
"""argon2 runs at once: each takes a core and 64 MiB for a moment."""
ANY_USERS_S = 2.0
"""How long it is believed that there are users, or none."""
CHALLENGE = 'Basic realm="Helenite", charset="UTF-8"'

WsgiApp = Callable[[dict[str, Any], Callable[..., object]], Iterable[BodyPiece]]


class AdminRpc(Protocol):
    """The part of the client that knows users."""

    def admin(self, verb: str, request: Any) -> Any: ...


class Users:
    """The cluster's users, as far as logging in goes."""

    def __init__(self, rpc: AdminRpc, clock: Clock, trust_s: float = GatewaySettings.trust_s) -> None:
        """`trust_s`: how long a right password counts without being verified again; then a removed user is out."""
        self._rpc = rpc
        self._clock = clock
        self._trust_s = trust_s
        self._hasher = PasswordHasher()
        self._decoy = self._hasher.hash(os.urandom(16).hex())
        self._key = os.urandom(32)
        self._lock = threading.Lock()  # guards _verdicts
        self._verdicts: OrderedDict[bytes, tuple[float, bool]] = OrderedDict()
        self._turnstile = threading.BoundedSemaphore(VERIFICATIONS_MAX)
        self._any: tuple[float, bool] | None = None

    def any(self) -> bool:
        """Whether there are users at all, perhaps ANY_USERS_S old."""
        now = self._clock.monotonic_s()
        known = self._any
        if known is None or now - known[0] > ANY_USERS_S:
            known = self._any = (now, bool(self._rpc.admin("ListUsers", common_pb2.Empty()).users))
        return known[1]

    def verify(self, name: str, password: str) -> bool:
        """Whether this is the user's password."""
        key = hmac.digest(self._key, f"{name}\0{password}".encode(), hashlib.sha256)
        verdict = self._remembered(key)
        if verdict is not None:
            return verdict
        with self._turnstile:
            verdict = self._remembered(key)
            if verdict is None:
                verdict = self._verify_now(name, password)
                self._remember(key, is_right=verdict)
        return verdict

    def _remembered(self, key: bytes) -> bool | None:
        with self._lock:
            found = self._verdicts.get(key)
            if found is None or found[0] < self._clock.monotonic_s():
                return None
            return found[1]

    def _remember(self, key: bytes, *, is_right: bool) -> None:
        until = self._clock.monotonic_s() + (self._trust_s if is_right else REFUSAL_S)
        with self._lock:
            self._verdicts[key] = (until, is_right)
            self._verdicts.move_to_end(key)
            while len(self._verdicts) > VERDICTS_MAX:
                self._verdicts.popitem(last=False)

    def _verify_now(self, name: str, password: str) -> bool:
        try:
            stored = str(self._rpc.admin("GetUser", master_pb2.UserRequest(name=name)).password_hash)
        except EntryNotFoundError:
            stored = ""
        try:
            # An unknown name costs as much as a known one, so that names cannot be found out by the clock.
            self._hasher.verify(stored or self._decoy, password)
        except (VerificationError, InvalidHashError):
            return False
        return bool(stored)


class Authentication:
    """WSGI middleware: sets the principal or answers 401."""

    def __init__(self, next_app: WsgiApp, users: Users, *, may_be_open: bool) -> None:
        self._next_app = next_app
        self._users = users
        self._may_be_open = may_be_open

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[BodyPiece]:
        try:
            principal = self._authenticate(environ.get("HTTP_AUTHORIZATION"))
        except HeleniteError as error:
            return answer(error, environ["REQUEST_METHOD"], "/").send(start_response)
        if principal is None:
            sentence = b"This drive needs a user name and a password.\n"
            refused = whole(401, sentence, "text/plain; charset=utf-8", [("WWW-Authenticate", CHALLENGE)])
            if environ["REQUEST_METHOD"] == "HEAD":
                refused.body = ()
            return refused.send(start_response)
        environ[PRINCIPAL_KEY] = principal
        return self._next_app(environ, start_response)

    def _authenticate(self, header: str | None) -> str | None:
        """The name of the user, empty for anybody where the gateway is open, None to refuse."""
        if self._may_be_open and not self._users.any():
            return ""
        credentials = parse_basic(header)
        if credentials is None or not self._users.verify(*credentials):
            return None
        return credentials[0]


def parse_basic(header: str | None) -> tuple[str, str] | None:
    r"""Name and password of an Authorization header (RFC 7617); Windows' `DOMAIN\user` is the user."""
    scheme, _, encoded = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        raw = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    name, colon, password = text.partition(":")
    name = name.rpartition("\\")[2]
    return (name, password) if colon and name else None
