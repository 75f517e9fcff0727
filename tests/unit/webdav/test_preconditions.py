"""RFC 9110 section 13.2.2 and RFC 4918 section 10.4 as tables."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helenite.core.errors import InvalidRequestError
from helenite.core.model import Expect
from webdav.preconditions import (
    Conditionals,
    State,
    Verdict,
    choose_expect,
    evaluate,
    has_etags,
    if_holds,
    if_range_holds,
    parse_etags,
    parse_http_date,
    parse_if,
    submitted_tokens,
)

DATE = "Sun, 13 Sep 2020 12:26:40 GMT"
EARLIER = "Sun, 13 Sep 2020 12:26:39 GMT"
LATER = "Fri, 01 Jan 2100 00:00:00 GMT"
HERE = State("abc", 1_600_000_000)
FREE = State(None)
GO, SAME, FAIL = Verdict.PROCEED, Verdict.NOT_MODIFIED, Verdict.FAILED


@pytest.mark.parametrize(
    ("sent", "state", "read", "write"),
    [
        ({}, HERE, GO, GO),
        ({"if_match": "*"}, HERE, GO, GO),
        ({"if_match": "*"}, FREE, FAIL, FAIL),
        ({"if_match": '"abc"'}, HERE, GO, GO),
        ({"if_match": '"x", "abc"'}, HERE, GO, GO),
        ({"if_match": 'W/"abc"'}, HERE, FAIL, FAIL),
        ({"if_match": '"abc"'}, FREE, FAIL, FAIL),
        ({"if_none_match": "*"}, HERE, SAME, FAIL),
        ({"if_none_match": "*"}, FREE, GO, GO),
        ({"if_none_match": '"abc"'}, HERE, SAME, FAIL),
        ({"if_none_match": 'W/"abc"'}, HERE, SAME, FAIL),
        ({"if_none_match": '"x"'}, HERE, GO, GO),
        ({"if_modified_since": DATE}, HERE, SAME, GO),
        ({"if_modified_since": EARLIER}, HERE, GO, GO),
        ({"if_modified_since": LATER}, HERE, SAME, GO),
        ({"if_modified_since": "yesterday"}, HERE, GO, GO),
        ({"if_modified_since": EARLIER, "if_none_match": '"abc"'}, HERE, SAME, FAIL),
        ({"if_modified_since": LATER, "if_none_match": '"x"'}, HERE, GO, GO),
        ({"if_unmodified_since": DATE}, HERE, GO, GO),
        ({"if_unmodified_since": EARLIER}, HERE, FAIL, FAIL),
        ({"if_unmodified_since": EARLIER, "if_match": '"abc"'}, HERE, GO, GO),
        ({"if_unmodified_since": "never"}, HERE, GO, GO),
        ({"if_match": '"abc"', "if_none_match": '"abc"'}, HERE, SAME, FAIL),
    ],
)
def test_conditional_headers(sent: dict[str, str], state: State, read: Verdict, write: Verdict) -> None:
    assert evaluate(Conditionals(**sent), state, is_read=True) is read
    assert evaluate(Conditionals(**sent), state, is_read=False) is write


@pytest.mark.parametrize(
    ("sent", "state", "has_if_etags", "expect"),
    [
        ({}, HERE, False, Expect.ANY),
        ({"if_match": "*"}, HERE, False, Expect.PRESENT),
        ({"if_none_match": "*"}, FREE, False, Expect.ABSENT),
        ({"if_match": '"abc"'}, HERE, False, Expect.EXACT),
        ({"if_none_match": '"x"'}, HERE, False, Expect.EXACT),
        ({"if_none_match": '"x"'}, FREE, False, Expect.ABSENT),
        ({"if_unmodified_since": DATE}, HERE, False, Expect.EXACT),
        ({"if_modified_since": DATE}, HERE, False, Expect.ANY),
        ({}, HERE, True, Expect.EXACT),
        ({}, FREE, True, Expect.ABSENT),
    ],
)
def test_what_the_commit_must_find(sent: dict[str, str], state: State, has_if_etags: bool, expect: Expect) -> None:
    assert choose_expect(Conditionals(**sent), state, has_etag_conditions=has_if_etags) is expect


@pytest.mark.parametrize("text", ['"a', "a", '"a" "b"', "W/", '"a",,"b" x', '""" "', ",".join(['"x"'] * 300)])
def test_malformed_etags(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        parse_etags(text)


def test_etags() -> None:
    assert parse_etags('"a", W/"b" ,"c,d"') == [(False, "a"), (True, "b"), (False, "c,d")]
    assert parse_etags("") == []


@pytest.mark.parametrize(
    ("header", "holds"),
    [
        ('"abc"', True),
        ('W/"abc"', False),
        ('"x"', False),
        (DATE, True),
        (EARLIER, False),
        (LATER, False),
        ("nonsense", False),
    ],
)
def test_if_range(header: str, holds: bool) -> None:
    assert if_range_holds(header, HERE) is holds


@pytest.mark.parametrize(
    ("header", "holds"),
    [
        ("(<urn:t1>)", True),
        ("(<urn:t2>)", False),
        ("(Not <urn:t2>)", True),
        ("(Not <urn:t1>)", False),
        ('(["abc"])', True),
        ('(["x"])', False),
        ('(Not ["x"])', True),
        ('(<urn:t1> ["abc"])', True),
        ('(<urn:t1> ["x"])', False),
        ('(<urn:t2>) (["abc"])', True),
        ('(<urn:t2>)(["x"])', False),
        ('<http://h/b> (["bbb"])', True),
        ('<http://h/b> (["abc"])', False),
        ('<http://h/b> (["no"]) </none> (Not ["bbb"])', True),
        ('</none> (["bbb"])', False),
        ("(<DAV:no-lock>)", False),
        ("(Not <DAV:no-lock>)", True),
        ("(<urn:t1> Not <DAV:no-lock>)", True),
    ],
)
def test_if(header: str, holds: bool) -> None:
    states = {None: State("abc", 0, frozenset({"urn:t1"})), "http://h/b": State("bbb"), "/none": FREE}
    assert if_holds(parse_if(header), lambda tag: states[tag]) is holds


@pytest.mark.parametrize(
    "header",
    [
        "",
        "(",
        ")",
        "()",
        "(<a>",
        "<u>",
        "(Not)",
        "(Not Not <a>)",
        "<u> <v>",
        "(<a>) <u>",
        "([etag])",
        '(["a"]',
        "x(<a>)",
        "(" + "<a> " * 1000 + ")",
    ],
)
def test_malformed_if(header: str) -> None:
    with pytest.raises(InvalidRequestError):
        parse_if(header)


def test_tokens_that_are_submitted() -> None:
    lists = parse_if('<http://h/a> (<urn:1> ["e"]) (Not <urn:2>) <http://h/b> (<urn:1>)')
    assert submitted_tokens(lists) == ("urn:1", "urn:2")
    assert has_etags(lists)
    assert not has_etags(parse_if("(<urn:1>)"))


@given(st.text(alphabet='()<>[]"abN ot W/:,*\t', max_size=60))
def test_anything_parses_or_is_refused(text: str) -> None:
    for parse in (parse_if, parse_etags):
        with contextlib.suppress(InvalidRequestError):
            parse(text)


@given(st.text(max_size=40))
def test_dates_never_crash(text: str) -> None:
    assert isinstance(parse_http_date(text), int | None)
