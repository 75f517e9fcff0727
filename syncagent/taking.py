"""A new revision of a file from what another file on the server has, so that it keeps its id and nothing travels.

Used by `uploads` for content that is there anyway, and by `partwise` for a draft that is complete. Any thread.
"""

from __future__ import annotations

from helenite.core.paths import Path
from syncagent.model import RemoteStamp
from syncagent.ports import Twin, Upload
from syncagent.session import Session
from syncagent.splicing import patch, stamp_of


def take_all(
    session: Session, path: Path, replaces: RemoteStamp, source: Twin, sent: Upload, dated: dict[str, str]
) -> RemoteStamp:
    """Make the whole content of `source` the next revision of `path`.

    PreconditionFailedError when either of them is not in the revision that it was seen in.
    """
    headers = dated | {
        "If-Match": replaces.etag,
        "X-Helenite-Source": session.url(source.path),
        "X-Helenite-Source-Match": source.stamp.etag,
    }
    told = patch(session, session.url(path), headers, f"take 0 {sent.size}\n\n".encode(), sent)
    return stamp_of(told, sent.size, sent.attributes.mtime_ms, executable=replaces.executable)
