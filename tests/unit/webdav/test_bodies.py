from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helenite.core.errors import InvalidRequestError
from helenite.core.model import LockScope
from webdav.bodies import Mode, parse_lockinfo, parse_propfind, parse_proppatch

BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(9))
    + b']><D:propfind xmlns:D="DAV:"><D:prop><D:x a="&j;">&j;</D:x></D:prop></D:propfind>'
)
EXTERNAL = b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><propfind xmlns="DAV:"><prop>&e;</prop></propfind>'


def test_propfind() -> None:
    assert parse_propfind(b"").mode is Mode.ALL
    assert parse_propfind(b'<propfind xmlns="DAV:"><propname/></propfind>').mode is Mode.NAMES
    named = parse_propfind(
        b'<propfind xmlns="DAV:"><prop><getetag/><x xmlns="urn:x"/><getetag/><!-- c --></prop></propfind>'
    )
    assert (named.mode, named.names) == (Mode.NAMED, ("{DAV:}getetag", "{urn:x}x"))
    everything = parse_propfind(b'<propfind xmlns="DAV:"><allprop/><include><a/></include><unknown/></propfind>')
    assert (everything.mode, everything.names) == (Mode.ALL, ("{DAV:}a",))


@pytest.mark.parametrize(
    "body",
    [
        b"x",
        b"<a/>",
        b'<propfind xmlns="DAV:"/>',
        b'<propfind xmlns="DAV:"><prop/><allprop/></propfind>',
        b"\xff\xfe",
        BOMB,
        EXTERNAL,
        b'<propfind xmlns="DAV:"><prop>' + b"".join(b"<p%d/>" % n for n in range(1001)) + b"</prop></propfind>",
    ],
)
def test_what_is_no_propfind(body: bytes) -> None:
    started = time.monotonic()
    with pytest.raises(InvalidRequestError):
        parse_propfind(body)
    assert time.monotonic() - started < 10


def test_proppatch_keeps_order_namespaces_and_language() -> None:
    updates = parse_proppatch(
        b'<D:propertyupdate xmlns:D="DAV:" xmlns:o="urn:o" xml:lang="de">'
        b'<D:set><D:prop><o:a b="1">&lt;x<o:c/></o:a></D:prop></D:set>'
        b"<D:remove><D:prop><o:a/></D:prop></D:remove><D:set><D:prop><e xmlns=''/></D:prop></D:set></D:propertyupdate>"
    )
    assert [(u.name, u.element is None) for u in updates] == [("{urn:o}a", False), ("{urn:o}a", True), ("e", False)]
    first = updates[0].element
    assert first is not None
    assert b'xmlns:o="urn:o"' in first
    assert b'xml:lang="de"' in first
    assert b"&lt;x<o:c/></o:a>" in first
    assert not first.startswith(b"<?xml")


@pytest.mark.parametrize(
    "body", [b"", b'<propertyupdate xmlns="DAV:"/>', b'<propfind xmlns="DAV:"><allprop/></propfind>']
)
def test_what_is_no_proppatch(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        parse_proppatch(body)


def test_lockinfo() -> None:
    body = (
        b'<lockinfo xmlns="DAV:"><lockscope><%s/></lockscope><locktype><write/></locktype>'
        b"<owner><href>me</href></owner></lockinfo>"
    )
    query = parse_lockinfo(body % b"shared")
    assert query.scope is LockScope.SHARED
    assert query.owner == b'<owner xmlns="DAV:"><href>me</href></owner>'
    assert parse_lockinfo(body % b"exclusive").scope is LockScope.EXCLUSIVE
    for bad in (body % b"other", body.replace(b"write", b"read") % b"shared", b'<lockinfo xmlns="DAV:"/>'):
        with pytest.raises(InvalidRequestError):
            parse_lockinfo(bad)


@given(st.binary(max_size=200))
def test_anything_parses_or_is_refused(body: bytes) -> None:
    for parse in (parse_propfind, parse_proppatch, parse_lockinfo):
        with contextlib.suppress(InvalidRequestError):
            parse(body)
