"""Which bytes a `Range` header asks for (RFC 9110 section 14), and whether to honour it at all.

Used by `reading`. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

RANGES_MAX = 64
"""More ranges than this are no download but an attack or a bug: the header is ignored (RFC 9110 section 14.2)."""
DIGITS_MAX = 18
"""Positions beyond 10**18 are beyond any file; their digits are not worth parsing."""

_SPEC = re.compile(r"[ \t]*(\d*)-(\d*)[ \t]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """`length` bytes from `start`."""

    start: int
    length: int

    def content_range(self, size: int) -> str:
        """The value of `Content-Range`."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{size}"


def parse_ranges(header: str, size: int) -> tuple[ByteRange, ...] | None:
    """The satisfiable ranges in the order asked for; None = ignore the header, empty = 416.

    Ignored are other units, malformed sets, sets that are too large or that would send more than the whole file, and
    any range of an empty file.
    """
    unit, equals, text = header.partition("=")
    specs = text.split(",")
    if unit.strip().lower() != "bytes" or not equals or size == 0 or len(specs) > RANGES_MAX:
        return None
    found: list[ByteRange] = []
    for spec in specs:
        if not spec.strip() and len(specs) > 1:
            continue  # the list syntax of RFC 9110 section 5.6.1 allows empty elements
        parsed = _parse_spec(spec, size)
        if parsed is None:
            return None
        if parsed.length:
            found.append(parsed)
    if len(found) > 1 and sum(item.length for item in found) > size:
        return None
    return tuple(found)


def _parse_spec(spec: str, size: int) -> ByteRange | None:
    """One range cut to the file, of length 0 when it lies outside; None when it is malformed."""
    match = _SPEC.fullmatch(spec)
    if match is None or match[0].strip() == "-":
        return None
    first, last = _position(match[1]), _position(match[2])
    if first is None:
        assert last is not None, "the pattern and the test above leave no other case"
        length = min(last, size)
        return ByteRange(size - length, length)
    if last is not None and last < first:
        return None
    end = size if last is None else min(last + 1, size)
    return ByteRange(first, max(0, end - first))


def _position(digits: str) -> int | None:
    if not digits:
        return None
    return int(digits) if len(digits) <= DIGITS_MAX else 10**DIGITS_MAX
