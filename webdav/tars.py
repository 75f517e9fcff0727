"""Tar streams (POSIX pax, ustar, GNU names): reading what strangers send, writing what we send.

Used by `intake` and `outlet`. `tarfile` decodes and encodes header blocks; walking the stream is done here, because its
own reader takes headers of any size into memory and takes garbage for the end of the archive. Nothing here touches a
disk. Pure.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from helenite.core.errors import InvalidRequestError
from webdav.preconditions import TIME_SECONDS_MAX

BLOCK_BYTES = tarfile.BLOCKSIZE
EXTENDED_BYTES_MAX = 64 * 1024
"""Of one extended header or long name: paths have at most 64 KiB."""
SPARSE_BLOCKS_MAX = 1024
"""Continued map of a GNU sparse file, which is skipped."""
PIECE_BYTES = 256 * 1024
PREFIX = "HELENITE."
"""Of our own keywords in pax headers."""
END = bytes(2 * BLOCK_BYTES)

_EXTENDED = frozenset({tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE})
_LONG = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


class BrokenTarError(InvalidRequestError):
    """What arrived is no tar stream, or not a whole one; what was whole before is good."""

    code = "broken_tar"


@dataclass(frozen=True, slots=True)
class Member:
    """One member as its headers describe it. `wishes` are our own keywords without their prefix.

    `strange` says what it is when it is neither a file nor a directory. `modified_at_ms` 0: it does not say.
    """

    name: str
    size_bytes: int
    is_directory: bool = False
    strange: str = ""
    modified_at_ms: int = 0
    is_executable: bool = False
    wishes: tuple[tuple[str, str], ...] = ()

    def wish(self, keyword: str) -> str | None:
        """The value of one of our keywords."""
        return dict(self.wishes).get(keyword)


class TarReader:
    """Iterates over the members of a stream; the content of each is read, or skipped, before the next one."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        """`read` gives at least one byte and at most as many as asked, none at the end."""
        self._read = read
        self._left = 0
        self._padding = 0
        self._sparse_continues = False

    def __iter__(self) -> Iterator[Member]:
        common: dict[str, str] = {}
        extended: dict[str, str] = {}
        while (info := self._next_header()) is not None:
            if info.type in _EXTENDED:
                extended |= _parse_records(self._extension(info.size))
            elif info.type == tarfile.XGLTYPE:
                common |= _parse_records(self._extension(info.size))
            elif info.type in _LONG:
                extended[_LONG[info.type]] = _decode(self._extension(info.size).rstrip(b"\0"))
            else:
                yield self._begin(info, common | extended)
                self._skip()
                extended = {}

    def content(self) -> Iterator[bytes]:
        """The content of the present member, piece by piece."""
        while self._left:
            yield self._take(min(PIECE_BYTES, self._left))

    def _begin(self, info: tarfile.TarInfo, extended: dict[str, str]) -> Member:
        if info.type == tarfile.GNUTYPE_SPARSE:
            self._skip_sparse_map(info)
        size = _parse_size(extended.get("size"), info.size)
        has_content = info.isreg() or info.type not in tarfile.SUPPORTED_TYPES
        self._left = size if has_content else 0
        self._padding = -self._left % BLOCK_BYTES
        strange = _KINDS.get(info.type, "" if info.isreg() or info.isdir() else "of an unknown kind")
        if any(keyword.startswith("GNU.sparse.") for keyword in extended):
            strange = _KINDS[tarfile.GNUTYPE_SPARSE]
        return Member(
            extended.get("path", info.name),
            self._left,
            info.isdir(),
            strange,
            _parse_time(extended.get("mtime"), info.mtime),
            bool(info.mode & 0o111) and not info.isdir(),
            tuple((key.removeprefix(PREFIX), value) for key, value in extended.items() if key.startswith(PREFIX)),
        )

    def _next_header(self) -> tarfile.TarInfo | None:
        """The next header block, None at the end of the archive."""
        block = self._exactly(BLOCK_BYTES, "without its end mark")
        if not any(block):
            return None
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            raise BrokenTarError(f"a header of the tar stream is damaged: {error}") from None
        if info.size < 0:
            raise BrokenTarError("a header of the tar stream is damaged: a negative size")
        self._sparse_continues = block[482] != 0
        return info

    def _skip_sparse_map(self, info: tarfile.TarInfo) -> None:
        for _ in range(SPARSE_BLOCKS_MAX):
            if not self._sparse_continues:
                return
            self._sparse_continues = self._exactly(BLOCK_BYTES, "inside a header")[504] != 0
        raise BrokenTarError(f"the map of the sparse file {info.name[:80]!r} is too long")

    def _extension(self, size: int) -> bytes:
        if size > EXTENDED_BYTES_MAX:
            raise BrokenTarError(f"an extended header has at most {EXTENDED_BYTES_MAX} bytes, not {size}")
        return self._exactly(size + -size % BLOCK_BYTES, "inside a header")[:size]

    def _exactly(self, size: int, where: str) -> bytes:
        collected = bytearray()
        while len(collected) < size:
            piece = self._read(size - len(collected))
            if not piece:
                raise BrokenTarError(f"the tar stream ends {where}")
            collected += piece
        return bytes(collected)

    def _take(self, size: int) -> bytes:
        piece = self._read(size)
        if not piece:
            raise BrokenTarError("the tar stream ends inside a file")
        self._left -= len(piece)
        return piece

    def _skip(self) -> None:
        for _ in self.content():
            pass
        self._exactly(self._padding, "inside a file")


def _parse_records(data: bytes) -> dict[str, str]:
    """The records of a pax header: each is its own length, a space, `keyword=value` and a line feed."""
    records: dict[str, str] = {}
    at = 0
    while at < len(data):
        digits, space, _ = data[at : at + 8].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        record = data[at : at + length]
        keyword, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if not (equals and record.endswith(b"\n") and len(record) == length):
            raise BrokenTarError("an extended header of the tar stream is damaged")
        records[_decode(keyword)] = _decode(value)
        at += length
    return records


def _decode(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _parse_size(extended: str | None, usual: int) -> int:
    if extended is None:
        return usual
    if not (extended.isascii() and extended.isdigit() and len(extended) <= 18):
        raise BrokenTarError("a size in the tar stream is no number")
    return int(extended)


def _parse_time(extended: str | None, usual: float) -> int:
    """Milliseconds since 1970; what makes no sense says nothing."""
    try:
        seconds = Decimal(usual if extended is None else extended)
        return int(seconds * 1000) if 0 < seconds <= TIME_SECONDS_MAX else 0
    except InvalidOperation:  # no number, or one that cannot be compared
        return 0


def format_header(member: Member) -> bytes:
    """The header blocks of a file that is sent."""
    info = tarfile.TarInfo(member.name)
    info.size = member.size_bytes
    info.mode = 0o755 if member.is_executable else 0o644
    info.mtime = member.modified_at_ms / 1000
    info.pax_headers = {PREFIX + keyword: value for keyword, value in member.wishes}
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def padding(size_bytes: int) -> bytes:
    """What follows content, up to the next block."""
    return bytes(-size_bytes % BLOCK_BYTES)
