"""Whether a request may go on: conditional headers (RFC 9110 section 13) and the `If` header (RFC 4918 section 10.4).

Used by `conditions`, which looks up the states that are compared here. The outcome for a mutation is an Expect: what
the commit must still find, so that nothing can slip in between check and commit. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum, auto

from helenite.core.errors import InvalidRequestError
from helenite.core.model import Expect

TAGS_MAX = 200
"""Entity tags in one header; more make no sense for one resource."""
TIME_SECONDS_MAX = 253_402_300_799
"""The end of the year 9999, the last that HTTP dates can say."""
IF_TOKENS_MAX = 1000
"""Parentheses, tokens and tags in one `If` header; clients send a dozen."""


@dataclass(frozen=True, slots=True)
class State:
    """What conditions compare with: a resource's entity tag without quotes (None = no resource), time and locks."""

    etag: str | None
    modified_at_s: int = 0
    tokens: frozenset[str] = frozenset()

    @property
    def exists(self) -> bool:
        return self.etag is not None


@dataclass(frozen=True, slots=True)
class Conditionals:
    """The conditional headers of a request as they were sent."""

    if_match: str | None = None
    if_none_match: str | None = None
    if_modified_since: str | None = None
    if_unmodified_since: str | None = None

    def any(self) -> bool:
        """Whether there is anything to evaluate."""
        return self != _NONE


_NONE = Conditionals()


class Verdict(Enum):
    """What RFC 9110 section 13.2.2 says about a request."""

    PROCEED = auto()
    NOT_MODIFIED = auto()
    FAILED = auto()


def evaluate(conditionals: Conditionals, state: State, *, is_read: bool) -> Verdict:
    """Apply the headers in the order of RFC 9110 section 13.2.2. `is_read` holds for GET and HEAD."""
    if conditionals.if_match is not None:
        if not _any_matches(conditionals.if_match, state, is_weak_enough=False):
            return Verdict.FAILED
    elif _is_later(state, conditionals.if_unmodified_since):
        return Verdict.FAILED
    if conditionals.if_none_match is not None:
        if _any_matches(conditionals.if_none_match, state, is_weak_enough=True):
            return Verdict.NOT_MODIFIED if is_read else Verdict.FAILED
    elif is_read and _is_unchanged(state, conditionals.if_modified_since):
        return Verdict.NOT_MODIFIED
    return Verdict.PROCEED


def choose_expect(conditionals: Conditionals, state: State, *, has_etag_conditions: bool) -> Expect:
    """What the commit must still find, given conditions that hold for `state` (`has_etag_conditions`: in `If`)."""
    if has_etag_conditions or _names_a_state(conditionals):
        return Expect.EXACT if state.exists else Expect.ABSENT
    if conditionals.if_match is not None:
        return Expect.PRESENT
    if conditionals.if_none_match is not None:
        return Expect.ABSENT
    return Expect.ANY


def _names_a_state(conditionals: Conditionals) -> bool:
    tags = (conditionals.if_match, conditionals.if_none_match)
    is_star = [tag.strip() == "*" for tag in tags if tag is not None]
    return not all(is_star) or conditionals.if_unmodified_since is not None


def _any_matches(header: str, state: State, *, is_weak_enough: bool) -> bool:
    if header.strip() == "*":
        return state.exists
    tags = parse_etags(header)
    return any(tag == state.etag and (is_weak_enough or not is_weak) for is_weak, tag in tags)


_ETAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')


def parse_etags(header: str) -> list[tuple[bool, str]]:
    """The tags of a list as (is it weak, the tag without quotes); InvalidRequestError when it is malformed."""
    tags: list[tuple[bool, str]] = []
    rest = header.strip()
    while rest:
        match = _ETAG.match(rest)
        if match is None or len(tags) == TAGS_MAX:
            raise InvalidRequestError("a list of entity tags is malformed or too long")
        tags.append((match[1] is not None, match[2]))
        rest = rest[match.end() :].lstrip(" \t")
        if rest and not rest.startswith(","):
            raise InvalidRequestError("entity tags are separated by commas")
        rest = rest.lstrip(" \t,")
    return tags


def parse_http_date(text: str | None) -> int | None:
    """Seconds since the epoch, or None when it is no date: RFC 9110 has such a header ignored."""
    if text is None:
        return None
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _is_later(state: State, header: str | None) -> bool:
    limit = parse_http_date(header)
    return limit is not None and state.exists and state.modified_at_s > limit


def _is_unchanged(state: State, header: str | None) -> bool:
    since = parse_http_date(header)
    return since is not None and state.exists and state.modified_at_s <= since


def if_range_holds(header: str, state: State) -> bool:
    """Whether the ranges may be sent (RFC 9110 section 13.1.5): the very tag or the very date, strongly compared."""
    text = header.strip()
    if text.startswith(('"', "W/")):
        return text == f'"{state.etag}"'
    return parse_http_date(text) == state.modified_at_s


# The If header


@dataclass(frozen=True, slots=True)
class IfCondition:
    """One condition: a state token or an entity tag, perhaps negated."""

    is_negated: bool
    token: str | None
    etag: str | None


@dataclass(frozen=True, slots=True)
class IfList:
    """A list of conditions that must all hold for the resource `tag`, or for the request's when it is None."""

    tag: str | None
    conditions: tuple[IfCondition, ...]


_IF_TOKEN = re.compile(
    r"[ \t]*(?:(?P<open>\()|(?P<close>\))|(?P<not>[Nn][Oo][Tt])(?=[ \t<\[])|<(?P<url>[^<>]*)>|\[(?P<etag>[^\[\]]*)\])"
)


def parse_if(header: str) -> tuple[IfList, ...]:
    """The lists of an `If` header; InvalidRequestError when it does not follow the grammar."""
    tokens = _tokenize(header.strip())
    lists: list[IfList] = []
    tag: str | None = None
    at = 0
    while at < len(tokens):
        if tokens[at].lastgroup == "url":
            tag = tokens[at]["url"]
            at += 1
        conditions, at = _parse_list(tokens, at)
        lists.append(IfList(tag, conditions))
    if not lists:
        raise InvalidRequestError("the If header is empty")
    return tuple(lists)


def _tokenize(text: str) -> list[re.Match[str]]:
    tokens: list[re.Match[str]] = []
    at = 0
    while at < len(text):
        match = _IF_TOKEN.match(text, at)
        if match is None or len(tokens) == IF_TOKENS_MAX:
            raise InvalidRequestError("the If header is malformed or too long")
        tokens.append(match)
        at = match.end()
    return tokens


def _parse_list(tokens: list[re.Match[str]], at: int) -> tuple[tuple[IfCondition, ...], int]:
    """The list that opens at `at`, and where the next begins."""
    conditions: list[IfCondition] = []
    kinds = [token.lastgroup for token in tokens[at:]]
    end = kinds.index("close") if "close" in kinds else -1
    if kinds[:1] != ["open"] or end < 2:
        raise InvalidRequestError("the If header is malformed: a list of conditions is expected")
    is_negated = False
    for token in tokens[at + 1 : at + end]:
        if token.lastgroup == "not" and not is_negated:
            is_negated = True
        elif token.lastgroup in {"url", "etag"}:
            conditions.append(_condition(token, is_negated=is_negated))
            is_negated = False
        else:
            raise InvalidRequestError("the If header is malformed: a condition is a token or an entity tag")
    if is_negated:
        raise InvalidRequestError("the If header is malformed: Not is followed by a condition")
    return tuple(conditions), at + end + 1


def _condition(match: re.Match[str], *, is_negated: bool) -> IfCondition:
    if match["url"] is not None:
        return IfCondition(is_negated, match["url"], None)
    etag = match["etag"].strip()
    if _ETAG.fullmatch(etag) is None:
        raise InvalidRequestError("the If header has a malformed entity tag")
    return IfCondition(is_negated, None, etag)


def if_holds(lists: tuple[IfList, ...], state_of: Callable[[str | None], State]) -> bool:
    """Whether any list holds (RFC 4918 section 10.4.3); `state_of` gives the state of a tag's resource."""
    return any(all(_holds(c, state_of(item.tag)) for c in item.conditions) for item in lists)


def _holds(condition: IfCondition, state: State) -> bool:
    if condition.token is not None:
        return (condition.token in state.tokens) is not condition.is_negated
    return (condition.etag == f'"{state.etag}"') is not condition.is_negated


def submitted_tokens(lists: tuple[IfList, ...]) -> tuple[str, ...]:
    """Every state token in the header: naming it submits it (RFC 4918 section 10.4.1)."""
    return tuple(dict.fromkeys(c.token for item in lists for c in item.conditions if c.token is not None))


def has_etags(lists: tuple[IfList, ...]) -> bool:
    """Whether any condition is about content."""
    return any(c.etag is not None for item in lists for c in item.conditions)
