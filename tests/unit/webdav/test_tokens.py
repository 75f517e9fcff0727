"""Sync tokens and the `wait` preference: what is written is read, what is not ours is refused."""

from __future__ import annotations

import pytest

from helenite.core.errors import SequenceExpiredError
from helenite.core.model import Sequence
from webdav.tokens import PREFIX, Token, Walk, format_token, parse_token
from webdav.waiting import WAIT_S_MAX, parse_wait


@pytest.mark.parametrize(
    "token",
    [
        Token(Sequence(0)),
        Token(Sequence(2**63)),
        Token(Sequence(7), is_half=True),
        Token(Sequence(7), walk=Walk(("a", "b c", "é:"), 0)),
        Token(Sequence(7), walk=Walk(("a:b~", "100%"), 2)),
    ],
)
def test_tokens_come_back_as_they_were(token: Token) -> None:
    text = format_token(token, "id")
    assert text.isascii()
    assert " " not in text
    assert parse_token(text, "id") == token
    with pytest.raises(SequenceExpiredError):
        parse_token(text, "other")


@pytest.mark.parametrize(
    "text",
    ["", "id:", "id:x", "id:1:1", "id:1:2:a", "id:1:0:", "id:1:0:..", "id:1:0:%ff", "id:1:0:a//b", "id:-1", "id:1~~"],
)
def test_damaged_tokens(text: str) -> None:
    with pytest.raises(SequenceExpiredError):
        parse_token(PREFIX + text, "id")


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (None, 0),
        ("wait=10", 10),
        ("return=minimal, wait=5", 5),
        ("Wait = 7; foo=bar", 7),
        ('wait="8"', 8),
        ("wait=100000", WAIT_S_MAX),
        ("await=3", 0),
        ("wait=x", 0),
        ("wait", 0),
    ],
)
def test_wait(prefer: str | None, seconds: int) -> None:
    assert parse_wait(prefer) == seconds
