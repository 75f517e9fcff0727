"""Both ends of a connection: frames through the buffer, waits that end."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from helenite.core.stream import BUFFER_BYTES, Stream, limit_waits

LIMIT_S = 0.2


@pytest.fixture(params=[socket.AF_UNIX, socket.AF_INET], ids=["unix", "tcp"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[Stream, socket.socket]]:
    """A stream and the bare socket at its other end."""
    if request.param == socket.AF_UNIX:
        near, far = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname())
            far, _ = listener.accept()
    stream = Stream(near, LIMIT_S)
    yield stream, far
    stream.close()
    far.close()


@pytest.mark.parametrize("seed", range(5))
def test_what_comes_in_pieces_is_taken_whole(ends: tuple[Stream, socket.socket], seed: int) -> None:
    stream, far = ends
    limit_waits(stream.socket, 60)  # for the sender's turn
    rng = random.Random(seed)
    sent = rng.randbytes(5 * BUFFER_BYTES)

    def send() -> None:
        at = 0
        while at < len(sent):
            at += far.send(sent[at : at + rng.randrange(1, 20_000)])

    sender = threading.Thread(target=send)
    sender.start()
    found = bytearray()
    buffer = memoryview(bytearray(10_000))
    while len(found) < len(sent):
        most = rng.randrange(1, min(2 * BUFFER_BYTES, len(sent) - len(found)) + 1)
        how = rng.choice(["take", "take_over", "take_some"])
        taken = stream.take_some(buffer, min(most, len(buffer))) if how == "take_some" else getattr(stream, how)(most)
        assert 1 <= len(taken) <= most
        assert how == "take_some" or len(taken) == most
        found += taken
    sender.join()
    assert found == sent


def test_what_is_taken_over_stays(ends: tuple[Stream, socket.socket]) -> None:
    stream, far = ends
    far.sendall(b"first" + b"other")
    kept, passing = stream.take_over(5), stream.take(5)
    assert passing == b"other"
    far.sendall(bytes(5))
    stream.take(5)
    assert kept == b"first"


def test_silence_ends_a_wait(ends: tuple[Stream, socket.socket]) -> None:
    stream, far = ends
    far.sendall(b"half")
    for take in (stream.take, stream.take_over):
        with pytest.raises(TimeoutError):
            take(5)


def test_a_deadline_counts_and_not_the_limit(ends: tuple[Stream, socket.socket]) -> None:
    stream, _ = ends
    for patience_s in (0.01, 0.6, 0.01):
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            stream.take(1, began + patience_s)
        assert time.monotonic() - began >= patience_s
    with pytest.raises(TimeoutError):
        stream.take(1, time.monotonic() - 1)


def test_who_does_not_read_ends_a_wait(ends: tuple[Stream, socket.socket]) -> None:
    stream, _ = ends
    with pytest.raises(TimeoutError):
        stream.send([bytes(64 << 20)])


def test_who_reads_a_little_now_and_then_does_not_stretch_a_deadline(ends: tuple[Stream, socket.socket]) -> None:
    """Each system call of a send may wait as long as is left, and makes some progress meanwhile."""
    stream, far = ends
    done = threading.Event()

    def trickle() -> None:
        while not done.wait(0.2):
            far.recv(512 * 1024)

    reader = threading.Thread(target=trickle)
    reader.start()
    began = time.monotonic()
    try:
        with pytest.raises(TimeoutError):
            stream.send([bytes(64 << 20)], began + 1)
        assert time.monotonic() - began < 5  # by the reader's pace it takes half a minute
    finally:
        done.set()
        reader.join()


def test_the_shortest_wait_is_not_for_ever(ends: tuple[Stream, socket.socket]) -> None:
    stream, _ = ends
    limit_waits(stream.socket, 1e-7)
    with pytest.raises(TimeoutError):
        stream.take(1)


def test_many_parts_are_sent_in_order(ends: tuple[Stream, socket.socket]) -> None:
    stream, far = ends
    parts = [bytes([number % 251]) * number for number in range(1, 300)]
    stream.send(parts, time.monotonic() + 60)
    left = stream.send_some(parts)
    assert left == []
    whole = b"".join(parts)
    found = b""
    while len(found) < 2 * len(whole):
        found += far.recv(1 << 20)
    assert found == whole + whole


def test_what_is_not_taken_at_once_is_left(ends: tuple[Stream, socket.socket]) -> None:
    stream, far = ends
    left = stream.send_some([b"head", bytes(64 << 20)])
    assert 0 < sum(map(len, left)) < 64 << 20
    assert far.recv(4) == b"head"


def test_an_idle_client_is_waited_for_and_its_end_is_noticed(ends: tuple[Stream, socket.socket]) -> None:
    stream, far = ends
    later = threading.Timer(2 * LIMIT_S, far.sendall, [b"call"])
    later.start()
    assert stream.wait()
    assert not stream.is_silent()
    assert stream.take(4) == b"call"
    assert stream.is_silent()
    far.close()
    assert not stream.is_silent()
    assert not stream.wait()
    with pytest.raises(ConnectionResetError):
        stream.take(1)


def test_descriptors_come_with_their_byte() -> None:
    near, far = socket.socketpair()
    reading, writing = os.pipe()
    with near, far:
        stream = Stream(near, LIMIT_S)
        socket.send_fds(far, [b"reply"], [writing])
        (received,) = stream.take_descriptors(time.monotonic() + 60)
        os.write(received, b"x")
        assert os.read(reading, 1) == b"x"
        assert stream.take(5) == b"reply"
    for descriptor in (reading, writing, received):
        os.close(descriptor)
