"""Names of conflict copies, and what disks make of names."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helenite.core.errors import InvalidPathError
from helenite.core.paths import validate_name
from syncagent.names import (
    NameRules,
    aside_name,
    conflict_name,
    host_label,
    is_aside,
    is_aside_of,
    is_conflict_copy,
    split_extension,
)

STAMP = "2026-11-24 anna"


def nobody(_: str) -> bool:
    return False


@pytest.mark.parametrize(
    ("name", "stem", "extension"),
    [
        ("letter.txt", "letter", ".txt"),
        ("archive.tar.gz", "archive", ".tar.gz"),
        ("README", "README", ""),
        (".hidden", ".hidden", ""),
        (".hidden.txt", ".hidden", ".txt"),
        ("..x", "..x", ""),
        ("ends.", "ends.", ""),
        (
            "v1.2 of a long sentence that is no extension at all",
            "v1.2 of a long sentence that is no extension at all",
            "",
        ),
        (".tar.gz", ".tar", ".gz"),
    ],
)
def test_extension(name: str, stem: str, extension: str) -> None:
    assert split_extension(name) == (stem, extension)


def test_conflict_names() -> None:
    assert conflict_name("letter.txt", STAMP, nobody) == "letter (conflicted copy 2026-11-24 anna).txt"
    assert conflict_name("README", STAMP, nobody) == "README (conflicted copy 2026-11-24 anna)"
    assert conflict_name("a.tar.gz", STAMP, nobody) == "a (conflicted copy 2026-11-24 anna).tar.gz"
    assert conflict_name("Foo", STAMP, nobody, "case conflict") == "Foo (case conflict 2026-11-24 anna)"


def test_second_conflict_on_one_day_gets_a_number() -> None:
    taken = {"letter (conflicted copy 2026-11-24 anna).txt"}
    assert conflict_name("letter.txt", STAMP, taken.__contains__) == "letter (conflicted copy 2026-11-24 anna 2).txt"


def test_the_copy_of_a_copy_is_another_copy_of_the_original() -> None:
    first = conflict_name("letter.txt", "2026-11-23 bert", nobody)
    assert conflict_name(first, STAMP, nobody) == "letter (conflicted copy 2026-11-24 anna).txt"
    second = conflict_name("letter.txt", STAMP, {conflict_name("letter.txt", STAMP, nobody)}.__contains__)
    assert conflict_name(second, STAMP, {second}.__contains__) == "letter (conflicted copy 2026-11-24 anna).txt"


@given(st.text(min_size=1, max_size=255), st.integers(0, 12))
def test_a_conflict_name_is_a_name_and_is_known_as_one(name: str, in_the_way: int) -> None:
    try:
        validate_name(name)
    except InvalidPathError:
        return
    taken: set[str] = set()
    for _ in range(in_the_way + 1):
        found = conflict_name(name, STAMP, taken.__contains__)
        assert found not in taken
        assert validate_name(found) == found
        assert is_conflict_copy(found)
        taken.add(found)


def test_a_long_name_loses_the_end_of_its_stem_not_its_extension() -> None:
    found = conflict_name("ä" * 125 + ".docx", STAMP, nobody)
    assert found.endswith(" (conflicted copy 2026-11-24 anna).docx")
    assert 253 <= len(found.encode()) <= 255


def test_ordinary_names_are_no_conflict_copies() -> None:
    for name in ["letter.txt", "letter (copy).txt", "letter (conflicted copy).txt", "conflicted copy 2026-11-24 anna"]:
        assert not is_conflict_copy(name)


@pytest.mark.parametrize("name", ["a:b", "con", "AUX.txt", "x.", "x ", "a\\b", "tab\t", "lpt1.tar.gz", "COM¹"])
def test_windows_refuses(name: str) -> None:
    assert NameRules(windows=True).refusal(name)
    assert NameRules().refusal(name) is None


@pytest.mark.parametrize("name", ["console", "a.con", "auxiliary.txt", ".x", "com0"])
def test_windows_allows(name: str) -> None:
    assert NameRules(windows=True).refusal(name) is None


def test_the_agents_own_directory_is_nobodys_name() -> None:
    assert NameRules().refusal(".helenite-sync")


def test_keys() -> None:
    composed, decomposed = unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")
    assert NameRules().key("Foo") != NameRules().key("foo")
    assert NameRules(ignores_case=True).key("Foo") == NameRules(ignores_case=True).key("foo")
    assert NameRules(ignores_normalization=True).key(composed) == NameRules(ignores_normalization=True).key(decomposed)
    assert NameRules(ignores_normalization=True).same(composed, decomposed)
    assert not NameRules(ignores_case=True).same("Foo", "foo")


def test_aside_names_tell_whose_they_are() -> None:
    name = aside_name("anna-1", 255)
    assert is_aside(name)
    assert is_aside_of(name, "anna-1")
    assert not is_aside_of(name, "anna")
    assert not is_aside("aside")


def test_host_labels() -> None:
    assert host_label("Annas-MacBook.local") == "Annas-MacBook"
    assert host_label("x (y)/z") == "x-y-z"
    assert host_label("") == "this-device"
