"""The call port's protocol: what is packed is parsed, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helenite.core import calls
from helenite.core.errors import EntryNotFoundError, HeleniteError, ProtocolError
from helenite.core.pb import common_pb2, master_pb2
from helenite.core.pb.master_pb2_grpc import NamespaceServicer


def test_every_verb_is_one_of_the_service() -> None:
    for verb in calls.VERBS:
        assert hasattr(NamespaceServicer, verb.name)
    assert list(calls.CODES.values()) == list(range(len(calls.VERBS)))


def test_a_call_and_its_reply() -> None:
    request = master_pb2.LookupRequest(path="/a", with_locks=True)
    packed = calls.encode_call("Lookup", request)
    code, length = calls.parse_header(packed)
    assert length == len(packed) - calls.HEADER.size
    verb, parsed = calls.parse_call(code, packed[calls.HEADER.size :])
    assert (verb.name, parsed) == ("Lookup", request)

    reply = common_pb2.Entry(name="a", record=b"r")
    status, _ = calls.parse_header(calls.encode_reply(reply))
    assert calls.parse_reply("Lookup", status, calls.encode_reply(reply)[calls.HEADER.size :]) == reply


@given(st.text(max_size=200))
def test_an_error_arrives_as_itself(sentence: str) -> None:
    packed = calls.encode_failure(EntryNotFoundError(sentence))
    status, _ = calls.parse_header(packed)
    with pytest.raises(EntryNotFoundError) as caught:
        calls.parse_reply("Lookup", status, packed[calls.HEADER.size :])
    assert str(caught.value) == sentence


@given(st.integers(0, 255), st.binary(max_size=100))
def test_garbage_is_refused_in_our_words(code: int, payload: bytes) -> None:
    for parse in (lambda: calls.parse_call(code, payload), lambda: calls.parse_reply("Mutate", code, payload)):
        try:
            parse()
        except HeleniteError:
            continue


def test_what_is_too_long_is_refused() -> None:
    with pytest.raises(ProtocolError):
        calls.parse_header(calls.HEADER.pack(0, calls.MESSAGE_BYTES_MAX + 1))
    with pytest.raises(ProtocolError):
        calls.encode_reply(common_pb2.Entry(record=bytes(calls.MESSAGE_BYTES_MAX)))
