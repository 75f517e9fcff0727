"""Responses that are made while they are sent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from webdav.response import WHOLE_BYTES_MAX, Response, generated


def reusing(sizes: list[int]) -> Iterator[memoryview]:
    """Pieces in one buffer, as a Reader hands them out: each is valid until the next is taken."""
    buffer = bytearray(max(sizes))
    for number, size in enumerate(sizes):
        buffer[:] = bytes([number]) * len(buffer)
        yield memoryview(buffer)[:size]


def sent(response: Response) -> bytes:
    """Each piece is sent before the next is asked for."""
    return b"".join(map(bytes, response.body))


@pytest.mark.parametrize("sizes", [[10], [10, 20, 30], [100_000, 200_000, 300_000], [WHOLE_BYTES_MAX, 1, 2]])
def test_pieces_that_share_a_buffer_arrive_as_they_were(sizes: list[int]) -> None:
    response = generated(200, reusing(sizes), "text/plain")
    assert sent(response) == b"".join(bytes([number]) * size for number, size in enumerate(sizes))
    is_whole = sum(sizes) <= WHOLE_BYTES_MAX
    assert (("Content-Length", str(sum(sizes))) in response.headers) is is_whole
