"""One splice sent, and what became of it: our gateway's PATCH (webdav/COMPLIANCE.md) as the agent speaks it.

Used by `deliveries`, `partwise` and `taking`. Of a large result the gateway reads all before it commits, to verify its
digest; its answer begins at once then, and tells at its end what became of the splice. Any thread.
"""

from __future__ import annotations

from collections.abc import Iterator

from helenite.core.errors import ProtocolError
from helenite.core.paths import format_path
from syncagent.model import RemoteStamp
from syncagent.multistatus import DAV, parse_multistatus, resource_of
from syncagent.ports import Upload
from syncagent.session import ANSWER_S, HASHED_BYTES_PER_S, Session, error_of, format_digest

SPLICE_TYPE = "application/vnd.helenite.splice"


def patch(
    session: Session, url: str, headers: dict[str, str], content: bytes | Iterator[bytes], result: Upload | None = None
) -> tuple[str, str]:
    """Send a splice under the conditions in `headers`; the ETag and the resource id of the revision that it made.

    `result` is what the whole file is to be then, if that is known. DigestMismatchError or another InvalidRequestError
    when it would not be.
    """
    sent = headers | {"Content-Type": SPLICE_TYPE}
    answer_s = ANSWER_S
    if result is not None:
        sent |= {"X-Helenite-Result-Digest": format_digest(result.digest), "Prefer": "progress"}
        answer_s += result.size / HASHED_BYTES_PER_S
    with session.send("PATCH", url, sent, content) as response:
        body = session.read(response, answer_s=answer_s)
    if response.status_code == 207:
        return _read_outcome(session, body)
    return response.headers.get("ETag", ""), response.headers.get("Resource-Id", "")


def stamp_of(told: tuple[str, str], size: int, mtime_ms: int | None, *, executable: bool | None) -> RemoteStamp:
    """The stamp of a revision that was just made, of which the server told ETag and resource id; ProtocolError."""
    etag, resource = told
    if not etag or not resource:
        raise ProtocolError("the server does not say what it has stored")
    return RemoteStamp(resource, etag, size, mtime_ms and max(1, mtime_ms), executable)


def _read_outcome(session: Session, body: bytes) -> tuple[str, str]:
    answers = parse_multistatus(body, session.home).answers
    if len(answers) != 1:
        raise ProtocolError(f"the server tells of {[format_path(answer.path) for answer in answers]} after one splice")
    [answer] = answers
    if answer.failed:
        raise error_of(answer.failed, answer.sentence)
    return answer.text(f"{DAV}getetag") or "", resource_of(answer)
