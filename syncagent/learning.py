"""Learns, when a large file is brought over, what the next transfer of it needs to know: see `bases`.

Used by `downloads` and `uploads`. The extents are asked of the server at once, because it forgets those of a revision
that is replaced; the signature is made on a thread of its own, from a descriptor that was opened while the content was
known (of what is sent whole, when that begins), and counts only if that content is what it says. Nothing that fails
here fails a transfer. Any thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path as FilePath

from helenite.core.errors import HeleniteError, ProtocolError, UnavailableError
from helenite.core.model import Extent
from helenite.core.paths import Path
from syncagent.bases import Bases, Basis
from syncagent.holes import ContentReader
from syncagent.model import RemoteStamp
from syncagent.ports import LARGE_BYTES
from syncagent.recipes import parse_recipe
from syncagent.session import Session
from syncagent.signature import Signature, choose_average, sign
from syncagent.splicing import SPLICE_TYPE

log = logging.getLogger(__name__)

EXTENTS_TYPE = "application/vnd.helenite.extents"
NICENESS = 5
AHEAD_MAX = 8
"""Uploads that may be under way, and some that have failed."""
STUDYING_MAX = 2000
"""Files that both sides have and that wait to be looked at; more are left alone."""
SIGNING_MAX = 64
"""Files that wait to be signed, each with an open descriptor; more are left unsigned."""


class Learner:
    """What is learnt of the large files of one pair of folders."""

    def __init__(self, session: Session, bases: Bases) -> None:
        self.bases = bases
        self._session = session
        self._is_offered: bool | None = None
        self._signing = ThreadPoolExecutor(1, "sign", _give_way)
        self._room = threading.BoundedSemaphore(SIGNING_MAX)
        self._stopped = threading.Event()
        self._studying = 0  # a bound need not be exact
        self._ahead: dict[bytes, Future[Signature | None]] = {}  # by digest; single operations are atomic

    def close(self) -> None:
        """Sign nothing more."""
        self._stopped.set()
        self._signing.shutdown(wait=False, cancel_futures=True)

    def recipe(self, path: Path, expected: RemoteStamp) -> tuple[Extent, ...] | None:
        """The extents of this very revision; None when it is small, or the server does not tell such things."""
        if expected.size <= LARGE_BYTES or not self.bases.are_kept or not self._offers_splices(path):
            return None
        url = f"{self._session.url(path)}?extents"
        with self._session.send("GET", url, {"If-Match": expected.etag}) as response:
            if response.headers.get("Content-Type") != EXTENTS_TYPE or response.headers.get("ETag") != expected.etag:
                raise ProtocolError("the server does not say what a file consists of, though it offers splices")
            return parse_recipe(self._session.read(response), expected.size)

    def _offers_splices(self, path: Path) -> bool:
        if self._is_offered is None:
            with self._session.send("OPTIONS", self._session.url(path), {}) as response:
                self._is_offered = SPLICE_TYPE in response.headers.get("Accept-Patch", "")
        return self._is_offered

    def learn(
        self,
        path: Path,
        stamp: RemoteStamp,
        digest: bytes,
        file: FilePath,
        *,
        recipe: tuple[Extent, ...] | None = None,
        signature: Signature | None = None,
    ) -> None:
        """Remember a revision whose content the local file has now, as far as is known."""
        try:
            extents = recipe or self.recipe(path, stamp)
        except HeleniteError as error:
            log.info("what a large file consists of was not told: %s", error)
            return
        if extents is None:
            return
        self.bases.save(stamp.resource, Basis(stamp.etag, digest, extents, signature))
        signing = self._ahead.pop(digest, None)
        if signature is None:
            signing = signing or self._begin_signing(digest, stamp.size, file)
            if signing is not None:
                signing.add_done_callback(lambda done: self._add(stamp, done))

    def sign_ahead(self, digest: bytes, size: int, file: FilePath) -> None:
        """Begin to sign what is about to be sent whole: its next change may come as soon as it has arrived."""
        if size <= LARGE_BYTES or not self.bases.are_kept or self._is_offered is False:
            return
        signing = self._begin_signing(digest, size, file)
        if signing is not None:
            while len(self._ahead) >= AHEAD_MAX:  # of uploads that failed
                self._ahead.pop(next(iter(self._ahead)), None)
            self._ahead[digest] = signing

    def study(self, path: Path, stamp: RemoteStamp, digest: bytes, file: FilePath) -> None:
        """The same of a large file that both sides were found to have, all in the background; again costs nothing."""
        if not self.bases.have_room or self._studying >= STUDYING_MAX:
            return
        self._studying += 1
        with contextlib.suppress(RuntimeError):  # the agent ends
            self._signing.submit(self._study, path, stamp, digest, file)

    def _study(self, path: Path, stamp: RemoteStamp, digest: bytes, file: FilePath) -> None:
        self._studying -= 1
        basis = self.bases.load(stamp.resource)
        if basis is None or basis.etag != stamp.etag or basis.signature is None:
            self.learn(path, stamp, digest, file)

    def _begin_signing(self, digest: bytes, size: int, file: FilePath) -> Future[Signature | None] | None:
        """The signature of a file, None if it does not have this content any more; None when there is no room."""
        if not self._room.acquire(blocking=False):
            return None
        try:
            stream = file.open("rb", buffering=0)
        except OSError as error:
            log.info("%s is not signed: %s", file.name, error)
            self._room.release()
            return None
        try:
            signing = self._signing.submit(self._sign, stream, digest, size)
        except RuntimeError:  # the agent ends
            self._end(stream)
            return None
        signing.add_done_callback(lambda _: self._end(stream))
        return signing

    def _end(self, stream: io.FileIO) -> None:
        stream.close()
        self._room.release()

    def _sign(self, stream: io.FileIO, digest: bytes, size: int) -> Signature | None:
        state = hashlib.sha256()
        try:
            signature = sign(_Stoppable(ContentReader(stream), self._stopped), choose_average(size), state)
        except (OSError, UnavailableError) as error:
            log.info("a large file is not signed: %s", error)
            return None
        return signature if state.digest() == digest else None

    def _add(self, stamp: RemoteStamp, done: Future[Signature | None]) -> None:
        signature = None if done.cancelled() else done.result()
        if signature is not None:
            self.bases.add_signature(stamp.resource, stamp.etag, signature)


def _give_way() -> None:
    """Let other threads have the processor first, where the system knows that of threads: this work can wait."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


class _Stoppable:
    """A stream that ends with an error when the agent does."""

    def __init__(self, stream: ContentReader, stopped: threading.Event) -> None:
        self._stream = stream
        self._stopped = stopped

    def readinto(self, buffer: memoryview) -> int:
        if self._stopped.is_set():
            raise UnavailableError("the agent ends")
        return self._stream.readinto(buffer)
