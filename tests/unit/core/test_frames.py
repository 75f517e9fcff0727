"""The data port's protocol: what is packed comes back, and no bytes of a stranger do more than raise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helenite.core import frames
from helenite.core.errors import ERROR_BY_CODE, BadCapabilityError, HeleniteError, ProtocolError, unpack_error
from helenite.core.frames import (
    FRAME,
    Ack,
    Frame,
    OpenRequest,
    RangeReply,
    ReadRequest,
    SmallChunk,
    Target,
    Verb,
    WriteRequest,
)
from helenite.core.model import CHUNK_BYTES_MAX, SEGMENT_CHUNK_BYTES_MAX, ChunkHandle, ServerId

handles = st.integers(0, 2**64 - 1).map(ChunkHandle)
servers = st.integers(0, 2**16 - 1).map(ServerId)
eight_bytes = st.binary(min_size=8, max_size=8)
texts = st.text(max_size=60)
writes = st.builds(
    WriteRequest,
    handles,
    st.integers(1, CHUNK_BYTES_MAX),
    eight_bytes,
    st.lists(st.builds(Target, servers, texts, texts), max_size=frames.CHAIN_MAX).map(tuple),
    st.integers(0, 2**32 - 1),
)
reads = st.builds(ReadRequest, handles, st.integers(0, 2**63), st.integers(0, 2**63), eight_bytes)
opens = st.builds(OpenRequest, handles, eight_bytes)
ranges = st.builds(RangeReply, st.integers(0, 2**63), st.integers(0, 2**63), st.binary(max_size=80))


def split(packed: bytes) -> tuple[Frame, bytes]:
    """Header and meta of a frame that has no payload with it."""
    frame = frames.parse_frame(packed[: FRAME.size])
    assert len(packed) == FRAME.size + frame.meta_length
    return frame, packed[FRAME.size :]


@given(writes)
def test_writes_survive(request: WriteRequest) -> None:
    frame, meta = split(frames.encode_write(request))
    assert (frame.verb, frame.status, frame.payload_length) == (Verb.WRITE, 0, request.length)
    assert frames.parse_write(meta) == request


@given(reads, opens, ranges)
def test_reads_and_opens_survive(read: ReadRequest, open_: OpenRequest, reply: RangeReply) -> None:
    assert frames.parse_read(split(frames.encode_read(read))[1]) == read
    assert frames.parse_open(split(frames.encode_open(open_))[1]) == open_
    assert frames.parse_range(split(frames.encode_range(Verb.READ, reply, 17))[1]) == reply


@given(st.lists(st.builds(Ack, servers, eight_bytes), max_size=7).map(tuple))
def test_acknowledgements_survive(acks: tuple[Ack, ...]) -> None:
    assert frames.parse_acks(split(frames.encode_acks(acks))[1]) == acks


@given(st.lists(st.builds(SmallChunk, handles, st.integers(1, 10_000), eight_bytes), min_size=1, max_size=20))
def test_writes_of_many_survive(chunks: list[SmallChunk]) -> None:
    frame, meta = split(frames.encode_write_many(chunks))
    assert (frame.verb, frame.status) == (Verb.WRITE_MANY, 0)
    assert frames.parse_write_many(meta, frame.payload_length) == tuple(chunks)
    for wrong in (frame.payload_length + 1, frame.payload_length - 1):
        with pytest.raises(ProtocolError):
            frames.parse_write_many(meta, wrong)
    with pytest.raises(ProtocolError):
        frames.parse_write_many(meta[:-1], frame.payload_length)


@pytest.mark.parametrize(
    "lengths",
    [
        [],
        [0],
        [SEGMENT_CHUNK_BYTES_MAX + 1],
        [1] * (frames.MANY_MAX + 1),
        [SEGMENT_CHUNK_BYTES_MAX] * (frames.MANY_BYTES_MAX // SEGMENT_CHUNK_BYTES_MAX + 1),
    ],
)
def test_writes_of_too_many_or_too_large_chunks_are_refused(lengths: list[int]) -> None:
    packed = frames.encode_write_many([SmallChunk(ChunkHandle(1), length, bytes(8)) for length in lengths])
    with pytest.raises(ProtocolError):
        frames.parse_write_many(packed[FRAME.size :], sum(lengths))


@given(servers, st.lists(st.just(b"") | eight_bytes.filter(any), max_size=9))
def test_acknowledgements_of_many_survive(server: ServerId, digests: list[bytes]) -> None:
    meta = split(frames.encode_many_acks(server, digests))[1]
    assert frames.parse_many_acks(meta, len(digests)) == tuple(digests)
    with pytest.raises(ProtocolError):
        frames.parse_many_acks(meta, len(digests) + 1)


@given(servers, st.binary(min_size=16, max_size=16))
def test_greetings_survive(server: ServerId, cluster: bytes) -> None:
    assert frames.parse_greeting(frames.encode_greeting(server, cluster)) == (server, cluster)


@pytest.mark.parametrize("cls", ERROR_BY_CODE.values())
def test_errors_come_back_as_their_class(cls: type[HeleniteError]) -> None:
    frame, meta = split(frames.encode_error(Verb.READ, cls("why: ü \0 " + "x" * 100_000)))
    rebuilt = unpack_error(meta)
    assert frame.status
    assert type(rebuilt) is cls
    assert str(rebuilt).startswith("why: ü \0 x")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_a_protocol_error(noise: bytes) -> None:
    for parse in (frames.parse_write, frames.parse_read, frames.parse_open, frames.parse_acks, frames.parse_range):
        try:
            parse(noise)
        except ProtocolError:
            continue
    unpack_error(noise)


@given(writes, st.data())
def test_a_write_cut_anywhere_is_refused(request: WriteRequest, data: st.DataObject) -> None:
    _, meta = split(frames.encode_write(request))
    with pytest.raises(ProtocolError):
        frames.parse_write(meta[: data.draw(st.integers(0, len(meta) - 1))])
    with pytest.raises(ProtocolError):
        frames.parse_write(meta + b"x")


@pytest.mark.parametrize(
    "header",
    [
        FRAME.pack(9, 0, 0, 0, 0),
        FRAME.pack(Verb.READ, 0, 0, frames.META_BYTES_MAX + 1, 0),
        FRAME.pack(Verb.WRITE, 0, 0, 0, CHUNK_BYTES_MAX + 1),
    ],
)
def test_headers_beyond_the_limits_are_refused(header: bytes) -> None:
    with pytest.raises(ProtocolError):
        frames.parse_frame(header)


@pytest.mark.parametrize(
    "targets",
    [
        (Target(ServerId(1), "h:1", ""),) * 7,
        (Target(ServerId(1), "h" * 256, ""),),
        (Target(ServerId(1), "h:1", "s" * 256),),
    ],
)
def test_what_has_no_room_in_a_write_is_refused_before_it_is_sent(targets: tuple[Target, ...]) -> None:
    with pytest.raises(ProtocolError):
        frames.encode_write(WriteRequest(ChunkHandle(1), 1, b"12345678", targets))


def test_a_greeting_of_something_else_is_refused() -> None:
    with pytest.raises(ProtocolError):
        frames.parse_greeting(b"SSH-2.0-OpenSSH_9.6\r\n" + bytes(5))


def test_capabilities_are_of_one_chunk_and_one_key() -> None:
    capability = frames.capability_for(b"k" * 32, ChunkHandle(7))
    frames.check_capability(b"k" * 32, ChunkHandle(7), capability)
    for key, handle in ((b"k" * 32, 8), (b"l" * 32, 7)):
        with pytest.raises(BadCapabilityError):
            frames.check_capability(key, ChunkHandle(handle), capability)
