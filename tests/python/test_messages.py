# SPDX-License-Identifier: Apache-2.0
"""Messages of all sizes, matching, order, and what a status says."""

from __future__ import annotations

import array
import contextlib
import ctypes
import mmap
import os
import random
from collections.abc import Iterator

import pytest

import diolkos
from diolkos.testing import Side

# Around every limit of the protocol: a cell's payload, fragments, eager messages, and odd ones.
SIZES = [
    *range(41),
    *(63, 64, 65, 127, 128, 129, 1000, 4095, 4096, 4097, 6143, 6144, 16383, 16385, 32769),
    *(65535, 65536, 65537, 100_003, 1 << 20, (1 << 20) + 1, 5_000_011),
]


def contents(size: int) -> bytes:
    """Bytes that differ from size to size and from place to place."""
    return random.Random(size).randbytes(size)


def exchange(alice: Side, bob: Side, data: bytes, match: int = 7) -> bytearray:
    """Sends `data` from alice to bob, large or not."""
    buffer = bytearray(len(data))
    receive = bob.endpoint.irecv_into(buffer, match=match)
    send = alice.endpoint.isend(data, alice.peer, match=match)
    finish(receive, send)
    return buffer


def finish(*requests: diolkos.Request) -> list[diolkos.Status]:
    """Makes progress on both endpoints until all requests are complete."""
    while not all([request.test() is not None for request in requests]):
        pass
    return [request.wait() for request in requests]


@pytest.mark.parametrize("size", SIZES)
def test_posted_receive(alice: Side, bob: Side, size: int) -> None:
    data = contents(size)
    assert exchange(alice, bob, data) == data


@pytest.mark.parametrize("size", SIZES)
def test_unexpected_message(alice: Side, bob: Side, size: int) -> None:
    data = contents(size)
    send = alice.endpoint.isend(data, alice.peer, match=7)
    while bob.endpoint.iprobe(match=7) is None:
        pass
    receive = bob.endpoint.irecv(size, match=7)
    status, _ = finish(receive, send)
    message = receive.message
    assert message is not None
    assert bytes(message) == data
    assert (status.nbytes, status.message_nbytes, status.truncated) == (size, size, False)


@pytest.mark.parametrize("size", [0, 8, 32, 33, 5000, 65536])
def test_owned_message(alice: Side, bob: Side, size: int) -> None:
    data = contents(size)
    alice.endpoint.send(data, alice.peer, match=1 << 63, immediate=0xFFFF_FFFF)
    message = bob.endpoint.recv(match=1 << 63)
    assert len(message) == message.nbytes == size
    assert message == data
    assert message != data + b"x"
    assert bytes(message) == data
    assert message.match == 1 << 63
    assert message.immediate == 0xFFFF_FFFF
    assert message.source == bob.peer
    assert message.status.nbytes == size


def test_owned_message_is_a_writable_buffer_that_lives_on(alice: Side, bob: Side) -> None:
    alice.endpoint.send(b"hello", alice.peer)
    view = memoryview(bob.endpoint.recv())
    assert not view.readonly
    view[0] = ord("j")
    assert bytes(view) == b"jello"


def test_owned_large_message_while_the_sender_waits(alice: Side, bob: Side) -> None:
    data = contents(3_000_000)
    send = alice.endpoint.isend(data, alice.peer)
    claimed = bob.endpoint.mprobe()
    receive = claimed.irecv()
    finish(receive, send)
    assert receive.message == data


@pytest.mark.parametrize("size", [9, 100, 40_000, 70_000, 300_000])
def test_truncation_is_in_the_status(alice: Side, bob: Side, size: int) -> None:
    data = contents(size)
    buffer = bytearray(8)
    receive = bob.endpoint.irecv_into(buffer)
    send = alice.endpoint.isend(data, alice.peer)
    status, sent = finish(receive, send)
    assert buffer == data[:8]
    assert status.truncated
    assert status.code == "truncated"
    assert (status.nbytes, status.message_nbytes) == (8, size)
    # A sender learns of it only when it waited for the receive; it is no error for it.
    assert sent.truncated == (size > 65536)


def test_truncation_to_nothing(alice: Side, bob: Side) -> None:
    alice.endpoint.send(b"hello", alice.peer)
    status = bob.endpoint.recv_into(bytearray())
    assert status.truncated
    assert status.nbytes == 0


def test_a_longer_buffer_keeps_its_tail(alice: Side, bob: Side) -> None:
    buffer = bytearray(b"." * 10)
    alice.endpoint.send(b"hello", alice.peer)
    assert bob.endpoint.recv_into(buffer).nbytes == 5
    assert buffer == b"hello....."


def test_status_tells_all(alice: Side, bob: Side) -> None:
    alice.endpoint.send(b"abc", alice.peer, match=0xABCD, immediate=77)
    status = bob.endpoint.recv_into(bytearray(3), match=0xABCD)
    assert status.source == bob.peer
    assert status.source != alice.peer
    assert (status.match, status.immediate, status.untagged) == (0xABCD, 77, False)
    assert status.code == "success"
    assert "0xabcd" in repr(status)


def test_match_and_mask(alice: Side, bob: Side) -> None:
    for match in (0x11, 0x21, 0x12):
        alice.endpoint.send(bytes([match]), alice.peer, match=match)
    assert bytes(bob.endpoint.recv(match=0x12)) == b"\x12"
    assert bytes(bob.endpoint.recv(match=0x20, mask=0xF0)) == b"\x21"
    assert bytes(bob.endpoint.recv()) == b"\x11"
    assert bob.endpoint.iprobe() is None


def test_messages_of_one_sender_stay_in_order(alice: Side, bob: Side) -> None:
    for i in range(80):
        alice.endpoint.send(i.to_bytes(4, "little") * (1 + i % 50), alice.peer, match=i % 3)
    for i in range(0, 80, 3):
        assert bytes(bob.endpoint.recv(match=0))[:4] == i.to_bytes(4, "little")


def test_more_messages_than_a_peer_may_leave_unreceived(alice: Side, bob: Side) -> None:
    """A receiver that finds everything here already gives the credit back all the same."""
    for _ in range(20):
        for _ in range(500):
            alice.endpoint.send(b"x" * 8, alice.peer, timeout=10)
        for _ in range(500):
            bob.endpoint.recv_into(bytearray(8), timeout=10)


def test_untagged_is_another_space(alice: Side, bob: Side) -> None:
    alice.endpoint.send(b"plain", alice.peer, untagged=True)
    assert bob.endpoint.iprobe() is None
    alice.endpoint.send(b"tagged", alice.peer)
    assert bytes(bob.endpoint.recv()) == b"tagged"
    message = bob.endpoint.recv(untagged=True)
    assert bytes(message) == b"plain"
    assert message.status.untagged


def test_receive_by_source(alice: Side, bob: Side) -> None:
    me = bob.endpoint.self_peer
    own = bob.endpoint.isend(b"own", me, match=1)
    alice.endpoint.send(b"other", alice.peer, match=1)
    assert bytes(bob.endpoint.recv(match=1, source=bob.peer)) == b"other"
    assert bytes(bob.endpoint.recv(match=1, source=me)) == b"own"
    assert own.wait(timeout=10).nbytes == 3


@pytest.mark.parametrize("size", [0, 5, 70_000, 2_000_003])
def test_message_to_oneself(alice: Side, size: int) -> None:
    data = contents(size)
    me = alice.endpoint.self_peer
    send = alice.endpoint.isend(data, me, match=3)
    assert send.test() is None
    message = alice.endpoint.recv(match=3)
    assert message == data
    assert message.source == me
    assert send.wait(timeout=10).nbytes == size


def test_synchronous_send_waits_for_its_receive(alice: Side, bob: Side) -> None:
    send = alice.endpoint.issend(b"hello", alice.peer)
    bob.endpoint.progress()
    assert send.test() is None
    with pytest.raises(diolkos.Timeout):
        alice.endpoint.send(b"again", alice.peer, synchronous=True, timeout=0)
    receive = bob.endpoint.irecv(5)
    finish(receive, send)
    assert receive.message == b"hello"


def test_sending_to_an_array(alice: Side, bob: Side) -> None:
    numbers = array.array("d", [1.5, 2.5])
    got = array.array("d", [0, 0])
    alice.endpoint.send(numbers, alice.peer)
    assert bob.endpoint.recv_into(got).nbytes == 16
    assert got == numbers


def test_counters(alice: Side, bob: Side) -> None:
    for _ in range(3):
        alice.endpoint.send(b"hello", alice.peer)
    bob.endpoint.recv()
    assert alice.endpoint.counters["tx_messages"] == 3
    assert alice.endpoint.counters["tx_bytes"] == 15
    counters = bob.endpoint.counters
    assert (counters["rx_messages"], counters["rx_bytes"], counters["unexpected"]) == (3, 15, 2)
    posted = bob.endpoint.irecv_into(bytearray(1), match=5)
    assert bob.endpoint.counters["posted"] == 1
    assert bob.endpoint.counters["requests"] == 1
    posted.cancel()


@pytest.mark.slow
def test_message_of_more_than_four_gib(alice: Side, bob: Side) -> None:
    """Both buffers show the same few pages again and again, so that 4 GiB cost no memory. As both
    repeat after the same length, every byte still has a place of its own to arrive at."""
    size = (4 << 30) + 4097
    with repeating(size) as (source, pages), repeating(size) as (sink, received):
        pages[:] = contents(len(pages))
        receive = bob.endpoint.irecv_into(sink)
        send = alice.endpoint.isend(source, alice.peer)
        status, sent = finish(receive, send)
        assert status.nbytes == status.message_nbytes == sent.nbytes == size
        assert received[:] == pages[:]


@contextlib.contextmanager
def repeating(size: int) -> Iterator[tuple[ctypes.Array[ctypes.c_char], mmap.mmap]]:
    """A buffer of `size` bytes that shows a few pages over and over, and these pages."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    window, fixed, noreserve = 4 << 20, 0x10, 0x4000
    mapped = -(-size // window) * window
    descriptor = os.memfd_create("diolkos-test")
    os.ftruncate(descriptor, window)
    access = mmap.PROT_READ | mmap.PROT_WRITE
    anonymous = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | noreserve
    base = libc.mmap(None, mapped, 0, anonymous, -1, 0)
    for offset in range(0, mapped, window):
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE | fixed
        assert libc.mmap(base + offset, window, access, flags, descriptor, 0) == base + offset
    try:
        with mmap.mmap(descriptor, window) as pages:
            yield (ctypes.c_char * size).from_address(base), pages
    finally:
        libc.munmap(base, mapped)
        os.close(descriptor)
