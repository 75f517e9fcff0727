from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helenite.core.errors import InvalidPathError, InvalidRequestError
from webdav.urls import (
    ForeignHostError,
    format_href,
    normalize_host,
    parse_destination,
    parse_local_url,
    parse_url_path,
)

OWN = frozenset({"drive.example", "drive.example:8080"})


@pytest.mark.parametrize(
    ("text", "path", "has_slash"),
    [
        ("/", (), True),
        ("//", (), True),
        ("/a", ("a",), False),
        ("/a/b/", ("a", "b"), True),
        ("//a//b", ("a", "b"), False),
        ("/a%20b", ("a b",), False),
        ("/a+b;c&d=e", ("a+b;c&d=e",), False),
        ("/%e2%82%ac", ("€",), False),
        ("/\xe2\x82\xac", ("€",), False),
        ("/a%5Cb", ("a\\b",), False),
        ("/100%25", ("100%",), False),
        ("/%252e", ("%2e",), False),
        ("/a%3Fb%23c", ("a?b#c",), False),
        ("/e%CC%81", ("e\u0301",), False),
    ],
)
def test_paths(text: str, path: tuple[str, ...], has_slash: bool) -> None:
    assert parse_url_path(text) == (path, has_slash)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "/..",
        "/a/../b",
        "/%2e%2e/a",
        "/.%2E",
        "/./a",
        "/%2e",
        "/a%00b",
        "/a%2fb",
        "/%ff",
        "/%zz",
        "/a%",
        "/a%4",
        "/%c0%ae%c0%ae",
        "/%ed%a0%80",
        "/" + "x" * 256,
    ],
)
def test_what_is_no_path(text: str) -> None:
    with pytest.raises(InvalidPathError):
        parse_url_path(text)


@pytest.mark.parametrize(
    "header",
    [
        "/a%3Bb",
        "http://drive.example/a%3Bb",
        "https://DRIVE.example:443/a%3Bb",
        "davs://drive.example:8080/a%3Bb",
        "http://user@drive.example:80/a%3Bb",
        " /a;b ",
    ],
)
def test_destinations(header: str) -> None:
    assert parse_destination(header, OWN) == ("a;b",)


@pytest.mark.parametrize("header", ["http://other.example/a", "//other/a", "ftp://drive.example/a", "mailto:a"])
def test_destinations_elsewhere(header: str) -> None:
    with pytest.raises(ForeignHostError):
        parse_destination(header, OWN)


@pytest.mark.parametrize("header", ["", "a", "/a?b", "/a#b", "http://drive.example", "http://[/a", "/a/../b", "/%ff"])
def test_destinations_that_are_none(header: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_destination(header, OWN)
    assert not isinstance(caught.value, ForeignHostError)


def test_any_host_may_be_allowed() -> None:
    assert parse_destination("http://other.example/a", frozenset({"*"})) == ("a",)


def test_hosts_are_compared_without_case_and_default_port() -> None:
    assert normalize_host("User@Host.Example:443") == "host.example"
    assert normalize_host("[::1]:8080") == "[::1]:8080"


def test_tags_of_if_headers() -> None:
    assert parse_local_url("http://anything/a%20b/") == ("a b",)
    assert parse_local_url("http://anything") == ()
    assert parse_local_url("urn:uuid:1") is None
    assert parse_local_url("/..") is None


NAMES = st.text(min_size=1, max_size=20).filter(
    lambda t: t not in {".", ".."} and not set(t) & {"/", "\0"} and t.isprintable() and len(t.encode()) <= 255
)


@given(st.lists(NAMES, max_size=4).map(tuple), st.booleans())
def test_links_lead_back(path: tuple[str, ...], is_directory: bool) -> None:
    href = format_href(path, is_directory=is_directory)
    assert href.isascii()
    assert not set(href) & set(' "<>&?#\\^`{|}')
    assert parse_url_path(href)[0] == path
