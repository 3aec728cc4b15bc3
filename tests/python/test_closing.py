# SPDX-License-Identifier: Apache-2.0
"""Closed endpoints, peers that leave, and threads that share an endpoint."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import diolkos
from diolkos.testing import Side, pair
from programs import PATIENCE_S

CALLS: list[Callable[[Side], Any]] = [
    lambda side: side.endpoint.send(b"", side.peer),
    lambda side: side.endpoint.isend(b"", side.peer),
    lambda side: side.endpoint.issend(b"", side.peer),
    lambda side: side.endpoint.send_object(None, side.peer),
    lambda side: side.endpoint.recv(),
    lambda side: side.endpoint.recv_into(bytearray()),
    lambda side: side.endpoint.recv_object(),
    lambda side: side.endpoint.irecv(0),
    lambda side: side.endpoint.irecv_into(bytearray()),
    lambda side: side.endpoint.probe(),
    lambda side: side.endpoint.iprobe(),
    lambda side: side.endpoint.mprobe(),
    lambda side: side.endpoint.improbe(),
    lambda side: side.endpoint.multi_recv(bytearray(1)),
    lambda side: side.endpoint.connect("x"),
    lambda side: side.endpoint.iconnect("x"),
    lambda side: side.endpoint.disconnect(side.peer),
    lambda side: side.endpoint.on_unexpected(None),
    lambda side: side.endpoint.on_unexpected(print),
    lambda side: side.endpoint.progress(),
    lambda side: side.endpoint.fileno(),
    lambda side: side.endpoint.linger(),
    lambda side: side.endpoint.rest(),
    lambda side: side.endpoint.arm(),
    lambda side: side.endpoint.disarm(),
    lambda side: side.endpoint.peers,
    lambda side: side.endpoint.counters,
]

#: Calls that wait for something which never comes.
WAITS: dict[str, Callable[[Side], Any]] = {
    "recv": lambda side: side.endpoint.recv(),
    "recv_into": lambda side: side.endpoint.recv_into(bytearray(8)),
    "recv_object": lambda side: side.endpoint.recv_object(),
    "probe": lambda side: side.endpoint.probe(),
    "mprobe": lambda side: side.endpoint.mprobe(),
    "send": lambda side: side.endpoint.send(bytes(100_000), side.peer),
    "issend": lambda side: side.endpoint.issend(b"", side.peer).wait(),
    "wait": lambda side: side.endpoint.irecv(8).wait(),
    "wait_any": lambda side: diolkos.wait_any([side.endpoint.irecv(8) for _ in range(3)]),
    "multi_recv": lambda side: side.endpoint.multi_recv(bytearray(8)).next(),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_closed_endpoint_refuses(alice: Side, call: Callable[[Side], Any]) -> None:
    alice.endpoint.close()
    with pytest.raises(diolkos.ClosedError):
        call(alice)


def test_a_closed_endpoint_still_says_who_it_was(alice: Side) -> None:
    alice.endpoint.close()
    alice.endpoint.close()
    assert alice.endpoint.closed
    assert alice.endpoint.name == "local-0"
    assert alice.peer.name == "local-1"
    assert not alice.peer.is_connected
    assert "closed" in repr(alice.endpoint)
    assert "local-1" in repr(alice.peer)


def test_the_with_statement_closes() -> None:
    with pair() as (alice, _):
        with pytest.raises(KeyError), alice.endpoint:
            raise KeyError
        assert alice.endpoint.closed


def in_thread(call: Callable[[], Any], errors: list[BaseException]) -> threading.Thread:
    """Runs a call that is to raise."""

    def run() -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("name", WAITS)
def test_closing_ends_every_wait_of_other_threads(alice: Side, name: str) -> None:
    errors: list[BaseException] = []
    thread = in_thread(lambda: WAITS[name](alice), errors)
    # Let it wait for a while: what is tested is right whenever the endpoint is closed.
    thread.join(0.02)
    assert thread.is_alive()
    alice.endpoint.close()
    thread.join(PATIENCE_S)
    assert [type(error) for error in errors] == [diolkos.ClosedError]


def test_closing_ends_many_waits_at_once(alice: Side) -> None:
    errors: list[BaseException] = []
    threads = [
        in_thread(lambda call=call: call(alice), errors)  # type: ignore[misc]
        for call in [*WAITS.values(), *WAITS.values()]
    ]
    threads[-1].join(0.05)
    alice.endpoint.close()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert {type(error) for error in errors} == {diolkos.ClosedError}
    assert len(errors) == len(threads)


@pytest.mark.parametrize("name", ["send", "issend"])
def test_a_peer_that_closes_fails_the_sends_to_it(alice: Side, bob: Side, name: str) -> None:
    errors: list[BaseException] = []
    thread = in_thread(lambda: WAITS[name](alice), errors)
    thread.join(0.02)
    bob.endpoint.close()
    thread.join(PATIENCE_S)
    assert [type(error) for error in errors] == [diolkos.PeerClosed]
    assert "local-1" in str(errors[0])


def test_a_peer_that_closed_is_gone(alice: Side, bob: Side) -> None:
    bob.endpoint.close()
    with pytest.raises(diolkos.PeerClosed):
        alice.endpoint.recv(source=alice.peer, timeout=PATIENCE_S)
    with pytest.raises(diolkos.PeerClosed):
        alice.endpoint.send(b"anyone?", alice.peer)
    assert not alice.peer.is_connected
    assert alice.endpoint.peers == ()


def test_disconnecting(alice: Side, bob: Side) -> None:
    send = alice.endpoint.isend(bytes(100_000), alice.peer)
    alice.endpoint.disconnect(alice.peer)
    with pytest.raises(diolkos.NotConnected):
        send.wait()
    with pytest.raises(diolkos.PeerError):
        alice.endpoint.send(b"", alice.peer)
    with pytest.raises(diolkos.PeerClosed):
        bob.endpoint.recv(source=bob.peer, timeout=PATIENCE_S)


def test_threads_share_an_endpoint(alice: Side, bob: Side) -> None:
    """Each of four threads sends to a thread of its own on the other side and hears back."""
    rounds, wrong = 300, []

    def ask(match: int) -> None:
        for i in range(rounds):
            alice.endpoint.send(i.to_bytes(8, "little"), alice.peer, match=match)
            answer = alice.endpoint.recv(match=match, timeout=PATIENCE_S)
            if int.from_bytes(bytes(answer), "little") != i + match:
                wrong.append((match, i))

    def answer(match: int) -> None:
        buffer = bytearray(8)
        for _ in range(rounds):
            bob.endpoint.recv_into(buffer, match=match, timeout=PATIENCE_S)
            number = int.from_bytes(buffer, "little") + match
            bob.endpoint.send(number.to_bytes(8, "little"), bob.peer, match=match)

    threads = [
        threading.Thread(target=work, args=(match,)) for match in range(4) for work in (ask, answer)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert wrong == []
    assert alice.endpoint.counters["requests"] == 0
    assert bob.endpoint.counters["unexpected"] == 0


def test_each_message_goes_to_one_of_many_receivers(alice: Side, bob: Side) -> None:
    """Owned receives look first and take then: two threads must not take the same message."""
    got: list[bytes] = []

    def receive() -> None:
        for _ in range(100):
            got.append(bytes(bob.endpoint.recv(timeout=PATIENCE_S)))

    threads = [threading.Thread(target=receive) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(300):
        alice.endpoint.send(i.to_bytes(2, "little"), alice.peer, timeout=PATIENCE_S)
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(got) == sorted(i.to_bytes(2, "little") for i in range(300))
