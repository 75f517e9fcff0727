"""Paths, records, errors, wire: the small pure modules of the core."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helenite.core import errors, wire
from helenite.core.errors import ERROR_BY_CODE, HeleniteError, InvalidPathError, error_from_code
from helenite.core.model import (
    ChunkHandle,
    Entry,
    EntryId,
    EntryView,
    Extent,
    Kind,
    Location,
    Lock,
    LockScope,
    Sequence,
    ServerId,
)
from helenite.core.paths import ROOT, format_path, is_within, parse_path
from helenite.core.pb import common_pb2
from helenite.core.record import decode_record, encode_record

names = st.text(min_size=1, max_size=40).filter(
    lambda n: n not in {".", ".."} and not set(n) & {"/", "\0"} and n.isprintable()
)
u63 = st.integers(0, 2**53)
extents = st.lists(
    st.builds(Extent, u63.map(ChunkHandle), st.integers(0, 2**32 - 1), st.integers(1, 2**32 - 1)), max_size=20
).map(tuple)
digests = st.just(b"") | st.binary(min_size=32, max_size=32)
entries = st.builds(
    Entry, names, st.just(Kind.FILE), u63.map(EntryId), u63.map(Sequence), u63, u63, u63, extents, digests
) | st.builds(Entry, names, st.just(Kind.DIRECTORY), u63.map(EntryId), u63.map(Sequence), st.just(0), u63, u63)


@given(st.lists(names, max_size=8).map(tuple))
def test_paths_survive_formatting(path: tuple[str, ...]) -> None:
    assert parse_path(format_path(path)) == path


@pytest.mark.parametrize(
    "text", ["", "a", "a/b", "//", "/a//b", "/a/../b", "/./a", "/..", "/a\0b", "/" + "x" * 256, "/\ud800", "/a" * 257]
)
def test_paths_that_cannot_be(text: str) -> None:
    with pytest.raises(InvalidPathError):
        parse_path(text)


def test_limits_are_inclusive() -> None:
    assert parse_path("/" + "é" * 127 + "x") == ("é" * 127 + "x",)
    assert len(parse_path("/a" * 256)) == 256
    assert parse_path("/") == ROOT
    assert parse_path("/a/") == ("a",)


def test_within() -> None:
    assert is_within(("a", "b"), ("a",))
    assert is_within(("a",), ("a",))
    assert not is_within(("ab",), ("a",))


@given(entries)
def test_records_survive_packing(entry: Entry) -> None:
    assert decode_record(entry.name, encode_record(entry)) == entry


@given(st.binary(max_size=100))
def test_any_bytes_are_a_record_or_a_protocol_error(packed: bytes) -> None:
    with contextlib.suppress(errors.ProtocolError):
        decode_record("x", packed)


def test_every_error_comes_back_as_its_own_class() -> None:
    codes = [cls.code for cls in ERROR_BY_CODE.values()]
    assert len(set(codes)) == len(codes)

    def walk(cls: type[HeleniteError]) -> list[type[HeleniteError]]:
        return [cls, *(found for sub in cls.__subclasses__() for found in walk(sub))]

    for cls in walk(HeleniteError):
        if cls.__module__ != errors.__name__:
            continue  # a gateway's own, which never travels
        rebuilt = error_from_code(cls.code, "why")
        assert type(rebuilt) is cls
        assert str(rebuilt) == "why"
        assert wire.status_of(rebuilt) is not None


@given(entries, st.lists(st.integers(1, 65535).map(ServerId), max_size=4).map(tuple))
def test_views_survive_the_wire(entry: Entry, servers: tuple[ServerId, ...]) -> None:
    locations = tuple(Location(extent.handle, servers, b"12345678") for extent in entry.extents)
    lock = Lock("urn:uuid:1", "/a", LockScope.SHARED, True, b"<owner/>", "alice", 60, 5)
    view = EntryView(entry, locations, {"{DAV:}x": b"<x/>"}, (lock,))
    message = common_pb2.Entry(
        name=entry.name,
        record=encode_record(entry),
        replicas=[wire.pack_servers(servers) for _ in locations],
        capabilities=[location.capability for location in locations],
        properties=view.properties,
        locks=[wire.lock_to_message(lock)],
    )
    assert wire.view_from_message(message) == view
