"""From WSGI to the handlers and back: WsgiDAV's request server with every method our own.

Put into WsgiDAV's middleware stack by `app`. Each `do_` method calls one handler; whatever a handler raises on purpose
becomes an answer here, the one place where that happens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from wsgidav.dav_error import DAVError
from wsgidav.mw.base_mw import BaseMiddleware
from wsgidav.request_server import RequestServer

from helenite.core.errors import EntryNotFoundError, HeleniteError
from helenite.core.paths import format_path
from webdav import bundles, locking, moving, patching, propfind, proppatch, reading, syncing, writing
from webdav.errors import ALLOWED, answer
from webdav.provider import Provider
from webdav.request import Request
from webdav.response import BodyPiece, Response, empty

log = logging.getLogger(__name__)

StartResponse = Callable[..., object]


class Requests(RequestServer):  # type: ignore[misc]
    """Answers one request (WsgiDAV makes one of these for each)."""

    def __init__(self, provider: Provider, allowed_hosts: tuple[str, ...]) -> None:
        super().__init__(provider)
        self._provider = provider
        self._allowed_hosts = allowed_hosts

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[BodyPiece]:
        request = Request(environ, self._provider, self._allowed_hosts)
        method = METHODS.get(request.method)
        try:
            response = _respond(request, method)
        except (HeleniteError, DAVError) as error:
            response = answer(error, request.method, request.href)
            if response.status >= 500:
                log.error("%s %s: %d %s", request.method, request.href, response.status, error)
        if request.method == "HEAD":
            response.body = ()
        return response.send(start_response)


METHODS: dict[str, Callable[[Request], Response]] = {
    "OPTIONS": reading.options,
    "GET": reading.get,
    "HEAD": reading.get,
    "PUT": writing.put,
    "PATCH": patching.patch,
    "DELETE": writing.delete,
    "MKCOL": writing.make_collection,
    "COPY": moving.copy,
    "MOVE": moving.move,
    "PROPFIND": propfind.propfind,
    "PROPPATCH": proppatch.proppatch,
    "LOCK": locking.lock,
    "UNLOCK": locking.unlock,
    "REPORT": syncing.report,
    "POST": bundles.post,
}


READS = frozenset({"GET", "HEAD", "PROPFIND"})


def _respond(request: Request, method: Callable[[Request], Response] | None) -> Response:
    if method is None:
        return empty(501, [("Allow", ALLOWED)])
    probes = request.provider.probes
    if request.method in READS and request.is_from_finder and probes.is_absent(request.path):
        raise EntryNotFoundError(f"there is no {format_path(request.path)}")
    return method(request)


class Resolver(BaseMiddleware):  # type: ignore[misc]
    """The end of the middleware stack: there is one provider, so there is nothing to resolve."""

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[BodyPiece]:
        hosts = self.config["helenite"]["allowed_hosts"]
        return Requests(environ["wsgidav.provider"], hosts)(environ, start_response)
