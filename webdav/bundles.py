"""POST ?bundle: many files in one request, as a tar stream in (`?bundle`) or out (`?bundle=get`).

Used by `requests`; `intake` and `outlet` do it. What a client sees is written down in COMPLIANCE.md.
"""

from __future__ import annotations

from webdav.errors import refusal
from webdav.intake import put_bundle
from webdav.outlet import get_bundle
from webdav.request import Request
from webdav.response import Response


def post(request: Request) -> Response:
    """Nothing but bundles is posted here."""
    match request.environ["QUERY_STRING"]:
        case "bundle":
            return put_bundle(request)
        case "bundle=get":
            return get_bundle(request)
        case _:
            raise refusal(405, "POST takes ?bundle or ?bundle=get")
