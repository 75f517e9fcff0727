"""The gateway as one WSGI application: WsgiDAV with our provider, our stack and our entry.

Made by `worker` once for each process. Order of a request: target parsed here, principal by `auth`, then `requests`.
WsgiDAV's own entry is not used: it decodes paths before they are split, normalises `..` away and closes connections
whose responses are streamed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from wsgidav.wsgidav_app import WsgiDAVApp

from helenite.client.caching import CachingFileSystem
from helenite.config import GatewaySettings
from helenite.core.clock import Clock
from helenite.core.errors import InvalidPathError
from helenite.core.paths import ROOT
from webdav.auth import Authentication, Users
from webdav.errors import answer
from webdav.provider import Provider
from webdav.request import PATH_KEY
from webdav.requests import Resolver
from webdav.response import BodyPiece
from webdav.urls import parse_url_path


class Application(WsgiDAVApp):  # type: ignore[misc]
    """WSGI's way into the cluster."""

    def __init__(
        self,
        file_system: CachingFileSystem,
        *,
        allowed_hosts: tuple[str, ...] = (),
        may_be_open: bool = True,
        threads: int = 2,
        trust_s: float = GatewaySettings.trust_s,
        clock: Clock | None = None,
    ) -> None:
        self.provider = Provider(file_system, clock or Clock(), waiters_max=threads // 2)
        super().__init__(
            {
                "provider_mapping": {"/": self.provider},
                "middleware_stack": [Resolver],
                "lock_storage": None,
                "property_manager": None,
                "http_authenticator": {"accept_basic": False},
                "logging": {"enable": False},
                "helenite": {"allowed_hosts": allowed_hosts},
                "verbose": 0,
            }
        )
        users = Users(file_system.rpc, self.provider.clock, trust_s)
        self._first = Authentication(self.application, users, may_be_open=may_be_open)

    def close(self) -> None:
        """End the threads that it has started."""
        self.provider.bundling.shutdown(wait=True, cancel_futures=True)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[BodyPiece]:
        environ["wsgidav.provider"] = self.provider
        environ["wsgidav.app"] = self
        target = environ["PATH_INFO"]
        try:
            environ[PATH_KEY] = (ROOT, True) if target == "*" else parse_url_path(target)
        except InvalidPathError as error:
            return answer(error, environ["REQUEST_METHOD"], "/").send(start_response)
        return self._first(environ, start_response)
