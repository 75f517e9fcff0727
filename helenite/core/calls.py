"""The call port's protocol: a master's most frequent verbs without gRPC, of which a unary call costs ten times as much.

Sans-I/O: this module only packs and parses. A client asks by gRPC where the port is (FindCallPort) and connects by TCP.
The master sends the greeting that FindCallPort told, so that a client knows whom it has reached. Then the client sends
calls and reads a reply for each; who wants more at once opens more connections. Big-endian:

    call     verb u8, length u32, message      a place in VERBS, and the request message of pb/master.proto
    reply    status u8, length u32, message    0 and the reply message, or 1 and `code NUL sentence` of a HeleniteError

After an error the connection stays usable. What breaks these rules ends the connection.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from google.protobuf.message import DecodeError, Message

from helenite.core.errors import HeleniteError, ProtocolError, pack_error, unpack_error
from helenite.core.pb import common_pb2, master_pb2

HEADER = struct.Struct(">BI")
GREETING_BYTES = 16
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
"""As of a gRPC message (`serving`)."""
_DONE, _FAILED = 0, 1


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb of the Namespace service with its messages."""

    name: str
    request: type[Message]
    reply: type[Message]


VERBS = (
    Verb("Lookup", master_pb2.LookupRequest, common_pb2.Entry),
    Verb("List", master_pb2.ListRequest, master_pb2.ListReply),
    Verb("Locate", master_pb2.LocateRequest, master_pb2.LocateReply),
    Verb("Mutate", master_pb2.MutateRequest, master_pb2.MutateReply),
    Verb("Allocate", master_pb2.AllocateRequest, master_pb2.AllocateReply),
    Verb("ReadFeed", master_pb2.ReadFeedRequest, master_pb2.ReadFeedReply),
)
CODES = {verb.name: code for code, verb in enumerate(VERBS)}


def parse_header(header: bytes | bytearray | memoryview) -> tuple[int, int]:
    """Verb or status, and the length of the message that follows."""
    code, length = HEADER.unpack_from(header)
    if length > MESSAGE_BYTES_MAX:
        raise ProtocolError(f"a message of {length} bytes is over the limit")
    return code, length


def encode_call(name: str, request: Message) -> bytes:
    return _frame(CODES[name], request.SerializeToString())


def parse_call(code: int, payload: bytes) -> tuple[Verb, Message]:
    """The verb and its request."""
    if code >= len(VERBS):
        raise ProtocolError(f"unknown verb {code}")
    return VERBS[code], _parse(VERBS[code].request, payload)


def encode_reply(reply: Message) -> bytes:
    return _frame(_DONE, reply.SerializeToString())


def encode_failure(error: HeleniteError) -> bytes:
    return _frame(_FAILED, pack_error(error))


def parse_reply(name: str, status: int, payload: bytes) -> Message:
    """The reply to a verb; raises the error that the master raised."""
    if status == _DONE:
        return _parse(VERBS[CODES[name]].reply, payload)
    if status != _FAILED:
        raise ProtocolError(f"unknown status {status}")
    raise unpack_error(payload)


def _frame(code: int, payload: bytes) -> bytes:
    if len(payload) > MESSAGE_BYTES_MAX:
        raise ProtocolError(f"a message of {len(payload)} bytes is over the limit")
    return HEADER.pack(code, len(payload)) + payload


def _parse(kind: type[Message], payload: bytes) -> Message:
    message = kind()
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        raise ProtocolError(f"{len(payload)} bytes are no {kind.__name__}") from error
    return message
