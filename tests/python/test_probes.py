# SPDX-License-Identifier: Apache-2.0
"""Probes, claimed messages, and buffers for many messages."""

from __future__ import annotations

import gc

import pytest

import diolkos
from diolkos.testing import Side


def test_probe_leaves_the_message(alice: Side, bob: Side) -> None:
    assert bob.endpoint.iprobe() is None
    with pytest.raises(diolkos.Timeout):
        bob.endpoint.probe(timeout=0.001)
    alice.endpoint.send(b"hello", alice.peer, match=7)
    for status in (bob.endpoint.probe(match=7), bob.endpoint.iprobe()):
        assert status is not None
        assert (status.message_nbytes, status.match, status.source) == (5, 7, bob.peer)
    assert bob.endpoint.recv() == b"hello"
    assert bob.endpoint.iprobe() is None


@pytest.mark.parametrize("size", [0, 5, 40_000])
def test_a_claimed_message_is_out_of_matching(alice: Side, bob: Side, size: int) -> None:
    alice.endpoint.send(bytes(size), alice.peer, match=7, immediate=3)
    alice.endpoint.send(b"next", alice.peer, match=7)
    claimed = bob.endpoint.mprobe(match=7)
    assert bob.endpoint.recv(match=7) == b"next"
    assert (claimed.nbytes, claimed.match, claimed.immediate) == (size, 7, 3)
    assert claimed.source == bob.peer
    assert claimed.status.message_nbytes == size
    assert claimed.recv() == bytes(size)
    for again in (claimed.recv, claimed.discard, lambda: claimed.recv_into(bytearray(1))):
        with pytest.raises(ValueError, match="already"):
            again()


def test_a_claimed_message_into_a_buffer(alice: Side, bob: Side) -> None:
    alice.endpoint.send(b"hello", alice.peer)
    buffer = bytearray(3)
    claimed = bob.endpoint.improbe()
    assert claimed is not None
    status = claimed.recv_into(buffer)
    assert status.truncated
    assert buffer == b"hel"


def test_a_dropped_claim_consumes_its_message(alice: Side, bob: Side) -> None:
    send = alice.endpoint.issend(b"hello", alice.peer)
    claimed = bob.endpoint.mprobe()
    del claimed
    gc.collect()
    assert send.wait(timeout=10).truncated
    assert bob.endpoint.iprobe() is None
    assert bob.endpoint.improbe() is None


def test_a_claim_whose_sender_left(alice: Side, bob: Side) -> None:
    alice.endpoint.isend(bytes(100_000), alice.peer)
    claimed = bob.endpoint.mprobe()
    alice.endpoint.close()
    with pytest.raises(diolkos.PeerClosed):
        claimed.recv()


def test_a_whole_message_outlives_its_sender(alice: Side, bob: Side) -> None:
    alice.endpoint.send(b"last words", alice.peer)
    alice.endpoint.close()
    assert bob.endpoint.recv() == b"last words"
    with pytest.raises(diolkos.PeerClosed):
        bob.endpoint.recv(source=bob.peer)


def test_multi_receive_packs_messages(alice: Side, bob: Side) -> None:
    buffer = bytearray(20)
    multi = bob.endpoint.multi_recv(buffer, min_free=6)
    assert multi.poll() is None
    with pytest.raises(diolkos.Timeout):
        multi.next(timeout=0.001)
    for word in (b"hello", b"", b"wide", b"world!!!"):
        alice.endpoint.send(word, alice.peer, match=len(word))
    got = list(multi)
    assert [(each.offset, bytes(each.data)) for each in got] == [
        (0, b"hello"),
        (5, b""),  # takes up one byte, so that no number of empty messages goes on for ever
        (6, b"wide"),
        (10, b"world!!!"),
    ]
    assert [each.status.match for each in got] == [5, 0, 4, 8]
    assert multi.released
    assert multi.next() is None
    assert multi.poll() is None
    # Released: the next message goes elsewhere, and the buffer is free once the views are.
    alice.endpoint.send(b"later", alice.peer)
    assert bob.endpoint.recv() == b"later"
    del got
    buffer.append(1)


def test_multi_receive_cuts_off_what_does_not_fit(alice: Side, bob: Side) -> None:
    multi = bob.endpoint.multi_recv(bytearray(8))
    alice.endpoint.send(b"hello", alice.peer)
    alice.endpoint.send(b"world", alice.peer)
    first, second = multi
    assert not first.status.truncated
    assert second.status.truncated
    assert bytes(second.data) == b"wor"


def test_multi_receive_takes_what_is_here_already(alice: Side, bob: Side) -> None:
    for i in range(3):
        alice.endpoint.send(bytes([i]), alice.peer, match=9)
    bob.endpoint.progress()
    multi = bob.endpoint.multi_recv(bytearray(3), match=9)
    assert [bytes(each.data) for each in multi] == [b"\0", b"\1", b"\2"]


def test_multi_receive_of_long_messages(alice: Side, bob: Side) -> None:
    multi = bob.endpoint.multi_recv(bytearray(200_000))
    sends = [alice.endpoint.isend(bytes([i]) * 100_000, alice.peer) for i in (1, 2)]
    got = []
    while not multi.released:
        if (delivery := multi.poll()) is not None:
            got.append(bytes(delivery.data))
        for send in sends:
            send.test()
    assert got == [b"\1" * 100_000, b"\2" * 100_000]


def test_cancelled_multi_receive(alice: Side, bob: Side) -> None:
    buffer = bytearray(100)
    multi = bob.endpoint.multi_recv(buffer)
    alice.endpoint.send(b"hello", alice.peer)
    first = multi.next(timeout=10)
    assert first is not None
    multi.cancel()
    assert multi.next(timeout=10) is None
    assert multi.released
    multi.cancel()
    assert bytes(first.data) == b"hello"


def test_a_dropped_multi_receive_gives_its_buffer_back(alice: Side, bob: Side) -> None:
    buffer = bytearray(100)
    multi = bob.endpoint.multi_recv(buffer)
    alice.endpoint.send(b"hello", alice.peer)
    bob.endpoint.progress()
    del multi
    buffer.append(1)
    assert bob.endpoint.counters["posted"] == 0


def test_multi_receive_from_a_peer_that_leaves(alice: Side, bob: Side) -> None:
    multi = bob.endpoint.multi_recv(bytearray(100), source=bob.peer)
    alice.endpoint.send(b"hello", alice.peer)
    alice.endpoint.close()
    first = multi.next(timeout=10)
    assert first is not None
    assert bytes(first.data) == b"hello"
    with pytest.raises(diolkos.PeerClosed):
        multi.next(timeout=10)
    assert multi.released
