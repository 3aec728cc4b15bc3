# SPDX-License-Identifier: Apache-2.0
"""Requests: waiting, testing, cancelling, and waiting for the first of many."""

from __future__ import annotations

import threading

import pytest

import diolkos
from diolkos.testing import Side, pair
from programs import PATIENCE_S


def test_a_short_send_is_done_at_once(alice: Side, bob: Side) -> None:
    request = alice.endpoint.isend(b"hello", alice.peer, match=4, immediate=2)
    assert request.done
    status = request.wait()
    assert (status.nbytes, status.match, status.immediate) == (5, 4, 2)
    assert status.source == alice.peer == request.peer
    assert request.message is None
    assert request.wait().nbytes == 5
    assert not request.cancel()


def test_wait_times_out_and_the_request_goes_on(alice: Side, bob: Side) -> None:
    receive = bob.endpoint.irecv(10)
    for timeout in (0, 0.001):
        with pytest.raises(diolkos.Timeout):
            receive.wait(timeout=timeout)
    assert not receive.done
    with pytest.raises(ValueError, match="wait for it"):
        _ = receive.message
    alice.endpoint.send(b"hello", alice.peer)
    assert receive.wait(timeout=10).nbytes == 5
    assert receive.message == b"hello"
    assert receive.message is receive.message


def test_test_makes_progress(alice: Side, bob: Side) -> None:
    receive = bob.endpoint.irecv(10)
    assert receive.test() is None
    alice.endpoint.send(b"hello", alice.peer)
    status = receive.test()
    assert status is not None
    assert status.nbytes == 5


def test_a_timed_out_receive_loses_nothing(alice: Side, bob: Side) -> None:
    buffer = bytearray(5)
    with pytest.raises(TimeoutError):
        bob.endpoint.recv_into(buffer, timeout=0.001)
    with pytest.raises(TimeoutError):
        bob.endpoint.recv(timeout=0)
    alice.endpoint.send(b"hello", alice.peer)
    assert buffer == bytes(5)
    assert bob.endpoint.recv() == b"hello"


def test_cancelled_receive(alice: Side, bob: Side) -> None:
    buffer = bytearray(5)
    receive = bob.endpoint.irecv_into(buffer)
    assert bob.endpoint.cancel(receive)
    assert receive.done
    assert not receive.cancel()
    with pytest.raises(diolkos.Cancelled):
        receive.wait()
    alice.endpoint.send(b"hello", alice.peer)
    assert bob.endpoint.recv() == b"hello"
    assert buffer == bytes(5)


def test_it_is_too_late_to_cancel_what_has_come(alice: Side, bob: Side) -> None:
    receive = bob.endpoint.irecv(5)
    alice.endpoint.send(b"hello", alice.peer)
    bob.endpoint.progress()
    assert not receive.cancel()
    assert receive.wait().nbytes == 5


def test_sends_cannot_be_cancelled(alice: Side, bob: Side) -> None:
    send = alice.endpoint.isend(bytes(100_000), alice.peer)
    assert not send.cancel()
    receive = bob.endpoint.irecv(100_000)
    while receive.test() is None:
        send.test()
    send.wait(timeout=10)


def test_a_send_that_times_out_is_delivered_all_the_same(alice: Side, bob: Side) -> None:
    data = bytes(range(256)) * 400
    with pytest.raises(diolkos.Timeout, match="may still be delivered"):
        alice.endpoint.send(data, alice.peer, timeout=0.001)
    receive = bob.endpoint.irecv(len(data))
    while receive.test() is None:
        alice.endpoint.progress()
    assert receive.message == data


def test_one_thread_waits_for_a_request(bob: Side) -> None:
    receive = bob.endpoint.irecv(5)
    errors: list[type[BaseException]] = []

    def wait() -> None:
        try:
            receive.wait(timeout=PATIENCE_S)
        except diolkos.DiolkosError as error:
            errors.append(type(error))

    threads = [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    # One of them is told at once that the other waits; only then the endpoint is closed.
    while not errors:
        for thread in threads:
            thread.join(0.01)
    assert errors == [diolkos.BusyError]
    bob.endpoint.close()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert errors == [diolkos.BusyError, diolkos.ClosedError]


def test_wait_any_finds_the_one(alice: Side, bob: Side) -> None:
    receives = [bob.endpoint.irecv(10, match=match) for match in range(5)]
    with pytest.raises(diolkos.Timeout):
        diolkos.wait_any(receives, timeout=0.001)
    alice.endpoint.send(b"three", alice.peer, match=3)
    place, status = diolkos.wait_any(receives, timeout=10)
    assert (place, status.match, receives[3].message) == (3, 3, b"three")
    # A request that has ended stays so: it is found again.
    assert diolkos.wait_any(receives)[0] == 3


def test_wait_any_of_several_endpoints() -> None:
    with pair() as (alice, bob), pair() as (carol, dave):
        receives = [bob.endpoint.irecv(5), dave.endpoint.irecv(5)]
        with pytest.raises(diolkos.Timeout):
            diolkos.wait_any(receives, timeout=0.01)
        carol.endpoint.send(b"hello", carol.peer)
        assert diolkos.wait_any(receives, timeout=10)[0] == 1
        alice.endpoint.send(b"hello", alice.peer)
        assert diolkos.wait_any(receives[:1], timeout=10)[0] == 0


def test_wait_any_of_several_endpoints_is_woken_from_its_sleep() -> None:
    with pair() as (_, bob), pair() as (carol, dave):
        receives = [bob.endpoint.irecv(5), dave.endpoint.irecv(5)]
        found: list[int] = []
        thread = threading.Thread(
            target=lambda: found.append(diolkos.wait_any(receives, timeout=PATIENCE_S)[0])
        )
        thread.start()
        thread.join(0.05)
        carol.endpoint.send(b"hello", carol.peer)
        thread.join(PATIENCE_S)
        assert found == [1]


def test_wait_any_says_which_one_failed() -> None:
    with pair() as (alice, bob):
        receives = [
            bob.endpoint.irecv(5, match=1, source=bob.endpoint.self_peer),
            bob.endpoint.irecv(5, match=2, source=bob.peer),
        ]
        alice.endpoint.close()
        with pytest.raises(diolkos.PeerClosed) as caught:
            diolkos.wait_any(receives, timeout=10)
        assert caught.value.index == 1
        with pytest.raises(diolkos.PeerClosed):
            receives[1].wait()


def test_requests_describe_themselves(alice: Side) -> None:
    receive = alice.endpoint.irecv(5)
    assert repr(receive) == "<diolkos.Request receive under way>"
    receive.cancel()
    assert repr(receive) == "<diolkos.Request receive cancelled>"
