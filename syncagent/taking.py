"""A new revision of a file from what another file on the server has, so that it keeps its id and nothing travels.

Used by `uploads` for content that is there anyway, and by `partwise` for a draft that is complete. Any thread.
"""

from __future__ import annotations

from helenite.core.errors import ProtocolError
from helenite.core.paths import Path
from syncagent.learning import SPLICE_TYPE
from syncagent.model import RemoteStamp
from syncagent.ports import Twin, Upload
from syncagent.session import Session, format_digest


def take_all(
    session: Session, path: Path, replaces: RemoteStamp, source: Twin, sent: Upload, dated: dict[str, str]
) -> RemoteStamp:
    """Make the whole content of `source` the next revision of `path`.

    PreconditionFailedError when either of them is not in the revision that it was seen in.
    """
    body = f"take 0 {sent.size}\n\n".encode()
    headers = dated | {
        "Content-Type": SPLICE_TYPE,
        "If-Match": replaces.etag,
        "X-Helenite-Source": session.url(source.path),
        "X-Helenite-Source-Match": source.stamp.etag,
        "X-Helenite-Result-Digest": format_digest(sent.digest),
    }
    response, _ = session.ask("PATCH", session.url(path), headers, body)
    etag, resource = response.headers.get("ETag", ""), response.headers.get("Resource-Id", "")
    if not etag or not resource:
        raise ProtocolError("the server does not say what it has stored")
    mtime_ms = sent.attributes.mtime_ms
    return RemoteStamp(resource, etag, sent.size, mtime_ms and max(1, mtime_ms), replaces.executable)
