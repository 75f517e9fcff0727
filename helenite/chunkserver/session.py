"""One data connection: reads its requests, one after the other, and answers each (core/frames.py).

Used by `dataport`, which runs each session in a thread of its own. A WRITE is stored and forwarded while it arrives,
the chunks of a WRITE_MANY are stored together, a READ is sent from the file by the kernel, an OPEN passes the file's
descriptor. What is read is not compared with its checksums here: whoever receives it does that with the bytes it got,
and asks for a verification when they differ.
"""

from __future__ import annotations

import logging
import os
import socket

from helenite.chunkserver.disk import DISK_REFUSES
from helenite.chunkserver.forwarding import Forward
from helenite.chunkserver.layout import covering_blocks
from helenite.chunkserver.store import ChunkStore, Replica, Sink
from helenite.core import frames
from helenite.core.checksum import BlockChecksums, block_count, digest
from helenite.core.dataport import IdleConnections
from helenite.core.errors import ChunkExistsError, HeleniteError, InvalidRequestError, ProtocolError
from helenite.core.frames import FRAME, Ack, Frame, OpenRequest, RangeReply, ReadRequest, SmallChunk, Verb, WriteRequest
from helenite.core.model import BLOCK_BYTES, MIB, ChunkHandle
from helenite.core.stream import Stream

log = logging.getLogger(__name__)

PIECE_BYTES = MIB
"""Most of a chunk that is received before it is passed on and written."""
TRANSFER_S = 30.0
"""Longest silence of a client in the middle of a request or a reply; then the connection is given up."""
_MORE = getattr(socket, "MSG_MORE", 0)


class Session:
    """The server's end of one connection, greeted already."""

    def __init__(self, connection: Stream, store: ChunkStore, key: bytes, hops: IdleConnections) -> None:
        self._stream = connection
        self._store = store
        self._key = key
        self._hops = hops

    def answer(self) -> bool:
        """Read one request and answer it; False when the client has gone.

        OSError and ProtocolError mean that the connection is of no more use.
        """
        if not self._stream.wait():
            return False
        frame = frames.parse_frame(self._stream.take(FRAME.size))
        meta = bytes(self._stream.take(frame.meta_length))
        try:
            match frame.verb:
                case Verb.WRITE:
                    self._write(frame, frames.parse_write(meta))
                case Verb.WRITE_MANY:
                    self._write_many(frames.parse_write_many(meta, frame.payload_length))
                case Verb.READ:
                    self._read(frames.parse_read(meta))
                case Verb.OPEN:
                    self._open(frames.parse_open(meta))
        except ProtocolError:
            raise
        except HeleniteError as error:
            self._stream.send([frames.encode_error(frame.verb, error)])
        return True

    # WRITE

    def _write(self, frame: Frame, request: WriteRequest) -> None:
        if frame.payload_length != request.length:
            raise ProtocolError("a WRITE's payload has another length than its meta says")
        try:
            frames.check_capability(self._key, request.handle, request.capability)
            sink = self._begin(request)
        except HeleniteError:
            self._drain(request.length)
            raise
        forward = Forward(self._hops, request)
        left = request.length
        try:
            buffer = memoryview(bytearray(min(left, PIECE_BYTES)))
            while left:
                piece = self._stream.take_some(buffer, min(left, len(buffer)))
                left -= len(piece)
                forward.send(piece)
                sink.write(piece)
            own = Ack(self._store.identity.server_id, sink.seal())
        except HeleniteError:
            forward.give_up()
            self._drain(left)
            raise
        except OSError:
            forward.give_up()
            raise
        finally:
            sink.abort()
        self._stream.send([frames.encode_acks((own, *forward.acks()))])

    def _write_many(self, chunks: tuple[SmallChunk, ...]) -> None:
        payload = self._stream.take(sum(chunk.length for chunk in chunks))
        small: list[tuple[ChunkHandle, memoryview]] = []
        for chunk in chunks:
            frames.check_capability(self._key, chunk.handle, chunk.capability)
            small.append((chunk.handle, payload[: chunk.length]))
            payload = payload[chunk.length :]
        digests = self._store.put_small(small)
        self._stream.send([frames.encode_many_acks(self._store.identity.server_id, digests)])

    def _begin(self, request: WriteRequest) -> Sink | Comparison:
        try:
            return self._store.begin(request.handle, request.length)
        except ChunkExistsError:
            # A repeat after a lost reply: the same bytes are a success, other bytes are not (chunks are immutable).
            return Comparison(self._store, request.handle, request.length)

    def _drain(self, left: int) -> None:
        """Read a refused payload to its end, so that the connection stays usable and the client reads the reason."""
        buffer = memoryview(bytearray(min(left, PIECE_BYTES)))
        while left:
            left -= len(self._stream.take_some(buffer, min(left, len(buffer))))

    # READ, OPEN

    def _read(self, request: ReadRequest) -> None:
        frames.check_capability(self._key, request.handle, request.capability)
        with self._store.open(request.handle) as replica:
            if request.length < 1 or request.offset + request.length > replica.length:
                raise InvalidRequestError(f"chunk {request.handle:x} has {replica.length} bytes")
            start, size = covering_blocks(request.offset, request.length, replica.length)
            checksums = replica.checksums(start // BLOCK_BYTES, block_count(size))
            head = frames.encode_range(Verb.READ, RangeReply(replica.length, start, checksums), size)
            self._stream.socket.sendall(head, _MORE)
            try:
                self._send_file(replica, start, size)
            except OSError as error:
                if error.errno in DISK_REFUSES:  # and not the network; too late for a sentence, the head has gone out
                    self._store.bad.note_unreadable(request.handle)
                raise

    def _send_file(self, replica: Replica, start: int, size: int) -> None:
        """Have the kernel send a part of a replica, waiting for the client as long as it makes progress."""
        offset, end = replica.offset + start, replica.offset + start + size
        while offset < end:
            try:
                count = os.sendfile(self._stream.socket.fileno(), replica.descriptor, offset, end - offset)
            except BlockingIOError:
                raise TimeoutError("the client does not read") from None
            if count == 0:
                raise ConnectionAbortedError("a replica's file was cut short while it was sent")
            offset += count

    def _open(self, request: OpenRequest) -> None:
        frames.check_capability(self._key, request.handle, request.capability)
        if self._stream.socket.family != socket.AF_UNIX:
            raise InvalidRequestError("descriptors are passed over unix sockets only")
        with self._store.open(request.handle) as replica:
            checksums = replica.checksums(0, block_count(replica.length))
            head = frames.encode_range(Verb.OPEN, RangeReply(replica.length, replica.offset, checksums))
            count = socket.send_fds(self._stream.socket, [head], [replica.descriptor])
            self._stream.socket.sendall(head[count:])


class Comparison:
    """Takes the bytes of a chunk that is here already and seals only if they are the same."""

    def __init__(self, store: ChunkStore, handle: ChunkHandle, length: int) -> None:
        self._store = store
        self._handle = handle
        self._length = length
        self._checksums = BlockChecksums()

    def write(self, piece: memoryview) -> None:
        self._checksums.add(piece)

    def seal(self) -> bytes:
        """The digest; ChunkExistsError when the chunk has other content, ChunkCorruptError when it is damaged."""
        computed = digest(self._checksums.finish())
        if self._store.verify(self._handle) != (self._length, computed):
            raise ChunkExistsError(f"chunk {self._handle:x} is here with other content")
        return computed

    def abort(self) -> None:
        """Nothing was stored."""
