"""The data port's protocol: how bytes of chunks travel. Sans-I/O: this module only packs and parses.

One page of specification. All integers are big-endian. A connection carries one request at a time; a client that
wants more opens more. On connect the chunkserver sends a Greeting, so that a client knows whom it reached.
Then the client sends requests and reads one reply for each. A frame is

    verb u8 | flags u8 (0) | status u16 | meta_length u32 | payload_length u64 | meta | payload

Requests have status 0. In a reply, status 0 is success; otherwise it is an error, whose meta is `code NUL message`
in UTF-8 (core/errors.py) and which has no payload. After an error the connection stays usable: a server reads a
WRITE's payload to its end before it refuses it. Meta and payload of the verbs:

    WRITE request  handle u64, length u64, capability 8 B, patience u32 (milliseconds that the sender will wait for
                   the reply), target count u8, then for each further server of the chain: server id u16, address
                   length u8, `host:port`, socket length u8, unix socket path (may be empty).
                   Payload: the chunk. The server forwards it while it arrives, with less patience than it was
                   given, so that a hop that hangs is left out before the sender gives up on all.
          reply    ack count u8, then for each replica that is durable: server id u16, digest 8 B. The digest is
                   checksum.digest over the block checksums that the server computed from what it received.
                   A hop that failed is missing from the list; the first server failing is an error.
    WRITE_MANY     for each of several small chunks: handle u64, length u32, capability 8 B. Payload: their bytes,
          request  one chunk after the other. They are stored on this server only, with one sync of its disk.
          reply    server id u16, then for each chunk 8 B: the digest of what is durable, zeros for any other.
    READ  request  handle u64, offset u64, length u64, capability 8 B.
          reply    chunk length u64, offset of the payload u64, checksums. The payload are the whole blocks that
                   cover the range (so it starts at or before the range's offset), the checksums theirs.
    OPEN  request  handle u64, capability 8 B. Unix sockets only.
          reply    offset u64 in the passed file, chunk length u64, checksums of all blocks. The descriptor comes
                   by SCM_RIGHTS together with the first byte of the reply.

A zero-length chunk does not exist. Limits: meta 64 KiB, payload CHUNK_BYTES_MAX, six further servers in a chain,
addresses and socket paths 255 bytes, 1,000 small chunks of 16 MiB together. What breaks these rules ends the
connection.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from helenite.core.errors import BadCapabilityError, HeleniteError, ProtocolError, pack_error
from helenite.core.model import CHUNK_BYTES_MAX, SEGMENT_CHUNK_BYTES_MAX, ChunkHandle, ServerId

FRAME = struct.Struct(">BBHIQ")
META_BYTES_MAX = 64 * 1024
CHAIN_MAX = 6
TEXT_BYTES_MAX = 255
"""Longest address or socket path: its length is one byte."""
CAPABILITY_BYTES = 8
_GREETING = struct.Struct(">8sH16s")
_MAGIC = b"HELENIT1"
_WRITE = struct.Struct(">QQ8sIB")
_TARGET = struct.Struct(">HB")
_SMALL = struct.Struct(">QI8s")
MANY_MAX = 1_000
MANY_BYTES_MAX = 16 << 20
"""Of a WRITE_MANY, which the server holds in memory."""
NOT_STORED = bytes(8)
_READ = struct.Struct(">QQQ8s")
_OPEN = struct.Struct(">Q8s")
_RANGE = struct.Struct(">QQ")
_ACK = struct.Struct(">H8s")
GREETING_BYTES = _GREETING.size


class Verb(IntEnum):
    """What a frame asks for or answers."""

    WRITE = 1
    READ = 2
    OPEN = 3
    WRITE_MANY = 4


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame's header; meta and payload follow on the wire."""

    verb: Verb
    status: int
    meta_length: int
    payload_length: int


@dataclass(frozen=True, slots=True)
class Target:
    """A further server of a replication chain."""

    server: ServerId
    address: str
    socket: str


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """Store `length` bytes as chunk `handle`, here and at `targets`, before `patience_ms` have passed."""

    handle: ChunkHandle
    length: int
    capability: bytes
    targets: tuple[Target, ...] = ()
    patience_ms: int = 30_000


@dataclass(frozen=True, slots=True)
class SmallChunk:
    """One of the chunks of a WRITE_MANY."""

    handle: ChunkHandle
    length: int
    capability: bytes


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Send `length` bytes of a chunk from `offset`."""

    handle: ChunkHandle
    offset: int
    length: int
    capability: bytes


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """Pass a descriptor of the file that holds a chunk."""

    handle: ChunkHandle
    capability: bytes


@dataclass(frozen=True, slots=True)
class Ack:
    """One durable replica of a WRITE."""

    server: ServerId
    digest: bytes


@dataclass(frozen=True, slots=True)
class RangeReply:
    """Meta of READ's and OPEN's replies.

    READ: the chunk's `length` and where the payload starts in the chunk; OPEN: the chunk's `length` and where the
    chunk starts in the passed file.
    """

    length: int
    offset: int
    checksums: bytes


def capability_for(key: bytes, handle: ChunkHandle) -> bytes:
    """The capability of a chunk: a keyed hash that only masters and chunkservers can make."""
    return hashlib.blake2b(handle.to_bytes(8, "big"), digest_size=CAPABILITY_BYTES, key=key).digest()


def check_capability(key: bytes, handle: ChunkHandle, capability: bytes) -> None:
    """Raise BadCapabilityError unless `capability` is that of `handle`."""
    if not hmac.compare_digest(capability_for(key, handle), capability):
        raise BadCapabilityError(f"the capability for chunk {handle:x} is not of this cluster")


def encode_greeting(server: ServerId, cluster_id: bytes) -> bytes:
    """Who speaks: `cluster_id` has 16 bytes."""
    return _GREETING.pack(_MAGIC, server, cluster_id)


def parse_greeting(data: bytes) -> tuple[ServerId, bytes]:
    magic, server, cluster_id = _GREETING.unpack(data)
    if magic != _MAGIC:
        raise ProtocolError("the peer is no data port of this version")
    return ServerId(server), cluster_id


def encode_frame(verb: Verb, meta: bytes, payload_length: int = 0, status: int = 0) -> bytes:
    """Header and meta; the payload is sent after it by whoever has it."""
    return FRAME.pack(verb, 0, status, len(meta), payload_length) + meta


def parse_frame(header: bytes | bytearray | memoryview) -> Frame:
    verb, _flags, status, meta_length, payload_length = FRAME.unpack(header)
    if meta_length > META_BYTES_MAX or payload_length > CHUNK_BYTES_MAX:
        raise ProtocolError(f"a frame of {meta_length} + {payload_length} bytes is over the limit")
    try:
        return Frame(Verb(verb), status, meta_length, payload_length)
    except ValueError:
        raise ProtocolError(f"unknown verb {verb}") from None


def encode_error(verb: Verb, error: HeleniteError) -> bytes:
    return encode_frame(verb, pack_error(error)[:META_BYTES_MAX], 0, 1)


def encode_write(request: WriteRequest) -> bytes:
    """Header and meta; `length` bytes of payload must follow."""
    if len(request.targets) > CHAIN_MAX:
        raise ProtocolError(f"a chain has at most {CHAIN_MAX} further servers, not {len(request.targets)}")
    head = _WRITE.pack(request.handle, request.length, request.capability, request.patience_ms, len(request.targets))
    return encode_frame(Verb.WRITE, head + b"".join(map(_encode_target, request.targets)), request.length)


def _encode_target(target: Target) -> bytes:
    address, socket = target.address.encode(), target.socket.encode()
    if len(address) > TEXT_BYTES_MAX or len(socket) > TEXT_BYTES_MAX:
        raise ProtocolError(f"the address of chunkserver {target.server} is too long for the data port")
    return _TARGET.pack(target.server, len(address)) + address + bytes([len(socket)]) + socket


def parse_write(meta: bytes) -> WriteRequest:
    try:
        handle, length, capability, patience_ms, count = _WRITE.unpack_from(meta)
        at, targets = _WRITE.size, []
        for _ in range(count):
            server, size = _TARGET.unpack_from(meta, at)
            at += _TARGET.size
            address = meta[at : at + size].decode()
            at += size
            socket = meta[at + 1 : at + 1 + meta[at]].decode()
            at += 1 + meta[at]
            targets.append(Target(ServerId(server), address, socket))
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ProtocolError("a WRITE's meta is malformed") from error
    if at != len(meta) or length < 1 or count > CHAIN_MAX:
        raise ProtocolError("a WRITE's meta is malformed")
    return WriteRequest(ChunkHandle(handle), length, capability, tuple(targets), patience_ms)


def encode_acks(acks: tuple[Ack, ...]) -> bytes:
    """WRITE's reply, whole."""
    meta = bytes([len(acks)]) + b"".join(_ACK.pack(ack.server, ack.digest) for ack in acks)
    return encode_frame(Verb.WRITE, meta)


def parse_acks(meta: bytes) -> tuple[Ack, ...]:
    if not meta or len(meta) != 1 + meta[0] * _ACK.size:
        raise ProtocolError("a WRITE's acknowledgement is malformed")
    return tuple(Ack(ServerId(server), digest) for server, digest in _ACK.iter_unpack(meta[1:]))


def encode_write_many(chunks: Sequence[SmallChunk]) -> bytes:
    """Header and meta; the chunks' bytes must follow."""
    meta = b"".join(_SMALL.pack(chunk.handle, chunk.length, chunk.capability) for chunk in chunks)
    return encode_frame(Verb.WRITE_MANY, meta, sum(chunk.length for chunk in chunks))


def parse_write_many(meta: bytes, payload_length: int) -> tuple[SmallChunk, ...]:
    """ProtocolError when they are too many, too large, or not what the payload has room for."""
    if not meta or len(meta) % _SMALL.size or len(meta) > MANY_MAX * _SMALL.size:
        raise ProtocolError("a WRITE_MANY's meta is malformed")
    found = tuple(SmallChunk(ChunkHandle(h), length, c) for h, length, c in _SMALL.iter_unpack(meta))
    if not all(1 <= chunk.length <= SEGMENT_CHUNK_BYTES_MAX for chunk in found):
        raise ProtocolError("a WRITE_MANY has chunks of a wrong size")
    if sum(chunk.length for chunk in found) != payload_length or payload_length > MANY_BYTES_MAX:
        raise ProtocolError("a WRITE_MANY's payload has another length than its meta says")
    return found


def encode_many_acks(server: ServerId, digests: Sequence[bytes]) -> bytes:
    """WRITE_MANY's reply, whole; an empty digest is a chunk that was not stored."""
    meta = server.to_bytes(2, "big") + b"".join(digest or NOT_STORED for digest in digests)
    return encode_frame(Verb.WRITE_MANY, meta)


def parse_many_acks(meta: bytes, count: int) -> tuple[bytes, ...]:
    """The digests, empty for what was not stored."""
    if len(meta) != 2 + 8 * count:
        raise ProtocolError("a WRITE_MANY's acknowledgement is malformed")
    digests = (meta[at : at + 8] for at in range(2, len(meta), 8))
    return tuple(b"" if digest == NOT_STORED else digest for digest in digests)


def encode_read(request: ReadRequest) -> bytes:
    meta = _READ.pack(request.handle, request.offset, request.length, request.capability)
    return encode_frame(Verb.READ, meta)


def parse_read(meta: bytes) -> ReadRequest:
    handle, offset, length, capability = _unpack(_READ, meta)
    return ReadRequest(ChunkHandle(handle), offset, length, capability)


def encode_open(request: OpenRequest) -> bytes:
    return encode_frame(Verb.OPEN, _OPEN.pack(request.handle, request.capability))


def parse_open(meta: bytes) -> OpenRequest:
    handle, capability = _unpack(_OPEN, meta)
    return OpenRequest(ChunkHandle(handle), capability)


def encode_range(verb: Verb, reply: RangeReply, payload_length: int = 0) -> bytes:
    """Header and meta of READ's or OPEN's reply."""
    return encode_frame(verb, _RANGE.pack(reply.length, reply.offset) + reply.checksums, payload_length)


def parse_range(meta: bytes) -> RangeReply:
    try:
        length, offset = _RANGE.unpack_from(meta)
    except struct.error as error:
        raise ProtocolError("a reply's meta is malformed") from error
    return RangeReply(length, offset, bytes(meta[_RANGE.size :]))


def _unpack(layout: struct.Struct, meta: bytes) -> tuple[Any, ...]:
    try:
        return layout.unpack(meta)
    except struct.error as error:
        raise ProtocolError(f"{len(meta)} bytes are no meta of this verb") from error
