"""Content from a local file to the server, in the way that moves least of it: a copy there, a splice, parts, or whole.

Used by `remote`. Which ways there are depends on the server and on what is remembered of the file; each is as
conditional and verified as a PUT. What has been brought is learnt (`learning`) for the next time. Any thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from helenite.core.errors import InvalidRequestError, PreconditionFailedError
from helenite.core.paths import Path, format_path
from syncagent.drafts import Drafts
from syncagent.learning import Learner
from syncagent.model import Kind, RemoteStamp
from syncagent.pace import Pace
from syncagent.partwise import Partwise
from syncagent.ports import Upload
from syncagent.session import Session
from syncagent.splicing import patch, stamp_of
from syncagent.uploads import Parcel, Uploads

log = logging.getLogger(__name__)


class Deliveries:
    """Brings files to one collection."""

    def __init__(self, session: Session, learner: Learner, drafts: Drafts, look: Callable[[Path], RemoteStamp]) -> None:
        """`look` asks the server what it has at a path; EntryNotFoundError."""
        self._session = session
        self._learner = learner
        self._uploads = Uploads(session, learner)
        self._pace = Pace(session.clock)
        self._partwise = Partwise(session, drafts, self._pace)
        self._look = look

    def tidy(self) -> None:
        """Delete what was begun long ago and never came to its end."""
        self._partwise.tidy()

    def deliver(self, path: Path, upload: Upload, replaces: RemoteStamp | None, *, keeps_times: bool) -> RemoteStamp:
        """As `ports.Remote.store`, but for the executable bit; only our server `keeps_times`, and has all the ways."""
        mtime_ms = upload.attributes.mtime_ms
        dated = {} if mtime_ms is None else {"X-OC-Mtime": _seconds(mtime_ms)}
        stamp = self._uploads.copy(path, upload, replaces, dated) if keeps_times else None
        signature = None
        if stamp is None and replaces is not None and (splice := self._uploads.splice(upload, replaces)) is not None:
            stamp = self._splice(path, upload, replaces, splice, dated)
            signature = None if stamp is None else splice.signature
        if stamp is None:
            if upload.kind is Kind.FILE:
                self._learner.sign_ahead(upload.digest, upload.size, upload.file)
            if keeps_times and self._partwise.is_worth_it(path, upload):
                stamp = self._partwise.store(path, upload, replaces, dated, self._look)
            else:
                stamp = self._send_whole(path, upload, replaces, dated, keeps_times=keeps_times)
        if upload.kind is Kind.FILE:
            self._learner.learn(path, stamp, upload.digest, upload.file, signature=signature)
        return stamp

    def _splice(
        self, path: Path, upload: Upload, replaces: RemoteStamp, splice: Parcel, dated: dict[str, str]
    ) -> RemoteStamp | None:
        """None when the splice would not make what the file is."""
        headers = splice.headers | dated | {"If-Match": replaces.etag}
        try:
            told = patch(self._session, self._session.url(path), headers, splice.content, upload)
        except InvalidRequestError as error:
            log.warning("%s is sent whole: %s", format_path(path), error)
            self._learner.bases.forget(replaces.resource)
            return None
        return stamp_of(told, upload.size, upload.attributes.mtime_ms, executable=replaces.executable)

    def _send_whole(
        self, path: Path, upload: Upload, replaces: RemoteStamp | None, dated: dict[str, str], *, keeps_times: bool
    ) -> RemoteStamp:
        parcel = self._uploads.whole(upload)
        condition = {"If-None-Match": "*"} if replaces is None else {"If-Match": replaces.etag}
        headers = parcel.headers | dated | condition
        with self._pace.measured(parcel.content) as content:
            response, _ = self._session.ask("PUT", self._session.url(path), headers, content)
        etag, resource = response.headers.get("ETag", ""), response.headers.get("Resource-Id", "")
        if etag and resource and keeps_times and dated:
            executable = False if replaces is None else replaces.executable
            return stamp_of((etag, resource), upload.size, upload.attributes.mtime_ms, executable=executable)
        stamp = self._look(path)
        if etag and stamp.etag != etag:
            raise PreconditionFailedError(f"{format_path(path)} has another revision by now")
        return stamp


def _seconds(mtime_ms: int) -> str:
    mtime_ms = max(1, mtime_ms)
    return f"{mtime_ms // 1000}.{mtime_ms % 1000:03d}"
