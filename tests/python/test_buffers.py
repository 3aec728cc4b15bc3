# SPDX-License-Identifier: Apache-2.0
"""Which memory may be used, for how long, and what is said about other memory."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import diolkos
from diolkos._core import local_pair
from diolkos.testing import Side


def test_numpy_arrays_cross_without_conversion(alice: Side, bob: Side) -> None:
    sent = np.arange(24.0).reshape(2, 3, 4)
    got = np.zeros((2, 3, 4))
    alice.endpoint.send(sent, alice.peer)
    assert bob.endpoint.recv_into(got).nbytes == sent.nbytes
    assert (sent == got).all()


def test_a_message_is_an_array_without_a_copy(alice: Side, bob: Side) -> None:
    alice.endpoint.send(np.arange(4, dtype=np.int32), alice.peer)
    message = bob.endpoint.recv()
    numbers = np.frombuffer(message, dtype=np.int32)
    numbers[0] = 77
    assert bytes(message)[:4] == (77).to_bytes(4, "little")
    del message
    assert numbers.tolist() == [77, 1, 2, 3]


@pytest.mark.parametrize(
    "buffer",
    [
        np.zeros((4, 4))[:, 1],
        np.zeros((4, 4)).T[1:],
        memoryview(bytearray(10))[::2],
        np.asfortranarray(np.zeros((3, 4))),
    ],
    ids=["column", "transposed", "strided", "fortran"],
)
def test_other_memory_is_refused_with_the_way_out(
    alice: Side, buffer: np.ndarray | memoryview
) -> None:
    with pytest.raises(BufferError, match="ascontiguousarray"):
        alice.endpoint.send(buffer, alice.peer)
    with pytest.raises(BufferError, match="ascontiguousarray"):
        alice.endpoint.recv_into(buffer)


def test_a_contiguous_part_is_fine(alice: Side, bob: Side) -> None:
    table = np.arange(12.0).reshape(3, 4)
    alice.endpoint.send(table[1], alice.peer)
    bob.endpoint.recv_into(table[2])
    assert table[2].tolist() == [4, 5, 6, 7]


read_only_array = np.zeros(3)
read_only_array.flags.writeable = False


@pytest.mark.parametrize(
    "buffer",
    [b"abc", memoryview(b"abc"), read_only_array, memoryview(bytearray(3)).toreadonly()],
    ids=["bytes", "memoryview", "array", "readonly"],
)
def test_read_only_memory_is_no_place_to_receive(
    alice: Side, bob: Side, buffer: bytes | memoryview | np.ndarray
) -> None:
    alice.endpoint.send(buffer, alice.peer)
    for receive in (bob.endpoint.recv_into, bob.endpoint.irecv_into, bob.endpoint.multi_recv):
        with pytest.raises(BufferError, match="read-only"):
            receive(buffer)
    claimed = bob.endpoint.mprobe()
    with pytest.raises(BufferError, match="read-only"):
        claimed.recv_into(buffer)
    # The refused buffer has not cost the message.
    assert len(claimed.recv()) == memoryview(buffer).nbytes


@pytest.mark.parametrize("thing", [None, 3, "text", [1, 2], object()], ids=repr)
def test_what_is_no_buffer(alice: Side, thing: object) -> None:
    with pytest.raises(TypeError, match="send_object"):
        alice.endpoint.send(thing, alice.peer)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="buffer"):
        alice.endpoint.recv_into(thing)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "array",
    [
        np.array([object(), None]),
        np.zeros(2, dtype=[("number", "f8"), ("thing", "O")]),
    ],
    ids=["objects", "records"],
)
def test_references_never_cross(alice: Side, bob: Side, array: np.ndarray) -> None:
    """Bytes of a peer must not become pointers of this process."""
    alice.endpoint.send(b"\xff" * 16, alice.peer)
    with pytest.raises(TypeError, match="references"):
        bob.endpoint.recv_into(array)
    with pytest.raises(TypeError, match="references"):
        alice.endpoint.send(array, alice.peer)
    assert bob.endpoint.iprobe() is not None


def test_records_named_like_references_are_fine(alice: Side, bob: Side) -> None:
    records = np.zeros(2, dtype=[("O", "f8"), ("OO", "i4")])
    alice.endpoint.send(records, alice.peer)
    assert bob.endpoint.recv_into(records).nbytes == records.nbytes


def test_a_posted_buffer_cannot_be_resized(alice: Side, bob: Side) -> None:
    buffer = bytearray(5)
    receive = bob.endpoint.irecv_into(buffer)
    with pytest.raises(BufferError):
        buffer.append(1)
    alice.endpoint.send(b"hello", alice.peer)
    receive.wait(timeout=10)
    buffer.append(1)


def test_a_dropped_receive_gives_its_buffer_back(bob: Side) -> None:
    buffer = bytearray(5)
    receive = bob.endpoint.irecv_into(buffer)
    del receive
    buffer.append(1)
    assert bob.endpoint.counters["posted"] == 0


def test_a_dropped_send_keeps_its_buffer_until_it_is_delivered(alice: Side, bob: Side) -> None:
    """The program forgets both the request and the array; the message arrives whole."""
    array = np.arange(100_000.0)
    gone = weakref.ref(array)
    alice.endpoint.isend(array, alice.peer)
    del array
    gc.collect()
    assert gone() is not None
    received = np.zeros(100_000)
    receive = bob.endpoint.irecv_into(received)
    while receive.test() is None:
        alice.endpoint.progress()
    assert (received == np.arange(100_000.0)).all()
    while gone() is not None:
        alice.endpoint.progress()


def test_closing_gives_all_buffers_back(alice: Side, bob: Side) -> None:
    buffers = [bytearray(100_000) for _ in range(3)]
    send = alice.endpoint.isend(buffers[0], alice.peer)
    alice.endpoint.isend(buffers[1], alice.peer)
    receive = alice.endpoint.irecv_into(buffers[2])
    alice.endpoint.close()
    for request in (send, receive):
        with pytest.raises(diolkos.ClosedError):
            request.wait()
    for buffer in buffers:
        buffer.append(1)


def test_an_endpoint_without_users_gives_its_buffers_back() -> None:
    buffer = bytearray(100_000)
    (endpoint, peer), _ = local_pair()
    endpoint.isend(buffer, peer)
    # Neither peers nor statuses keep an endpoint alive.
    del endpoint
    gc.collect()
    buffer.append(1)


def test_a_huge_owned_receive_is_a_memory_error(bob: Side) -> None:
    with pytest.raises(MemoryError):
        bob.endpoint.irecv(1 << 62)
    assert bob.endpoint.counters["posted"] == 0
