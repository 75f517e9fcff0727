"""The body of a PATCH: what a new revision is made of, as text, and then the new bytes.

Used by `patching`; the format is written down in COMPLIANCE.md. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from helenite.client.chunking import Fresh, Kept, Part, Zeros
from helenite.core.errors import InvalidRequestError

SPLICE_TYPE = "application/vnd.helenite.splice"
PARTS_MAX = 4096
"""Parts of one splice: more are better sent as a whole file."""
HEAD_BYTES_MAX = 256 * 1024
"""Lines before the new bytes: what so many parts of a file of petabytes take."""
FILES = {b"keep": 0, b"take": 1}
"""Which file a range is of: the present revision, the source."""
END_OF_HEAD = b"\n\n"
DIGITS_MAX = 15


class BrokenSpliceError(InvalidRequestError):
    """The lines that say what a file is to be made of cannot be understood, or mean bytes that are not there."""

    code = "broken_splice"


def find_end_of_head(data: bytes) -> int:
    """Where the new bytes begin, -1 when that is not among this data. An empty head is an empty line."""
    if data.startswith(b"\n"):
        return 1
    at = data.find(END_OF_HEAD)
    return -1 if at < 0 else at + len(END_OF_HEAD)


def parse_parts(head: bytes, sizes: Sequence[int]) -> tuple[Part, ...]:
    """The parts of a new revision, in order; `sizes` are of the present one and, if there is one, of the source."""
    lines = head.strip(b"\n").split(b"\n") if head.strip(b"\n") else []
    if len(lines) > PARTS_MAX:
        raise BrokenSpliceError(f"a splice has at most {PARTS_MAX} parts")
    return tuple(_parse_part(line, sizes) for line in lines)


def _parse_part(line: bytes, sizes: Sequence[int]) -> Part:
    match line.split(b" "):
        case [b"new", length]:
            return Fresh(_number(length))
        case [b"zero", length]:
            return Zeros(_number(length))
        case [b"keep" | b"take" as verb, offset, length]:
            part = Kept(_number(offset), _number(length), FILES[verb])
            if part.file >= len(sizes):
                raise BrokenSpliceError("there is no source to take anything from")
            if part.offset + part.length > sizes[part.file]:
                raise BrokenSpliceError(f"the file has {sizes[part.file]} bytes, {part} lies beyond")
            return part
        case _:
            raise BrokenSpliceError(
                "a line is `keep OFFSET LENGTH`, `take OFFSET LENGTH`, `new LENGTH` or `zero LENGTH`"
            )


def _number(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > DIGITS_MAX:
        raise BrokenSpliceError(f"{digits[:40]!r} is no number of bytes")
    return int(digits)
