"""The cluster as WsgiDAV sees it: a provider that finds resources, and the resources' live attributes.

Used by the handlers through `request`. It decides nothing about protocol; content, locks and properties are the
FileSystem's. Mounted once, at `/`. Thread-safe: a small cache of the usage is replaced as a whole.
"""

from __future__ import annotations

import hashlib
import mimetypes
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

from wsgidav.dav_provider import DAVCollection, DAVNonCollection, DAVProvider

from helenite.client.caching import CachingFileSystem
from helenite.client.reader import Reader
from helenite.core.clock import Clock
from helenite.core.errors import EntryNotFoundError, SequenceExpiredError
from helenite.core.model import Entry, EntryView, Sequence, Usage
from helenite.core.paths import ROOT, Path, format_path
from helenite.core.pb import common_pb2
from webdav.probes import Probes
from webdav.renderings import Renderings
from webdav.response import Headers, http_date
from webdav.tokens import Token, format_token
from webdav.urls import parse_url_path
from webdav.waiting import WaitingRoom

USAGE_S = 10.0
"""How long totals are reused: Finder asks for the quota every minute, several clients together every second."""
BUNDLE_MEMBERS_MAX = 10_000
"""Members of a bundle: their outcomes are held until all are there."""
BUNDLING_THREADS = 16
"""Small files of bundles that one worker stores or reads at the same time."""
DEFAULT_TYPE = "application/octet-stream"
COMPRESSED_TYPES = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}
"""A file `a.tar.gz` is a gzip file: it is stored as it is, so no Content-Encoding may claim otherwise."""


@lru_cache(maxsize=4096)  # types of whole names; a big directory has few different endings, many names
def content_type(name: str) -> str:
    """The media type that a name suggests."""
    found, encoding = mimetypes.guess_type(name.replace("%", "_"))
    if encoding is not None:
        return COMPRESSED_TYPES.get(encoding, DEFAULT_TYPE)
    if found is not None and found.startswith("text/"):
        return f"{found}; charset=utf-8"
    return found or DEFAULT_TYPE


class _Entry:
    """What files and directories have in common as resources."""

    def __init__(self, names: Path, environ: dict[str, Any], view: EntryView) -> None:
        super().__init__(format_path(names), environ)  # type: ignore[call-arg]
        self.names = names
        self.view = view
        self.entry: Entry = view.entry

    def get_last_modified(self) -> int:
        return self.entry.modified_at_ms // 1000

    def get_etag(self) -> str:
        """Of a directory it changes with everything beneath."""
        return self.entry.etag


class File(_Entry, DAVNonCollection):  # type: ignore[misc]
    """A file as a resource."""

    def get_content_length(self) -> int:
        return self.entry.size_bytes

    def get_content_type(self) -> str:
        return content_type(self.entry.name)

    def support_etag(self) -> bool:
        """Abstract in WsgiDAV."""
        return True

    def get_content(self) -> Reader:
        """A reader of the very revision that was looked up."""
        reader: Reader = self.provider.file_system.open_view(self.view)
        return reader


class Directory(_Entry, DAVCollection):  # type: ignore[misc]
    """A directory as a collection."""

    def get_member_names(self) -> list[str]:
        """Abstract in WsgiDAV."""
        return [view.entry.name for view in self.members()]

    def members(self) -> Iterator[EntryView]:
        """What is in it, page by page."""
        views: Iterator[EntryView] = self.provider.file_system.list(self.names)[1]
        return views


Resource = File | Directory


class Provider(DAVProvider):  # type: ignore[misc]
    """Finds resources in one FileSystem."""

    def __init__(self, file_system: CachingFileSystem, clock: Clock, waiters_max: int) -> None:
        super().__init__()
        self.waiting = WaitingRoom(file_system.coherence, waiters_max)
        self.bundling = ThreadPoolExecutor(BUNDLING_THREADS, thread_name_prefix="bundles")
        self.probes = Probes(file_system.coherence)
        self.renderings = Renderings(file_system.coherence)
        self.file_system = file_system
        self.clock = clock
        self._usage: tuple[float, Usage] | None = None
        self._cluster_id = ""
        self._begun_id: hashlib._Hash | None = None  # the part of all resource ids that is the same

    def get_resource_inst(self, path: str, environ: dict[str, Any]) -> Resource | None:
        """WsgiDAV's way to a resource, abstract there; `path` is decoded text."""
        return self.find(parse_url_path(path)[0], environ)

    def find(self, names: Path, environ: dict[str, Any], **wanted: bool) -> Resource | None:
        """The resource at a path with whatever else is `wanted` of the look-up, None when there is none."""
        try:
            view = self.file_system.lookup(names, **wanted)
        except EntryNotFoundError:
            return None
        return (Directory if view.entry.is_directory else File)(names, environ, view)

    def usage(self) -> Usage:
        """Totals, perhaps USAGE_S old."""
        now = self.clock.monotonic_s()
        cached = self._usage
        if cached is None or now - cached[0] > USAGE_S:
            cached = self._usage = (now, self.file_system.usage())
        return cached[1]

    @property
    def cluster_id(self) -> str:
        """Which cluster this is; asked for once."""
        if not self._cluster_id:
            self._cluster_id = self.file_system.rpc.admin("GetStatus", common_pb2.Empty()).cluster_id
        return self._cluster_id

    def resource_id(self, entry: Entry) -> str:
        """The value of DAV:resource-id (RFC 5842): the same for ever, wherever the entry moves."""
        begun = self._begun_id
        if begun is None:
            begun = hashlib.sha1(uuid.NAMESPACE_URL.bytes, usedforsecurity=False)
            begun.update(f"helenite:{self.cluster_id}:".encode())
            self._begun_id = begun
        # As uuid.uuid5 of the namespace and `helenite:CLUSTER:ID`, in a sixth of its time.
        state = begun.copy()
        state.update(b"%x" % entry.id)
        found = state.hexdigest()
        variant = "89ab"[int(found[16], 16) & 3]
        return f"urn:uuid:{found[:8]}-{found[8:12]}-5{found[13:16]}-{variant}{found[17:20]}-{found[20:32]}"

    def describe(self, entry: Entry) -> Headers:
        """What spares clients a PROPFIND after they wrote a file."""
        return [
            ("Resource-Id", self.resource_id(entry)),
            ("ETag", f'"{entry.etag}"'),
            ("Last-Modified", http_date(entry.modified_at_ms // 1000)),
            ("OC-ETag", f'"{entry.etag}"'),
            ("OC-FileId", f"{entry.id:x}"),
        ]

    def present_token(self) -> Token:
        """The newest position in the feed."""
        try:  # from the root's revision, as that is the last change of all, unless sequences have leapt since
            last = self.file_system.read_feed(self.file_system.stat(ROOT).revision, limit=1)[1]
        except SequenceExpiredError:
            last = Sequence(self.file_system.rpc.admin("GetStatus", common_pb2.Empty()).sequence)
        return Token(last)

    def sync_token(self) -> str:
        """The value of DAV:sync-token, to be taken before what it stands for is looked up."""
        return format_token(self.present_token(), self.cluster_id)
